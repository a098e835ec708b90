"""Transposing axes, padding and cropping: the results of NumPy, and the same bits for every schedule."""

import numpy as np
import pytest

from cnnlite import kernels
from cnnlite.engine.buffers import N
from cnnlite.engine.graph import Graph
from tests.kernels.drawn import compiled_kernels_needed
from tests.kernels.stages import assert_same_bits, assert_same_bits_alone


@pytest.mark.parametrize(("source", "destination"), [(1, -1), (-1, 1), (2, 3), (1, 2), (3, 1), (2, 2), (-1, -1)])
@pytest.mark.parametrize("samples", [0, 1, 5])
def test_an_axis_moves(source, destination, samples):
    x = np.random.default_rng(0).normal(size=(samples, 4, 6, 3)).astype("f4")
    np.testing.assert_array_equal(kernels.moveaxis(x, source, destination), np.moveaxis(x, source, destination))


@compiled_kernels_needed
def test_an_axis_that_is_moved_back_was_never_moved():
    x = Graph(np.float32).given((N, 4, 6, 3))
    assert kernels.moveaxis(kernels.moveaxis(x, 1, -1), -1, 1) is x


@pytest.mark.parametrize("pads", [((1, 2), (0, 3)), ((0, 0), (0, 0)), ((3, 0), (1, 1))])
def test_what_is_padded_and_cropped_is_as_before(pads):
    x = np.random.default_rng(0).normal(size=(5, 4, 6, 3))
    padded = kernels.pad(x, pads)
    np.testing.assert_array_equal(padded, np.pad(x, ((0, 0), *pads, (0, 0))), strict=True)
    np.testing.assert_array_equal(kernels.crop(padded, pads), x, strict=True)


@compiled_kernels_needed
def test_however_they_are_scheduled_the_bits_are_the_same():
    arrays = {"x": np.random.default_rng(0).normal(size=(5, 4, 6, 3)).astype("f4")}
    for function in (
        lambda x: kernels.moveaxis(x, 1, -1), lambda x: kernels.pad(x, ((1, 2), (0, 3))),
        lambda x: kernels.crop(x, ((1, 2), (0, 3))),
    ):  # fmt: skip
        assert_same_bits(function, arrays, "x")
        assert_same_bits_alone(function, arrays, "x")
