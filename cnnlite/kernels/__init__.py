"""The kernels: arrays in, arrays out, forward and backward side by side; no classes and no state.

The layers call them as `kernels.name(...)`. Each is defined again in `cnnlite/reference.py`, and setting
the environment variable CNNLITE_KERNELS=reference puts those definitions in their place.
"""

from cnnlite.kernels.optimizers import adagrad_step, adam_step, rmsprop_step, sgd_step

__all__ = ["adagrad_step", "adam_step", "rmsprop_step", "sgd_step"]
