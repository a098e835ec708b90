"""Pooling has the windows of Keras's and PyTorch's, and sends ties where PyTorch sends them."""

import inspect

import numpy as np
import pytest

import cnnlite

torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")
# Keras itself calls what NumPy has deprecated.
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore:__array__ impl:DeprecationWarning")]

NAMES = ["MaxPooling2D", "AveragePooling2D", "GlobalMaxPooling2D", "GlobalAveragePooling2D"]


def compare(ours, theirs, x, tolerance=1e-5):
    """Assert that values and gradients of a layer are those of a function of torch tensors, in float32."""
    x = x.astype("float32")
    tensor = torch.tensor(x, requires_grad=True)
    y = theirs(tensor)
    dy = np.random.default_rng(1).normal(size=tuple(y.shape)).astype("float32")
    y.backward(torch.tensor(dy))
    for mine, expected in ((ours(x, training=True), y), (ours.backward(dy), tensor.grad)):
        expected = expected.detach().numpy()
        assert mine.dtype == np.float32
        np.testing.assert_allclose(mine, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def images(height, width):
    return np.random.default_rng(height * width).normal(size=(3, height, width, 5)) - 1


@pytest.mark.parametrize(("name", "options"), [
    *((name, options) for name in NAMES[:2] for options in (
        {}, {"strides": 1}, {"pool_size": 3, "strides": 2}, {"pool_size": (3, 2), "strides": (1, 3)},
        {"pool_size": 3, "strides": 1, "padding": "same"})),
    # Where the padding is uneven, the average of Keras on torch counts the border twice, which that of its other
    # back ends doesn't; see test_an_average_over_uneven_padding_is_a_sum_over_a_count.
    *(("MaxPooling2D", {"padding": "same", **options}) for options in (
        {}, {"pool_size": 3, "strides": 2}, {"pool_size": (2, 3), "strides": (3, 3)})),
])
def test_windows_are_those_of_keras(name, options):
    options = {"pool_size": 2, **options}
    for data_format in ("channels_last", "channels_first"):
        pools = [getattr(package.layers, name)(**options, data_format=data_format) for package in (cnnlite, keras)]
        compare(*pools, images(5, 8))


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("name", NAMES[2:])
def test_global_pools_are_those_of_keras(name, data_format, keepdims):
    pools = [getattr(package.layers, name)(data_format, keepdims) for package in (cnnlite, keras)]
    compare(*pools, images(20, 17))


@pytest.mark.parametrize(("window", "stride"), [(2, 2), (3, 1), (3, 2)])
def test_windows_are_those_of_torch(window, stride):
    x = images(9, 8).transpose(0, 3, 1, 2)
    options = {"strides": stride, "data_format": "channels_first"}
    compare(cnnlite.layers.MaxPool(window, **options), torch.nn.MaxPool2d(window, stride), x)
    compare(cnnlite.layers.AveragePool(window, **options), torch.nn.AvgPool2d(window, stride), x)


@pytest.mark.parametrize(("window", "stride", "pads"), [
    ((2, 2), (2, 2), (0, 0, 0, 1)), ((3, 3), (2, 2), (0, 1, 1, 1)), ((2, 3), (3, 3), (0, 1, 0, 0)),
])
def test_an_average_over_uneven_padding_is_a_sum_over_a_count(window, stride, pads):
    """`pads` is (left, right, top, bottom) for the 5 x 8 image, by TensorFlow's rule."""
    def average(x):
        total, count = (torch.nn.functional.avg_pool2d(torch.nn.functional.pad(values, pads), window, stride)
                        for values in (x, torch.ones_like(x)))
        return total / count

    pool = cnnlite.layers.AveragePool(window, stride, "same", data_format="channels_first")
    compare(pool, average, images(5, 8).transpose(0, 3, 1, 2))


def test_a_tie_goes_to_the_pixel_that_torch_chooses():
    x = np.random.default_rng(0).integers(0, 2, (3, 4, 6, 6))
    compare(cnnlite.layers.MaxPool(3, strides=1, data_format="channels_first"), torch.nn.MaxPool2d(3, 1), x)


@pytest.mark.parametrize("name", NAMES)
def test_the_arguments_are_those_of_keras(name):
    ours, theirs = (inspect.signature(getattr(package.layers, name)).parameters for package in (cnnlite, keras))
    # Keras asks for the size of an average window; here it is 2, as for the maximum.
    assert [key for key in theirs if key not in ("name", "kwargs")] == [key for key in ours if key != "kwargs"]
    for key, parameter in ours.items():
        if theirs[key].default is not inspect.Parameter.empty:
            assert parameter.default == theirs[key].default
