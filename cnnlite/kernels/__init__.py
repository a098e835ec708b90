"""The kernels: arrays in, arrays out, forward and backward side by side.

The layers call them as `kernels.name(...)`. Each has a plain definition in `cnnlite/reference.py`, which is called
instead in eager mode (`cnnlite/eager.py`).
"""

import functools

import numpy as np

from cnnlite import reference
from cnnlite.eager import is_eager
from cnnlite.kernels.activations import (
    elu,
    elu_backward,
    gelu,
    gelu_backward,
    sigmoid,
    sigmoid_backward,
    silu,
    silu_backward,
    softplus,
    softplus_backward,
    tanh,
    tanh_backward,
)
from cnnlite.kernels.average_pooling import average_pool, average_pool_backward
from cnnlite.kernels.batchnorm import batchnorm_backward, batchnorm_inference_backward, batchnorm_normalize
from cnnlite.kernels.broadcast import add, multiply
from cnnlite.kernels.clipping import clip_by_global_norm, clip_by_norm, clip_by_value
from cnnlite.kernels.column_sums import column_sums
from cnnlite.kernels.convolution.conv2d import conv2d
from cnnlite.kernels.convolution.conv2d_gradients import conv2d_backward, conv2d_input_gradient, conv2d_kernel_gradient
from cnnlite.kernels.convolution.depthwise import (
    depthwise_conv2d,
    depthwise_conv2d_input_gradient,
    depthwise_conv2d_kernel_gradient,
)
from cnnlite.kernels.convolution.im2col import col2im, im2col
from cnnlite.kernels.dropout import dropout_mask
from cnnlite.kernels.layout import crop, moveaxis, pad
from cnnlite.kernels.losses import (
    absolute_error,
    binary_crossentropy,
    crossentropy,
    huber,
    mean_loss,
    scale_gradient,
    squared_error,
)
from cnnlite.kernels.optimizers import adagrad, adagrad_step, adam, adam_step, rmsprop, rmsprop_step, sgd, sgd_step
from cnnlite.kernels.pooling import max_pool, max_pool_backward
from cnnlite.kernels.product.matmul import matmul
from cnnlite.kernels.rectifiers import (
    clipped_relu,
    clipped_relu_backward,
    leaky_relu,
    leaky_relu_backward,
    relu,
    relu_backward,
)
from cnnlite.kernels.regularizers import add_l1_l2_gradient, l1_l2_penalty
from cnnlite.kernels.softmax import (
    log_softmax,
    log_softmax_and_softmax,
    log_softmax_backward,
    softmax,
    softmax_backward,
)
from cnnlite.kernels.statistics import batchnorm_statistics, inverse_deviation, move_average

__all__ = [
    "absolute_error",
    "adagrad",
    "adagrad_step",
    "adam",
    "adam_step",
    "add",
    "add_l1_l2_gradient",
    "average_pool",
    "average_pool_backward",
    "batchnorm_backward",
    "batchnorm_inference_backward",
    "batchnorm_normalize",
    "batchnorm_statistics",
    "binary_crossentropy",
    "clip_by_global_norm",
    "clip_by_norm",
    "clip_by_value",
    "clipped_relu",
    "clipped_relu_backward",
    "col2im",
    "column_sums",
    "conv2d",
    "conv2d_backward",
    "conv2d_input_gradient",
    "conv2d_kernel_gradient",
    "crop",
    "crossentropy",
    "depthwise_conv2d",
    "depthwise_conv2d_input_gradient",
    "depthwise_conv2d_kernel_gradient",
    "dropout_mask",
    "elu",
    "elu_backward",
    "gelu",
    "gelu_backward",
    "huber",
    "im2col",
    "inverse_deviation",
    "l1_l2_penalty",
    "leaky_relu",
    "leaky_relu_backward",
    "log_softmax",
    "log_softmax_and_softmax",
    "log_softmax_backward",
    "matmul",
    "max_pool",
    "max_pool_backward",
    "mean_loss",
    "move_average",
    "moveaxis",
    "multiply",
    "pad",
    "relu",
    "relu_backward",
    "rmsprop",
    "rmsprop_step",
    "scale_gradient",
    "sgd",
    "sgd_step",
    "sigmoid",
    "sigmoid_backward",
    "silu",
    "silu_backward",
    "softmax",
    "softmax_backward",
    "softplus",
    "softplus_backward",
    "squared_error",
    "tanh",
    "tanh_backward",
]

COMPILED = not is_eager()  # whether the process runs the compiled kernels by default


def _or_its_definition(kernel, definition):
    """Return a function that calls a kernel, or in eager mode its definition."""

    @functools.wraps(kernel)
    def call(*args, **kwargs):
        if not is_eager():
            return kernel(*args, **kwargs)
        # Compiled code computes with infinities and NaN without NumPy's warnings; so must the definitions.
        with np.errstate(all="ignore"):
            return definition(*args, **kwargs)

    return call


globals().update({name: _or_its_definition(globals()[name], getattr(reference, name)) for name in __all__
                  if not hasattr(globals()[name], "is_operation")})
