"""The kernels: arrays in, arrays out, forward and backward side by side.

The layers call them as `kernels.name(...)`. Each is defined again in `cnnlite/reference.py`, and the
environment variable CNNLITE_KERNELS=reference puts those definitions in their place. So does numba's own
NUMBA_DISABLE_JIT=1: the micro-kernel is LLVM's language, which only a compiler can run.
"""

import os

import numba
import numpy as np

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
from cnnlite.kernels.batchnorm import (
    batchnorm_backward,
    batchnorm_inference_backward,
    batchnorm_normalize,
    batchnorm_statistics,
)
from cnnlite.kernels.conv2d import (
    conv2d,
    conv2d_backward,
    conv2d_input_gradient,
    conv2d_kernel_gradient,
)
from cnnlite.kernels.depthwise import (
    depthwise_conv2d,
    depthwise_conv2d_input_gradient,
    depthwise_conv2d_kernel_gradient,
)
from cnnlite.kernels.dropout import dropout_mask
from cnnlite.kernels.im2col import col2im, im2col
from cnnlite.kernels.matmul import column_sums, matmul
from cnnlite.kernels.optimizers import (
    adagrad_step,
    adam_step,
    rmsprop_step,
    sgd_step,
)
from cnnlite.kernels.pooling import (
    average_pool,
    average_pool_backward,
    max_pool,
    max_pool_backward,
)

__all__ = [
    "adagrad_step",
    "adam_step",
    "average_pool",
    "average_pool_backward",
    "batchnorm_backward",
    "batchnorm_inference_backward",
    "batchnorm_normalize",
    "batchnorm_statistics",
    "clipped_relu",
    "clipped_relu_backward",
    "col2im",
    "column_sums",
    "conv2d",
    "conv2d_backward",
    "conv2d_input_gradient",
    "conv2d_kernel_gradient",
    "depthwise_conv2d",
    "depthwise_conv2d_input_gradient",
    "depthwise_conv2d_kernel_gradient",
    "dropout_mask",
    "elu",
    "elu_backward",
    "gelu",
    "gelu_backward",
    "im2col",
    "leaky_relu",
    "leaky_relu_backward",
    "log_softmax",
    "log_softmax_backward",
    "matmul",
    "max_pool",
    "max_pool_backward",
    "relu",
    "relu_backward",
    "rmsprop_step",
    "sgd_step",
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

COMPILED = os.environ.get("CNNLITE_KERNELS") != "reference" and not numba.config.DISABLE_JIT
if not COMPILED:
    from cnnlite import reference

    # Compiled kernels compute with infinities and NaN without a word from NumPy; so do the definitions in their place.
    globals().update({name: np.errstate(all="ignore")(getattr(reference, name)) for name in __all__})
