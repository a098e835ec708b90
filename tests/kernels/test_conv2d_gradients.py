"""All gradients of a convolution in one call: any subset, NaN and infinity, and the same bits for every schedule."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlite import kernels, reference
from tests.kernels.drawn import (
    EPSILON,
    MARGIN,
    assert_close,
    assert_same_bits_with_one_thread_and_two,
    compiled_kernels_needed,
    dtypes,
    geometries,
    guarded,
    seeds,
    two_threads_needed,
)
from tests.kernels.stages import assert_same_bits, results

batches = st.sampled_from([0, 1, 2, 3, 5, 16, 17, 33])
# (channels, filters) per group: with at least 16 of both, Winograd's method may be used
channels = st.sampled_from([(1, 1), (1, 17), (3, 8), (2, 33), (16, 1), (16, 3), (9, 6), (16, 16), (17, 19), (20, 40)])
NO_PADS = ((0, 0), (0, 0))


def problem(n, size, taps, c, f, groups=1, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), dtype="float32", seed=0):
    """Return x, dy and kernel."""
    rng = np.random.default_rng(seed)
    output = reference.output_shape((n, *size, c), taps, strides, pads, dilation)
    shapes = (n, *size, c * groups), (n, *output, f * groups), (*taps, c, f * groups)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def gradients(x, dy, kernel, *where):
    """Return dkernel, dbias and dx, and check that nothing around them has changed."""
    arrays = [guarded(np.full(shape, 7, x.dtype)) for shape in (kernel.shape, kernel.shape[3:], x.shape)]
    kernels.conv2d_backward(x, dy, kernel, *where, *(array for array, _ in arrays))
    for _, around in arrays:
        assert np.isnan(around[:MARGIN]).all()
        assert np.isnan(around[-MARGIN:]).all()
    return [array for array, _ in arrays]


@settings(max_examples=60, deadline=None)
@given(geometries(), batches, channels, st.sampled_from([1, 1, 2]), dtypes, seeds)
def test_all_at_once_equal_their_definitions_and_each_alone_has_the_same_bits(geometry, n, channels, groups, dtype,
                                                                             seed):
    x, dy, kernel = problem(n, geometry.size, geometry.window, *channels, groups, *geometry.where, dtype, seed)
    where = *geometry.where, groups
    mine = gradients(x, dy, kernel, *where)
    wide = [array.astype(np.float64) for array in (x, dy, kernel)]
    expected = [np.empty(array.shape) for array in mine]
    reference.conv2d_backward(*wide, *where, *expected)
    for one, other in zip(mine, expected):
        assert_close(one, other, EPSILON[dtype])
    for i, name in enumerate(("dkernel", "dbias", "dx")):
        alone = np.full_like(mine[i], 7)
        kernels.conv2d_backward(x, dy, kernel, *where, **{name: alone})
        assert alone.tobytes() == mine[i].tobytes()


def test_no_gradient_depends_on_what_the_memory_for_it_held():
    x, dy, kernel = problem(4, (12, 12), (3, 3), 16, 16)
    found = []
    for value in (0, np.nan, 1e30):
        dkernel, dbias, dx = np.full_like(kernel, value), np.full(16, value, "f4"), np.full_like(x, value)
        kernels.conv2d_backward(x, dy, kernel, dkernel=dkernel, dbias=dbias, dx=dx)
        found.append([array.tobytes() for array in (dkernel, dbias, dx)])
    assert found[0] == found[1] == found[2]


def test_none_of_them_is_nothing_to_do():
    x, dy, kernel = problem(2, (5, 5), (3, 3), 2, 3)
    assert kernels.conv2d_backward(x, dy, kernel) is None


@pytest.mark.parametrize("place", [(0, 2, 3, 1), (2, 8, 9, 15), (3, 0, 0, 0)])
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf, 1e30])
def test_a_gradient_that_is_not_bounded_shows_where_the_definition_has_it(special, place):
    # Chunks of 4 images by Winograd's method, in one of which an image takes the direct path.
    pads = ((1, 1), (1, 1))
    x, dy, kernel = problem(64, (9, 10), (3, 3), 16, 16, pads=pads)
    dy[place] = special
    dkernel, _, dx = gradients(x, dy, kernel, (1, 1), pads, (1, 1), 1)
    wide = [array.astype(np.float64) for array in (x, dy, kernel)]
    with np.errstate(all="ignore"):
        expected = reference.conv2d_input_gradient(wide[1], wide[2], x.shape, pads=pads)
        assert_close(dx, expected, EPSILON["float32"])
        if special == 1e30:
            # The other images keep their accuracy.
            others = np.arange(64) != place[0]
            assert_close(dx[others], expected[others], EPSILON["float32"])
            assert_close(dkernel, reference.conv2d_kernel_gradient(*wide[:2], kernel.shape, pads=pads), 1e-5)
            return
    assert not np.isfinite(dkernel[..., place[3]]).all()
    assert np.isfinite(np.delete(dkernel, place[3], axis=3)).all()


@pytest.mark.parametrize("special", [np.nan, 2.0**40])
def test_what_x_holds_does_not_change_a_bit_of_dx(special):
    x, dy, kernel = problem(64, (9, 10), (3, 3), 16, 16)
    dy[5, 3, 2, 1] = 2.0**40  # this image takes the direct path
    found = []
    for value in (1, special):
        x[6, 4, 5, 2] = value
        dx = np.empty_like(x)
        kernels.conv2d_backward(x, dy, kernel, dkernel=np.empty_like(kernel), dx=dx)
        found.append(dx.tobytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("special", [np.nan, np.inf, 1e30])
def test_a_weight_that_is_not_bounded_shows_in_dx_where_the_definition_has_it(special):
    _, dy, kernel = problem(3, (9, 10), (3, 3), 16, 17)
    kernel[1, 2, 3, 4] = special
    dx = kernels.conv2d_input_gradient(dy, kernel, (3, 9, 10, 16))
    with np.errstate(all="ignore"):
        expected = reference.conv2d_input_gradient(dy.astype(float), kernel.astype(float), dx.shape)
    assert_close(dx, expected, EPSILON["float32"])
    others = np.arange(16) != 3
    assert_close(dx[..., others], expected[..., others], EPSILON["float32"])


@two_threads_needed
@settings(max_examples=15, deadline=None)
@given(geometries(), batches, channels, st.sampled_from([1, 2]), seeds)
def test_one_thread_and_two_give_the_same_bits(geometry, n, channels, groups, seed):
    x, dy, kernel = problem(n, geometry.size, geometry.window, *channels, groups, *geometry.where, seed=seed)
    assert_same_bits_with_one_thread_and_two(lambda: gradients(x, dy, kernel, *geometry.where, groups))


# The different paths: Winograd's method, pixel by pixel, one row, wide, turned, dilated, groups.
WAYS = {
    "Winograd": dict(size=(9, 8), taps=(3, 3), c=16, f=19, pads=((1, 1), (0, 1))),
    "36 products": dict(size=(8, 7), taps=(3, 3), c=96, f=97, pads=((1, 1), (1, 1))),
    "pixels": dict(size=(7, 6), taps=(3, 2), c=3, f=17, strides=(2, 1)),
    "one row": dict(size=(3, 4), taps=(1, 1), c=5, f=18),
    "wide": dict(size=(6, 7), taps=(3, 3), c=1, f=3, pads=((1, 1), (1, 1))),
    "turned": dict(size=(6, 7), taps=(3, 3), c=8, f=1),
    "dilated": dict(size=(8, 7), taps=(3, 3), c=2, f=6, dilation=(1, 2)),
    "groups": dict(size=(5, 6), taps=(2, 2), c=3, f=6, groups=2, pads=((1, 0), (0, 1))),
}


def all_three(together=None, **where):
    """Return a function that takes buffers and returns the buffers of the gradients."""

    def function(x, dy, kernel):
        graph = x.graph
        out = [graph.work(shape) for shape in (kernel.shape, kernel.shape[3:], x.shape)]
        kernels.conv2d_backward(x, dy, kernel, dkernel=out[0], dbias=out[1], dx=out[2], **where)
        for step in graph.steps:
            step.together = step.together if together is None else together
        return out

    return function


def arrays_of(way, n, spoils):
    arrays = dict(zip(("x", "dy", "kernel"), problem(n, **WAYS[way])))
    if spoils:
        arrays["x"][n // 2, 0, 0, 0], arrays["dy"][n // 3, 1, 0, 0] = np.inf, np.nan
    return arrays, {key: value for key, value in WAYS[way].items() if key in ("strides", "pads", "dilation", "groups")}


@compiled_kernels_needed
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("n", [1, 3, 17])
def test_no_schedule_changes_a_bit(way, n):
    arrays, where = arrays_of(way, n, spoils=n > 1)
    assert_same_bits(all_three(**where), arrays, "x dy")


@compiled_kernels_needed
@pytest.mark.parametrize(("way", "tiles"), [*((way, tiles) for way in WAYS for tiles in (0, 4)), ("Winograd", 14)])
def test_how_many_samples_of_a_chunk_come_at_a_time_changes_no_bit(way, tiles, monkeypatch):
    if tiles:
        # Chains of 2 samples in chunks of 5; in Winograd's method, chains of fewer and of more tiles than a sample has.
        pixels = arrays_of(way, 1, False)[0]["dy"][0, ..., 0].size
        for name, chain in (("direct_kernel_gradient", 2 * pixels), ("winograd_gradients", tiles)):
            monkeypatch.setattr(f"cnnlite.kernels.convolution.{name}.CHAIN", chain)
            monkeypatch.setattr(f"cnnlite.kernels.convolution.{name}.LONG_CHAIN", chain)
    for spoils in (False, True):
        arrays, where = arrays_of(way, 83, spoils)
        expected = results(all_three(1000, **where), arrays, "x dy")
        for one, other in zip(expected, results(all_three(1, **where), arrays, "x dy")):
            assert one.tobytes() == other.tobytes()
        if not spoils:
            dkernel = reference.conv2d_kernel_gradient(*(arrays[name].astype(float) for name in ("x", "dy")),
                                                       arrays["kernel"].shape, **where)
            assert_close(expected[0], dkernel, EPSILON["float32"])


@compiled_kernels_needed
@pytest.mark.parametrize("way", WAYS)
def test_in_a_graph_the_weights_and_their_gradients_may_be_arrays(way):
    arrays, where = arrays_of(way, 3, spoils=False)
    kernel = arrays["kernel"]
    dkernel, dbias = np.full_like(kernel, 7), np.full(kernel.shape[3], 7, np.float32)

    def function(x, dy):
        dx = x.graph.work(x.shape)
        kernels.conv2d_backward(x, dy, kernel, dkernel=dkernel, dbias=dbias, dx=dx, **where)
        return dx

    (dx,) = results(function, {name: arrays[name] for name in ("x", "dy")}, "x dy")
    expected = results(all_three(**where), arrays, "x dy")
    assert [array.tobytes() for array in (dkernel, dbias, dx)] == [array.tobytes() for array in expected]


@pytest.mark.parametrize(("name", "change"), [
    ("x", lambda x: x.astype(np.float64)), ("dy", lambda dy: dy[:, :-1].copy()), ("dy", lambda dy: dy[:-1].copy()),
    ("kernel", lambda kernel: kernel[..., :-1, :].copy()), ("dkernel", lambda dkernel: dkernel[..., :-1].copy()),
    ("dbias", lambda dbias: dbias[:-1].copy()), ("dx", lambda dx: dx[:-1].copy()),
    ("dx", lambda dx: dx.astype(np.float64)), ("dy", lambda dy: np.repeat(dy, 2, axis=3)[..., ::2]),
])
@compiled_kernels_needed
def test_arrays_that_do_not_fit_are_refused_and_nothing_is_written(name, change):
    x, dy, kernel = problem(3, (8, 8), (3, 3), 4, 8)
    arrays = dict(x=x, dy=dy, kernel=kernel, dkernel=0 * kernel, dbias=np.zeros(8, "f4"), dx=0 * x)
    arrays[name] = change(arrays[name])
    with pytest.raises((ValueError, TypeError), match=r"^conv2d_backward: .*Received: "):
        kernels.conv2d_backward(**arrays)
    assert not any(arrays[result].any() for result in ("dkernel", "dbias", "dx"))


@compiled_kernels_needed
@pytest.mark.parametrize("where", [
    dict(dilation=(-1, -1)), dict(strides=(0, 1)), dict(groups=8), dict(groups=0), dict(pads=((-1, 0), (0, 0))),
])
def test_a_geometry_that_makes_no_sense_is_refused(where):
    x, dy, kernel = problem(3, (8, 8), (3, 3), 4, 8)
    for call in (lambda: kernels.conv2d_backward(x, dy, kernel, **where, dx=x),
                 lambda: kernels.conv2d_input_gradient(dy, kernel, x.shape, **where),
                 lambda: kernels.conv2d_kernel_gradient(x, dy, kernel.shape, **where)):
        with pytest.raises(ValueError, match=r"^conv2d_\w*: (x must have C channels|strides, dilation).*Received: "):
            call()
