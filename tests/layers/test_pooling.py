"""The pooling layers, windows and global ones: gradients, padding, ties and NaN."""

import numpy as np
import pytest

import cnnlite
from cnnlite import layers
from cnnlite.layers import AveragePool, GlobalAveragePool, GlobalMaxPool, MaxPool
from tests.helpers.numeric import assert_gradients
from tests.kernels.drawn import compiled_kernels_needed

ALL = [MaxPool, AveragePool, GlobalMaxPool, GlobalAveragePool]
WINDOWS = [
    {},
    {"pool_size": 2, "strides": 1},
    {"pool_size": 3, "strides": 1, "padding": "same"},
    {"pool_size": (2, 2), "strides": (2, 2), "padding": "same"},
    {"pool_size": (2, 3), "strides": (3, 3), "padding": "same"},
    {"pool_size": (3, 2), "strides": (2, 1)},
    {"pool_size": 1, "strides": 3},
]


def spread(*shape, seed=0):
    """Return values that all differ by at least 0.1, so that no small step changes which is largest."""
    return np.random.default_rng(seed).permutation(np.prod(shape)).reshape(shape) * 0.1 - 2


@pytest.mark.parametrize("options", WINDOWS)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("Layer", [MaxPool, AveragePool])
def test_backward_is_the_gradient_of_forward(Layer, data_format, options):
    assert_gradients(Layer(**options, data_format=data_format, dtype="float64"), spread(2, 5, 4, 3))


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("Layer", [GlobalMaxPool, GlobalAveragePool])
def test_backward_of_a_global_pool_is_the_gradient_of_forward(Layer, data_format, keepdims):
    assert_gradients(Layer(data_format, keepdims, dtype="float64"), spread(2, 3, 4, 3))


@pytest.mark.parametrize("Layer", ALL)
def test_channels_first_is_channels_last_transposed(Layer):
    options = {"keepdims": True} if Layer in ALL[2:] else {"pool_size": (2, 3), "strides": (1, 2), "padding": "same"}
    x = spread(2, 5, 6, 3)
    last, first = (Layer(**options, data_format=form, dtype="float64") for form in ("channels_last", "channels_first"))
    y = last(x, training=True)
    np.testing.assert_array_equal(first(x.transpose(0, 3, 1, 2), training=True), y.transpose(0, 3, 1, 2))
    dy = np.random.default_rng(1).normal(size=y.shape)
    np.testing.assert_array_equal(first.backward(dy.transpose(0, 3, 1, 2)), last.backward(dy).transpose(0, 3, 1, 2))


@pytest.mark.parametrize("view", [lambda a: np.repeat(a, 2, axis=0)[::2], np.asfortranarray,
                                  lambda a: np.ascontiguousarray(a.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3),
                                  lambda a: np.ascontiguousarray(a[..., ::-1])[..., ::-1]])
@pytest.mark.parametrize("Layer", ALL)
def test_the_order_in_memory_does_not_matter(Layer, view):
    x = spread(3, 4, 5, 2)
    options = {"keepdims": True} if Layer in ALL[2:] else {}
    layer = Layer(**options, dtype="float64")
    y = layer(x, training=True)
    dy = np.random.default_rng(1).normal(size=y.shape)
    dx = layer.backward(dy)
    other = Layer(**options, dtype="float64")
    np.testing.assert_array_equal(other(view(x), training=True), y)
    np.testing.assert_array_equal(other.backward(view(dy)), dx)


@pytest.mark.parametrize("Layer", ALL)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_dtype_of_the_layer_is_that_of_the_results_and_no_input_changes(Layer, dtype):
    x = spread(2, 4, 4, 3).astype(dtype)
    before = x.copy()
    layer = Layer(dtype=dtype)
    y = layer(x, training=True)
    dy = y.copy()
    dx = layer.backward(dy)
    assert (y.dtype, dx.dtype) == (dtype, dtype)
    assert (x == before).all()
    assert (dy == y).all()
    kept = y.copy()
    layer(x + 1, training=True)
    assert (y == kept).all()


@pytest.mark.parametrize("Layer", ALL)
def test_integers_become_floats(Layer):
    x = np.arange(16, dtype="uint8").reshape(1, 4, 4, 1)
    y = Layer()(x)
    assert y.dtype == "float32"
    np.testing.assert_array_equal(y, Layer()(x.astype("float32")))


@pytest.mark.parametrize("Layer", ALL)
def test_a_batch_of_0_works(Layer):
    layer = Layer()
    x = np.empty((0, 4, 4, 3))
    y = layer(x, training=True)
    assert y.shape == (0, *layer.output_shape[1:])
    assert layer.backward(y).shape == x.shape


@pytest.mark.parametrize("Layer", ALL)
def test_inference_writes_nothing_on_the_layer(Layer):
    layer = Layer()
    layer.build((None, 4, 4, 3))
    before = dict(vars(layer))
    y = layer(spread(2, 4, 4, 3))
    assert all(value is before[name] for name, value in vars(layer).items())
    np.testing.assert_array_equal(layer(spread(2, 4, 4, 3), training=True), y)


@pytest.mark.parametrize("Layer", ALL)
def test_backward_twice_gives_the_same_and_before_forward_is_an_error(Layer):
    layer = Layer()
    with pytest.raises(ValueError, match="training"):
        layer.backward(np.ones((2, 2, 2, 3)))
    y = layer(spread(2, 4, 4, 3), training=True)
    dy = np.random.default_rng(1).normal(size=y.shape)
    np.testing.assert_array_equal(layer.backward(dy), layer.backward(dy))
    with pytest.raises(ValueError, match="dy must have the shape of the output"):
        layer.backward(dy[1:])


@pytest.mark.parametrize("Layer", ALL)
def test_results_are_the_same_after_a_larger_batch(Layer):
    large, small = spread(3, 4, 4, 2), spread(2, 4, 4, 2, seed=1)
    layer = Layer()
    for x in (large, small, large):
        fresh = Layer()
        y = layer(x, training=True)
        np.testing.assert_array_equal(y, fresh(x, training=True))
        np.testing.assert_array_equal(layer.backward(np.cos(y)), fresh.backward(np.cos(y)))


# Values


def test_padding_counts_neither_in_a_maximum_nor_in_an_average():
    x = np.full((1, 5, 5, 1), -7.0)
    for Layer in (MaxPool, AveragePool):
        y = Layer(3, strides=2, padding="same")(x)
        assert y.shape == (1, 3, 3, 1)
        assert (y == -7).all()


def test_overlapping_windows_add_their_gradients():
    x = np.zeros((1, 3, 3, 1))
    x[0, 1, 1] = 1
    layer = MaxPool(2, strides=1)
    layer(x, training=True)
    dx = layer.backward(np.array([1.0, 2, 3, 4]).reshape(1, 2, 2, 1))
    assert dx[0, :, :, 0].tolist() == [[0, 0, 0], [0, 10, 0], [0, 0, 0]]


@pytest.mark.parametrize("layer", [MaxPool(2), GlobalMaxPool(keepdims=True)])
def test_a_tie_sends_the_gradient_to_the_first_maximum(layer):
    layer(np.array([[1.0, 2], [2, 2]]).reshape(1, 2, 2, 1), training=True)
    assert layer.backward(np.full((1, 1, 1, 1), 5.0)).ravel().tolist() == [0, 5, 0, 0]


@pytest.mark.parametrize("layer", [MaxPool(2), GlobalMaxPool(keepdims=True), AveragePool(2),
                                   GlobalAveragePool(keepdims=True)])
def test_nan_in_nan_out_in_its_own_channel(layer):
    x = spread(1, 2, 2, 2)
    x[0, 1, 0, 1] = np.nan
    assert np.isnan(layer(x)).ravel().tolist() == [False, True]
    x[...] = np.nan
    assert np.isnan(layer(x)).all()


@pytest.mark.parametrize("layer", [MaxPool(3, strides=1, padding="same"), GlobalMaxPool()])
def test_an_image_of_minus_infinity_stays_one_and_gradients_go_to_pixels(layer):
    y = layer(np.full((1, 2, 2, 1), -np.inf), training=True)
    assert (y == -np.inf).all()
    assert layer.backward(np.ones(y.shape)).sum() == y.size


def test_a_global_pool_of_a_large_image_finds_the_last_pixel():
    x = np.zeros((1, 20, 21, 1))
    x[0, 19, 20] = 1
    layer = GlobalMaxPool()
    assert layer(x, training=True).tolist() == [[1]]
    assert np.argwhere(layer.backward(np.ones((1, 1)))).tolist() == [[0, 19, 20, 0]]


# Arguments, shapes, errors


@pytest.mark.parametrize(("options", "shape"), [
    ({}, (None, 2, 2, 3)), ({"strides": 1}, (None, 4, 4, 3)), ({"padding": "same"}, (None, 3, 3, 3)),
    ({"pool_size": (5, 1), "padding": "SAME", "strides": (2, 3)}, (None, 3, 2, 3)),
    ({"pool_size": 7, "strides": 2, "padding": "same"}, (None, 3, 3, 3)),
])
@pytest.mark.parametrize("Layer", [MaxPool, AveragePool])
def test_the_output_shape_is_that_of_tensorflow(Layer, options, shape):
    layer = Layer(**options)
    assert layer.compute_output_shape((None, 5, 5, 3)) == shape
    assert layer(np.zeros((2, 5, 5, 3))).shape == (2, *shape[1:])
    assert layer.output_shape == shape


def test_unknown_sizes_stay_unknown():
    assert MaxPool().compute_output_shape((None, None, 6, 3)) == (None, None, 3, 3)
    assert GlobalMaxPool(keepdims=True, data_format="channels_first").compute_output_shape((None, 3, None, None)) == (
        None, 3, 1, 1)


@pytest.mark.parametrize("Layer", [MaxPool, AveragePool])
def test_a_window_larger_than_the_image_is_an_error_before_anything_changes(Layer):
    layer = Layer(5)
    with pytest.raises(ValueError, match=r"the window must fit into the image.*\(5, 5\)"):
        layer.build((None, 4, 9, 1))
    assert not layer.built
    layer.build((None, 5, 9, 1))
    # A later image of another size than the layer was built for.
    with pytest.raises(ValueError, match="the window must fit"):
        layer(np.zeros((1, 4, 9, 1)))


@pytest.mark.parametrize("Layer", ALL)
def test_an_input_of_another_rank_is_an_error(Layer):
    with pytest.raises(ValueError, match=r"4 axes.*\(2, 3\)"):
        Layer()(np.zeros((2, 3)))


@pytest.mark.parametrize("Layer", [GlobalMaxPool, GlobalAveragePool])
def test_a_global_pool_of_no_pixels_is_an_error(Layer):
    layer = Layer()
    layer.build((None, None, None, 1))
    with pytest.raises(ValueError, match="at least one pixel"):
        layer(np.zeros((2, 0, 3, 1)))


@pytest.mark.parametrize(("options", "error", "text"), [
    ({"pool_size": 0}, ValueError, "pool_size=0"), ({"pool_size": (2, 2, 2)}, ValueError, "pair"),
    ({"pool_size": 2.0}, ValueError, "pool_size=2.0"), ({"strides": (1, -1)}, ValueError, "strides=-1"),
    ({"padding": "full"}, ValueError, "padding='full'"), ({"data_format": "NCHW"}, ValueError, "data_format='NCHW'"),
])
@pytest.mark.parametrize("Layer", [MaxPool, AveragePool])
def test_bad_arguments_are_named(Layer, options, error, text):
    with pytest.raises(error, match=text):
        Layer(**options)


def test_keepdims_must_be_a_boolean():
    with pytest.raises(TypeError, match="keepdims=1"):
        GlobalMaxPool(keepdims=1)


@pytest.mark.parametrize("layer", [MaxPool((2, 3), 1, "same", "channels_first", name="pool"), AveragePool(3),
                                   GlobalMaxPool("channels_first", True), GlobalAveragePool(dtype="float64")])
def test_the_config_makes_the_same_layer_again(layer):
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()


def test_the_default_layout_is_that_of_the_config():
    cnnlite.config.set_image_data_format("channels_first")
    try:
        assert MaxPool().compute_output_shape((None, 3, 4, 6)) == (None, 3, 2, 3)
        assert GlobalMaxPool().data_format == "channels_first"
    finally:
        cnnlite.config.set_image_data_format("channels_last")
    assert MaxPool().data_format == "channels_last"


@pytest.mark.parametrize(("name", "Layer"), [
    ("MaxPool2D", MaxPool), ("MaxPooling2D", MaxPool),
    ("AveragePooling2D", AveragePool), ("AvgPool2D", AveragePool),
    ("GlobalMaxPool2D", GlobalMaxPool), ("GlobalMaxPooling2D", GlobalMaxPool),
    ("GlobalAveragePooling2D", GlobalAveragePool), ("GlobalAvgPool2D", GlobalAveragePool),
])
def test_keras_spellings_are_the_same_class(name, Layer):
    assert getattr(layers, name) is Layer


@pytest.mark.parametrize("strides", [1, None])
def test_a_window_of_any_size_is_as_one_of_three_images(strides):
    # Its pixels are numbered in 32 bits, which 2**31 by 2**31 of them are too many for.
    x = np.random.default_rng(0).normal(size=(2, 6, 7, 4)).astype(np.float32)
    layer_of = {size: MaxPool(size, strides=strides, padding="same") for size in (25, 2**31 - 1)}
    near, far = ((layer(x, training=True), layer.backward(np.ones_like(layer(x, training=True))))
                 for layer in layer_of.values())
    np.testing.assert_array_equal(near[0], far[0])
    np.testing.assert_array_equal(near[1], far[1])


@compiled_kernels_needed  # the definition goes pixel by pixel
@pytest.mark.parametrize(("layer", "shape", "number"), [
    (GlobalAveragePool(), (1, 1024, 1024, 1), 0.1),
    (GlobalAveragePool(), (1, 4096, 8192, 1), 1),  # beyond 2**24 a float32 does not count on
    (AveragePool(512), (1, 1024, 1024, 2), 0.1),
])
def test_the_average_of_equal_pixels_is_that_pixel_however_many_there_are(layer, shape, number):
    np.testing.assert_allclose(layer(np.full(shape, number, np.float32)), np.float32(number), rtol=2e-7)
