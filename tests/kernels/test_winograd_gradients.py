"""Both gradients by Winograd's method, also for shapes that normally take the direct path, and its weights."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlite import reference
from cnnlite.kernels.convolution.direct import panel_columns
from cnnlite.kernels.convolution.winograd import transformed_weights
from cnnlite.kernels.convolution.winograd_gradients import add_winograd_gradients
from cnnlite.kernels.convolution.winograd_transforms import TAPS, constants, evaluation
from cnnlite.kernels.geometry import Geometry, fields
from cnnlite.kernels.operation import operation
from tests.kernels.drawn import MARGIN, compiled_kernels_needed, dtypes, guarded, seeds
from tests.kernels.stages import results

pytestmark = compiled_kernels_needed

EPSILON = {"float32": 1e-5, "float64": 1e-12}
numbers_of_channels = st.sampled_from([16, 17, 19, 31, 32, 33, 40, 47, 48, 65])


@operation(samples="x dy dx")
def gradients(x, dy, kernel, pads, dkernel=None, dx=None):
    sizes = fields(x.shape, kernel.shape, dy.shape[1:3], Geometry(pads=pads))
    add_winograd_gradients(x, dy, kernel, sizes, dkernel, dx)


@st.composite
def problems(draw):
    """Draw x, dy and kernel, and pads that leave at least one output pixel."""
    taps, c, f = draw(st.sampled_from(TAPS)), draw(numbers_of_channels), draw(numbers_of_channels)
    pads, sizes = [], []
    for _ in range(2):
        pads.append(draw(st.tuples(st.integers(0, 4), st.integers(0, 4)) | st.just((0, 0))))
        sizes.append(max(1, taps - sum(pads[-1])) + draw(st.integers(0, 12)))
    rng, dtype = np.random.default_rng(draw(seeds)), draw(dtypes)
    n = draw(st.sampled_from([0, 1, 1, 2, 5, 37]))
    output = reference.output_shape((n, *sizes, c), (taps, taps), (1, 1), pads, (1, 1))
    shapes = (n, *sizes, c), (n, *output, f), (taps, taps, c, f)
    return *(rng.normal(size=shape).astype(dtype) for shape in shapes), tuple(pads)


def assert_close(actual, expected):
    largest = np.abs(expected).max(initial=0)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=EPSILON[actual.dtype.name] * largest)


@settings(max_examples=60, deadline=None)
@given(problems(), st.sampled_from([("dkernel",), ("dx",), ("dkernel", "dx")]))
def test_they_equal_their_definitions_and_touch_nothing_else(problem, names):
    x, _, kernel, pads = problem
    arrays = {name: guarded(np.full_like({"dkernel": kernel, "dx": x}[name], 7)) for name in names}
    gradients(*(guarded(array)[0] for array in problem[:3]), pads, **{name: arrays[name][0] for name in names})
    wide_x, wide_dy, wide_kernel = (array.astype(np.float64) for array in problem[:3])
    if "dkernel" in names:
        assert_close(arrays["dkernel"][0],
                     reference.conv2d_kernel_gradient(wide_x, wide_dy, kernel.shape, pads=pads))
    if "dx" in names:
        assert_close(arrays["dx"][0], reference.conv2d_input_gradient(wide_dy, wide_kernel, x.shape, pads=pads))
    for _, around in arrays.values():
        assert np.isnan(around[:MARGIN]).all()
        assert np.isnan(around[-MARGIN:]).all()


@settings(max_examples=20, deadline=None)
@given(seeds, dtypes, st.sampled_from(TAPS), numbers_of_channels, numbers_of_channels)
def test_transformed_weights_are_those_of_the_turned_kernel_times_constants_in_panels(seed, dtype, taps, c, f):
    kernel = np.random.default_rng(seed).normal(size=(taps, taps, c, f)).astype(dtype)
    (u,) = results(lambda kernel: transformed_weights(kernel.graph, kernel, to_input=True),
                   {"kernel": guarded(kernel)[0]})
    v = np.array(constants(), np.float64)[:, None] * np.array(evaluation(taps), np.float64)
    expected = np.einsum("ia,abcf,jb->ijfc", v, kernel, v).reshape(36, f, c)
    for panel in range(u.shape[1]):
        # If the last panel would have less than a vector, it begins earlier.
        column, columns = panel_columns.py_func(panel, c, u.shape[3])
        assert columns >= u.shape[3] // 2
        assert_close(u[:, panel, :, :columns], expected[:, :, column : column + columns])
    assert column + columns == c


def test_an_image_has_the_same_gradient_whatever_images_go_with_it():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(70, 10, 11, 19)).astype("f4"), rng.normal(size=(3, 3, 19, 37)).astype("f4")
    dy, pads = rng.normal(size=(70, 10, 10, 37)).astype("f4"), ((1, 1), (0, 1))
    together = np.empty_like(x)
    gradients(x, dy, kernel, pads, dx=together)
    for first, last in [(0, 1), (3, 4), (5, 12), (69, 70)]:
        alone = np.empty_like(x[first:last])
        gradients(x[first:last], dy[first:last], kernel, pads, dx=alone)
        assert alone.tobytes() == together[first:last].tobytes()
