"""The kernels: arrays in, arrays out, forward and backward side by side; no classes and no state.

The layers call them as `kernels.name(...)`. Each is defined again in `cnnlite/reference.py`, and setting
the environment variable CNNLITE_KERNELS=reference puts those definitions in their place.
"""

from cnnlite.kernels.batchnorm import (
    batchnorm_backward,
    batchnorm_inference_backward,
    batchnorm_normalize,
    batchnorm_statistics,
)
from cnnlite.kernels.pooling import average_pool, average_pool_backward, max_pool, max_pool_backward

__all__ = [
    "average_pool",
    "average_pool_backward",
    "batchnorm_backward",
    "batchnorm_inference_backward",
    "batchnorm_normalize",
    "batchnorm_statistics",
    "max_pool",
    "max_pool_backward",
]
