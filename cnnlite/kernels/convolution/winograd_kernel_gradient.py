"""The gradient of a large kernel by Winograd's method, as 36 matrix products; see `winograd.py`.

    x (N, H, W, C)      -- cut into tiles, B d B^T -->          V (tiles, 36, C)
    dy (N, OH, OW, F)   -- cut into tiles, V_m dy V_m^T -->     W (tiles, 36, F)
    S[p] = V[:, p]^T @ W[:, p]                                  S (36, C, F)
    S                   -- A_K s A_K^T -->                      dkernel (K, K, C, F)

`winograd_gradients.py` keeps a sum of the kernel's size for each chunk of a batch, to which it adds the tiles of a few
images at a time. For a kernel with many channels and small images, that is a lot of memory traffic for few products.
Here the tiles of all images are in memory, and each sum is written once. If any sample has values that are not
`bounded`, the gradient is summed over the windows of the images themselves (`outer_products.py`).
"""

import math

import numpy as np

from cnnlite.engine.stages import BATCH, SAMPLES, array, array_as, scratch, stage, word
from cnnlite.kernels.bounded import are_bounded, is_bounded
from cnnlite.kernels.convolution.winograd import POINTS
from cnnlite.kernels.convolution.winograd_transforms import TILE, call_transform, transform_address
from cnnlite.kernels.geometry import FIELDS
from cnnlite.kernels.operation import graph_of
from cnnlite.kernels.product.outer_products import add_outer_products

NUMBERS_A_UNIT = 2048  # of C * F, that are transformed back at a time
LEAST_PRODUCTS = 5  # multiplications in a tile's product at one point, for each number of all tiles of a sample there
LEAST_BYTES = 1 << 20  # of S: half of a second-level cache of 2 MB
MOST_MEMORY = 6  # times that of x and dy, for their transformed tiles


def has_large_products(sizes, itemsize):
    """Return whether this is faster than sums of chunks, given the FIELDS of a convolution that uses Winograd's method.

    A transformed tile is 36 (C + F) numbers that go to memory and come back, and a chunk's sum is K * K * C * F. Of
    20 shapes in batches of 8 to 256 images (all but one with K = 3), it was 0.9 to 3 times as fast where this says yes,
    and 0.45 to 1.5 times elsewhere, except for 64 channels of 4 x 4 pixels (2.8). Tiles that extend far beyond small
    images, and the many tiles of larger kernels, would take too much memory. The answer is the same for every batch.
    """
    c, f, tiles = sizes["channels"], sizes["filters"], _tiles(sizes)
    images = sizes["h"] * sizes["w"] * c + sizes["oh"] * sizes["ow"] * f
    return (POINTS * c * f * itemsize >= LEAST_BYTES and c * f >= LEAST_PRODUCTS * tiles * (c + f)
            and POINTS * tiles * (c + f) <= MOST_MEMORY * images)


def _tiles(sizes):
    """Return how many tiles a sample has."""
    outputs = TILE + 1 - sizes["height"]
    return -(-sizes["oh"] // outputs) * -(-sizes["ow"] // outputs)


def add_winograd_kernel_gradient(x, dy, dkernel, sizes):
    """Add the stages that write dkernel; sizes: the FIELDS of the convolution."""
    graph = graph_of(x, dy)
    taps, _, c, f = dkernel.shape
    numbers, samples, tiles = c * f, dy.shape[0], _tiles(sizes)
    x_points, dy_points = (graph.work((samples * tiles, POINTS, channels), dy.dtype) for channels in (c, f))
    flags = graph.work((samples,), np.int64)
    products = graph.work((POINTS, c, f), dy.dtype)
    transform = transform_address(dy.dtype)
    graph.add(_to_points, **sizes, x=x, dy=dy, x_points=x_points, dy_points=dy_points, flags=flags, transform=transform,
              work=10.0 * tiles * POINTS * (c + f))
    add_outer_products(x_points, dy_points, products, flags=flags)
    add_outer_products(x, dy.reshape(-1, f), dkernel.reshape(-1, f), windows=sizes, flags=flags, where=0)
    graph.add(_from_points, units=max(1, numbers // NUMBERS_A_UNIT), products=products, out=dkernel, flags=flags,
              taps=taps, numbers=numbers, transform=transform, work=10 * math.prod(products.shape),
              scratch=2 * NUMBERS_A_UNIT * dy.itemsize)


@stage(reads="x dy", writes="x_points dy_points flags", sizes=f"{FIELDS} transform")
def _to_points(r, run, first, last):
    """Transform the tiles of samples whose values are bounded."""
    c, f, outputs = r.channels, r.filters, TILE + 1 - r.height
    x, dy = array(run, r.x, (last, r.h * r.w * c)), array(run, r.dy, (last, r.oh * r.ow * f))
    across = (r.ow + outputs - 1) // outputs
    tiles, itemsize = (r.oh + outputs - 1) // outputs * across, x.itemsize
    x_points, dy_points = word(run, r.x_points), word(run, r.dy_points)
    flags = array_as(run, r.flags, (last,), np.int64)
    for i in range(first, last):
        flags[i] = is_bounded(x[i]) and is_bounded(dy[i])
        for tile in range(tiles if flags[i] else 0):
            top, left, place = tile // across * outputs, tile % across * outputs, (i * tiles + tile) * POINTS * itemsize
            call_transform(r.transform, TILE, c, x[i].ctypes.data, r.h, r.w, c, top - r.top, left - r.left,
                           x_points + place * c, c, 0)
            call_transform(r.transform, outputs, f, dy[i].ctypes.data, r.oh, r.ow, f, top, left,
                           dy_points + place * f, f, 0)


@stage(reads="products flags", writes="out", sizes="taps numbers transform", footprint=BATCH)
def _from_points(r, run, first, last):
    if not are_bounded(array_as(run, r.flags, (word(run, SAMPLES),), np.int64)):
        return
    products, out = array(run, r.products, (POINTS * r.numbers,)), array(run, r.out, (r.taps * r.taps * r.numbers,))
    zeros = scratch(run, 0, (2 * NUMBERS_A_UNIT,))
    for j in range(zeros.size):
        zeros[j] = 0
    for unit in range(first, last):
        begin = unit * NUMBERS_A_UNIT
        count = r.numbers - begin if r.numbers - begin < 2 * NUMBERS_A_UNIT else NUMBERS_A_UNIT
        # All elements of a tap are contiguous: to the transform they are the channels of one pixel.
        call_transform(r.transform, -r.taps, count, out.ctypes.data + begin * out.itemsize, r.taps, r.taps, r.numbers,
                       0, 0, products.ctypes.data + begin * out.itemsize, r.numbers, zeros.ctypes.data)
