"""The kernels that clip gradients, against their definitions."""

import numpy as np
import pytest

from cnnlite import kernels, reference
from tests.kernels.drawn import compiled_kernels_needed
from tests.kernels.stages import assert_same_bits

NAMES = ["clip_by_value", "clip_by_norm", "clip_by_global_norm"]
SEGMENTS = ((0, 5), (5, 5), (7, 4200), (4200, 9000))
every_kind = pytest.mark.parametrize("name", NAMES)


def clipped(module, name, g, limit, segments=SEGMENTS):
    out = np.full_like(g, 77)
    with np.errstate(all="ignore"):
        assert getattr(module, name)(g, out, limit, segments) is None
    return out


def drawn(dtype="float32", size=9003):
    return np.random.default_rng(0).normal(size=size).astype(dtype)


@every_kind
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-13)])
@pytest.mark.parametrize("limit", [0.5, 3.0, 1e3])
def test_kernel_equals_the_definition(name, dtype, tolerance, limit):
    g = drawn(dtype)
    out = clipped(kernels, name, g, limit)
    np.testing.assert_allclose(out, clipped(reference, name, g, limit), rtol=tolerance)
    assert (out[[5, 6, 9000, 9002]] == 77).all()


@every_kind
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_passes_as_in_the_definition(name, bad):
    g = drawn()
    g[8], g[5000] = bad, -bad
    np.testing.assert_allclose(clipped(kernels, name, g, 0.5), clipped(reference, name, g, 0.5), rtol=1e-6)


@every_kind
@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_squares_that_float64_can_not_hold_are_no_infinite_norm(name, size):
    g = drawn("float64") * size
    expected = clipped(reference, name, g, 0.5)
    np.testing.assert_allclose(clipped(kernels, name, g, 0.5), expected, rtol=1e-12)
    assert np.isfinite(expected).all()
    several = np.full(40000, 1e153)  # no square overflows, but their sum does
    out = clipped(kernels, name, several, 0.5, ((0, 40000),))
    np.testing.assert_allclose(out, 0.5 if name == "clip_by_value" else 0.5 / 200, rtol=1e-12)


@every_kind
def test_a_segment_of_nothing_and_no_segments_are_left_alone(name):
    for segments in ((), ((3, 3),)):
        assert (clipped(kernels, name, drawn(), 0.5, segments) == 77).all()


@every_kind
@compiled_kernels_needed
def test_what_does_not_fit_is_refused(name):
    g = drawn()
    function = getattr(kernels, name)
    with pytest.raises(ValueError, match=r"within the 9003 numbers of g\. Received: \(0, 9004\)"):
        function(g, g.copy(), 1.0, ((0, 9004),))
    with pytest.raises(ValueError, match=r"out must have the shape \(9003,\)"):
        function(g, g[1:].copy(), 1.0, SEGMENTS)
    with pytest.raises(TypeError, match="out must be of dtype float32"):
        function(g, g.astype("float64"), 1.0, SEGMENTS)


@every_kind
@compiled_kernels_needed
def test_the_bits_do_not_depend_on_how_the_stages_are_scheduled(name):
    def call(g):
        out = g.graph.work(g.shape)
        getattr(kernels, name)(g, out, 0.5, ((0, 5), (5, 9003)))
        return (out,)

    assert_same_bits(call, {"g": drawn()}, "")
