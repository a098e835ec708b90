"""The kernels: arrays in, arrays out, forward and backward side by side; no classes and no state.

The layers call them as `kernels.name(...)`. Each is defined again in `cnnlite/reference.py`, and setting
the environment variable CNNLITE_KERNELS=reference puts those definitions in their place.
"""

from cnnlite.kernels.activations import (
    clipped_relu,
    clipped_relu_backward,
    elu,
    elu_backward,
    gelu,
    gelu_backward,
    leaky_relu,
    leaky_relu_backward,
    log_softmax,
    log_softmax_backward,
    relu,
    relu_backward,
    sigmoid,
    sigmoid_backward,
    silu,
    silu_backward,
    softmax,
    softmax_backward,
    softplus,
    softplus_backward,
    tanh,
    tanh_backward,
)

__all__ = [
    "clipped_relu",
    "clipped_relu_backward",
    "elu",
    "elu_backward",
    "gelu",
    "gelu_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "log_softmax",
    "log_softmax_backward",
    "relu",
    "relu_backward",
    "sigmoid",
    "sigmoid_backward",
    "silu",
    "silu_backward",
    "softmax",
    "softmax_backward",
    "softplus",
    "softplus_backward",
    "tanh",
    "tanh_backward",
]
