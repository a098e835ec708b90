"""Every kernel again in a few lines of plain NumPy, under the same name and with the same arguments.

This is what the kernels in `cnnlite/kernels/` are held to by the tests, and what a debugger can step
through in their place: with the environment variable `CNNLITE_KERNELS=reference` the whole library runs
on this file.

Shapes: N images, H rows, W columns, C channels; OH and OW are the size of the output; F filters; a
kernel is (KH, KW, C, F). `pads` is ((top, bottom), (left, right)).
"""

import numpy as np

# ---------------------------------------------------------------- matrix products and convolution


# ---------------------------------------------------------------- pooling


# ---------------------------------------------------------------- batch normalisation


# ---------------------------------------------------------------- activations


# ---------------------------------------------------------------- optimizer steps
