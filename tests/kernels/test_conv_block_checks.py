"""A block of layers looks at its arrays before compiled code, which checks no index, reads or writes them."""

import numpy as np
import pytest
from cnnlite.kernels.conv_block import conv_block, conv_block_gradient_sums, follow
from cnnlite.kernels.conv_tasks import MAX_POOL, Following

from cnnlite.kernels.geometry import Geometry, window_of
from tests.kernels.drawn import compiled_kernels_needed

pytestmark = compiled_kernels_needed

N, F = 3, 8
POOLED = Following(relu=True, pool=MAX_POOL, window=window_of((2, 2), (2, 2), ((0, 0), (0, 0))))


def ones(*shape):
    return np.ones(shape, np.float32)


def places():
    return np.zeros((N, 3, 3, F), np.uint8)


# Each entry with arrays that fit, by name, and how it is called with them. z is (N, 6, 6, F), y is (N, 3, 3, F).
ENTRIES = {
    "conv_block": (
        lambda: {"x": ones(N, 8, 8, 4), "kernel": ones(3, 3, 4, F), "bias": ones(F), "affine": ones(3, F),
                 "z": ones(N, 6, 6, F), "y": ones(N, 3, 3, F), "argmax": places()},
        lambda x, kernel, bias, affine, z, y, argmax: conv_block(
            x, kernel, bias, Geometry(), affine, POOLED, z, out=(y, argmax)),
    ),
    "follow": (
        lambda: {"z": ones(N, 6, 6, F), "affine": ones(3, F), "y": ones(N, 3, 3, F), "argmax": places()},
        lambda z, affine, y, argmax: follow(z, affine, POOLED, (y, argmax)),
    ),
    "conv_block_gradient_sums": (
        lambda: {"dy": ones(N, 3, 3, F), "y": ones(N, 3, 3, F), "argmax": places(), "z": ones(N, 6, 6, F),
                 "mean": ones(F)},
        lambda dy, y, argmax, z, mean: conv_block_gradient_sums(dy, (y, argmax), z, mean, POOLED),
    ),
}
ARRAYS = [(entry, name) for entry, (arrays, _) in ENTRIES.items() for name in arrays()]


@pytest.mark.parametrize("entry", ENTRIES)
def test_arrays_that_fit_are_taken(entry):
    arrays, run = ENTRIES[entry]
    run(**arrays())


@pytest.mark.parametrize(("entry", "name"), ARRAYS)
def test_an_array_that_does_not_fit_is_refused(entry, name):
    arrays, run = ENTRIES[entry]
    array = arrays()[name]
    others = [np.repeat(array, 2, axis=-1)[..., ::2], array[..., np.newaxis], array.astype(np.float16)]
    # A window may reach beyond z, as it does where there was padding, but not lie beyond it.
    axes = (0, 3) if name == "z" and entry in ("follow", "conv_block_gradient_sums") else range(array.ndim)
    others += [np.concatenate([array, array], axis=axis) for axis in axes]
    others += [np.take(array, range(array.shape[axis] - 1), axis=axis) for axis in axes]
    if name == "z":
        others.append(array[:, :4])
    for other in others:
        with pytest.raises((ValueError, TypeError), match=rf"^({entry}|conv_block): .*Received: "):
            run(**{**arrays(), name: np.ascontiguousarray(other) if other is not others[0] else other})


@pytest.mark.parametrize("geometry", [
    Geometry(dilation=(-1, -1)), Geometry(strides=(0, 1)), Geometry(groups=8), Geometry(groups=0),
    Geometry(pads=((-1, 0), (0, 0))),
])
def test_a_geometry_that_makes_no_sense_is_refused(geometry):
    with pytest.raises(ValueError, match=r"^conv_block: (x must have C channels|strides, dilation).*Received: "):
        conv_block(ones(N, 8, 8, 4), ones(3, 3, 4, F), None, geometry, z=ones(N, 6, 6, F))
