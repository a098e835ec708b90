"""What must hold for every layer with a kernel: Conv2D, DepthwiseConv2D and Dense alike."""

import copy
import pickle
import sys
from functools import partial

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

from cnnlite import check_gradients, layers
from cnnlite.engine.stages import Stage

pytestmark = pytest.mark.usefixtures("same_weights_in_every_run")

LAYERS = {
    "Conv2D": partial(layers.Conv2D, 4, (3, 2), padding="same", activation="tanh"),
    "Conv2D, channels first": partial(layers.Conv2D, 4, (3, 2), strides=(2, 1), data_format="channels_first"),
    "DepthwiseConv2D": partial(layers.DepthwiseConv2D, 3, depth_multiplier=2, activation="sigmoid"),
    "DepthwiseConv2D, channels first": partial(layers.DepthwiseConv2D, (2, 3), data_format="channels_first"),
    "Dense": partial(layers.Dense, 3, activation="tanh"),
}
SHAPE = (4, 6, 5, 4)


@pytest.fixture(params=LAYERS)
def make(request):
    return LAYERS[request.param]


def normal(shape, seed=0, dtype="float32"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def trained(layer, x, seed=1):
    """Run a layer forward and backward; return y, dx and the gradients of the weights."""
    y = layer(x, training=True)
    dx = layer.backward(normal(y.shape, seed, y.dtype))
    return [y.copy(), dx.copy(), *(gradient.copy() for gradient in layer.grads.values())]


def assert_all_equal(mine, theirs):
    assert len(mine) == len(theirs)
    for a, b in zip(mine, theirs):
        np.testing.assert_array_equal(a, b)


def test_gradients_are_those_of_finite_differences(make):
    for use_bias in (True, False):
        report = check_gradients(make(use_bias=use_bias), normal((2, *SHAPE[1:])), max_elements=60)
        assert report.ok, report


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_dtype_of_the_layer_is_that_of_all_it_returns(make, dtype):
    layer = make(dtype=dtype)
    for array in [*trained(layer, normal(SHAPE, dtype="float64")), layer(normal(SHAPE)), *layer.weights]:
        assert array.dtype == dtype


def test_the_order_in_memory_does_not_matter(make):
    x = normal((2 * SHAPE[0], *SHAPE[1:]))[::2]
    layer = make()
    expected = trained(layer, np.ascontiguousarray(x))
    turned = np.ascontiguousarray(x.transpose(2, 0, 3, 1)).transpose(1, 3, 0, 2)
    for other in (x, turned, np.asfortranarray(x)):
        assert not other.flags.c_contiguous
        assert_all_equal(trained(layer, other), expected)
    y = layer.forward(x, training=True)
    dy = normal(y.shape, seed=1)
    for other in (np.repeat(dy, 2, axis=0)[::2], np.asfortranarray(dy)):
        assert not other.flags.c_contiguous
        np.testing.assert_array_equal(layer.backward(other), expected[1])


def test_integer_images_are_converted(make):
    images = np.random.default_rng(0).integers(0, 256, size=SHAPE, dtype=np.uint8)
    layer = make()
    assert_all_equal(trained(layer, images), trained(layer, images.astype(np.float32)))


def compiled_signatures():
    things = [thing for name, module in list(sys.modules.items()) if name.startswith("cnnlite.kernels.")
              for thing in vars(module).values()]
    return (sum(len(function.signatures) for function in things if isinstance(function, Dispatcher))
            + sum(len(stage.addresses) for stage in things if isinstance(stage, Stage)))


def test_read_only_images_are_taken_and_need_no_kernels_of_their_own(make):
    x = normal(SHAPE)
    layer = make()
    expected = trained(layer, x)
    before = compiled_signatures()
    x.flags.writeable = False
    assert_all_equal(trained(layer, x), expected)
    assert compiled_signatures() == before


def test_nothing_that_the_user_owns_is_changed(make):
    x = normal(SHAPE)
    layer = make()
    y = layer(x, training=True)
    dy = normal(y.shape)
    kept = x.copy(), dy.copy()
    layer.backward(dy)
    layer(x)
    assert_all_equal((x, dy), kept)


def test_what_is_handed_out_is_not_overwritten_later(make):
    layer = make()
    y = layer(normal(SHAPE))
    before = y.copy()
    again = layer(normal(SHAPE, seed=5))
    assert not np.may_share_memory(y, again)
    np.testing.assert_array_equal(y, before)


def test_inference_writes_nothing_on_the_layer_and_gives_what_training_gives(make):
    layer = make()
    y = layer(normal(SHAPE), training=True)
    before = pickle.dumps(layer)
    np.testing.assert_array_equal(layer.forward(normal(SHAPE)), y)
    layer.forward(normal((2, *SHAPE[1:]), seed=3))
    assert pickle.dumps(layer) == before


def test_backward_needs_a_training_forward(make):
    layer = make()
    layer(normal(SHAPE))
    with pytest.raises(ValueError, match=rf"^{layer.name}: backward needs a forward pass.*training=True"):
        layer.backward(normal(SHAPE))


def test_backward_twice_gives_the_same(make):
    layer = make()
    y, *first = trained(layer, normal(SHAPE))
    layer(normal(SHAPE, seed=7))  # inference between the two changes nothing
    assert_all_equal([layer.backward(normal(y.shape, seed=1)), *layer.grads.values()], first)


def test_backward_weights_gives_the_gradients_that_backward_gives(make):
    layer = make()
    y, _, *expected = trained(layer, normal(SHAPE))
    for gradient in layer.grads.values():
        gradient[...] = np.nan
    layer.backward_weights(normal(y.shape, seed=1))
    assert_all_equal(list(layer.grads.values()), expected)


def test_a_frozen_layer_passes_the_gradient_on_and_computes_none_of_its_own(make):
    layer = make()
    _, dx, *_ = trained(layer, normal(SHAPE))
    layer.trainable = False
    for gradient in layer.grads.values():
        gradient[...] = np.nan
    _, frozen_dx, *gradients = trained(layer, normal(SHAPE))
    np.testing.assert_array_equal(frozen_dx, dx)
    assert all(np.isnan(gradient).all() for gradient in gradients)


def test_the_numbers_of_a_batch_do_not_depend_on_the_batches_before_it(make):
    layer = make()
    layer.build(SHAPE)
    batches = [normal((n, *SHAPE[1:]), seed=n) for n in (4, 2, 4, 7, 1)]
    expected = [trained(copy.deepcopy(layer), x) for x in batches]
    for x, result in zip(batches, expected):
        assert_all_equal(trained(layer, x), result)


def test_a_batch_of_none_gives_empty_output_and_zero_gradients(make):
    layer = make()
    layer.build(SHAPE)
    y, dx, *gradients = trained(layer, np.empty((0, *SHAPE[1:])))
    assert y.shape == (0, *layer.output_shape[1:])
    assert dx.shape == (0, *SHAPE[1:])
    assert not any(gradient.any() for gradient in gradients)


def test_the_output_has_the_shape_that_was_announced(make):
    layer = make()
    layer.build((None, *SHAPE[1:]))
    assert layer.output_shape == (None, *layer(normal(SHAPE)).shape[1:])
    assert layer.compute_output_shape(SHAPE) == layer(normal(SHAPE)).shape


def test_a_layer_made_from_its_config_has_the_same_config_and_computes_the_same(make):
    layer = make(name="mine", dtype="float64", trainable=False, bias_initializer="ones")
    x = normal(SHAPE, dtype="float64")
    y = layer(x)
    twin = type(layer).from_config(layer.get_config())
    assert twin.get_config() == layer.get_config()
    twin(x)
    twin.set_weights(layer.get_weights())
    np.testing.assert_array_equal(twin(x), y)


def test_dy_must_have_the_shape_of_the_output(make):
    layer = make()
    y = layer(normal(SHAPE), training=True)
    with pytest.raises(ValueError, match=r"dy must have the shape of the output.*Received: shape=\(1,"):
        layer.backward(y[:1])


def test_another_number_of_channels_is_refused_and_changes_nothing(make):
    layer = make()
    y = layer(normal(SHAPE), training=True)
    before = pickle.dumps(layer)
    axis = layer.channel_axis
    shape = list(SHAPE)
    shape[axis] += 1
    with pytest.raises(ValueError, match=rf"axis {axis} of the input must have size {SHAPE[axis]}"):
        layer(np.ones(shape), training=True)
    assert pickle.dumps(layer) == before
    assert layer(normal(SHAPE)).shape == y.shape


@pytest.mark.parametrize("x", ["text", [["a"]], [1j], [[1], [2, 3]]])
def test_what_is_not_an_array_of_real_numbers_is_refused(make, x):
    with pytest.raises((TypeError, ValueError), match=r"x must be an array of (real )?numbers"):
        make()(x)


def test_the_bias_is_added_to_every_output_and_can_be_left_out(make):
    x = normal(SHAPE)
    layer, bare = make(activation=None, bias_initializer="ones"), make(activation=None, use_bias=False)
    y = layer(x)
    bare.build(x.shape)
    bare.set_weights(layer.get_weights()[:1])
    np.testing.assert_allclose(y, bare(x) + 1, rtol=1e-5, atol=1e-5)
    assert list(layer.params) == ["kernel", "bias"]
    assert list(bare.params) == ["kernel"]
