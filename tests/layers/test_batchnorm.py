"""BatchNorm: its gradient, the moving averages, and what freezing means."""

import itertools

import numpy as np
import pytest

import cnnlite
from cnnlite.layers import BatchNorm
from tests.helpers.numeric import assert_gradients, numeric_gradient

RNG = np.random.default_rng(0)


def sample(*shape, dtype="float64", loc=2.0, scale=3.0):
    return np.random.default_rng(sum(shape)).normal(loc, scale, shape).astype(dtype)


@pytest.mark.parametrize(("shape", "axis"), [((6, 3), -1), ((4, 5, 3), 2), ((3, 2, 4, 3), -1), ((3, 3, 2, 4), 1)])
@pytest.mark.parametrize("options", [{}, {"center": False}, {"scale": False}, {"center": False, "scale": False}])
def test_backward_is_the_gradient_of_the_training_forward(shape, axis, options):
    layer = BatchNorm(axis=axis, dtype="float64", gamma_initializer=cnnlite.initializers.RandomNormal(1, 0.5, seed=1),
                      beta_initializer=cnnlite.initializers.RandomNormal(seed=2), **options)
    assert_gradients(layer, sample(*shape))
    assert sorted(layer.params) == [name for name in ("beta", "gamma")
                                    if options.get({"beta": "center", "gamma": "scale"}[name], True)]


def test_images_are_normalised_per_channel_and_not_per_activation():
    x = sample(5, 4, 3, 2)
    x[..., 1] *= 100
    y = BatchNorm(dtype="float64")(x, training=True)
    np.testing.assert_allclose(y.mean(axis=(0, 1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(y.std(axis=(0, 1, 2)), 1, atol=1e-3)
    # Per activation, each pixel would have mean 0 over the 5 images.
    assert np.abs(y.mean(axis=0)).max() > 0.1


def test_the_moving_averages_take_the_biased_variance_with_the_momentum():
    x = sample(8, 3)
    layer = BatchNorm(momentum=0.9, dtype="float64")
    for step in range(1, 4):
        layer(x, training=True)
        kept = 0.9**step
        np.testing.assert_allclose(layer.state["moving_mean"], (1 - kept) * x.mean(axis=0))
        np.testing.assert_allclose(layer.state["moving_variance"], kept + (1 - kept) * x.var(axis=0))


def test_momentum_0_makes_inference_equal_training():
    x = sample(8, 3)
    layer = BatchNorm(momentum=0.0, dtype="float64")
    y = layer(x, training=True)
    np.testing.assert_allclose(layer(x), y, rtol=1e-12)


def test_momentum_1_keeps_the_moving_averages():
    layer = BatchNorm(momentum=1)
    layer(sample(8, 3), training=True)
    assert (layer.state["moving_mean"] == 0).all()
    assert (layer.state["moving_variance"] == 1).all()


def test_inference_before_any_training_only_divides_by_the_root_of_1_plus_epsilon():
    x = sample(4, 3)
    np.testing.assert_allclose(BatchNorm(dtype="float64")(x), x / np.sqrt(1.001), rtol=1e-14)


def test_inference_writes_nothing_on_the_layer():
    layer = BatchNorm()
    layer.build((None, 3))
    before, weights = dict(vars(layer)), layer.get_weights()
    layer(sample(5, 3))
    assert all(value is before[name] for name, value in vars(layer).items())
    assert all((old == new).all() for old, new in zip(weights, layer.get_weights()))


def test_a_frozen_layer_runs_in_inference_mode_and_still_passes_the_gradient():
    x = sample(5, 2, 3, 4)
    gamma = cnnlite.initializers.RandomNormal(1, 0.5, seed=1)
    layer = BatchNorm(dtype="float64", momentum=0.5, gamma_initializer=gamma)
    layer(sample(9, 2, 3, 4, scale=7), training=True)
    layer.trainable = False
    state = [array.copy() for array in layer.state.values()]
    for gradient in layer.grads.values():
        gradient[...] = 99
    y = layer(x, training=True)
    np.testing.assert_array_equal(y, layer(x))
    assert all((old == new).all() for old, new in zip(state, layer.state.values()))
    dy = RNG.normal(size=y.shape)
    dx = layer.backward(dy)
    assert all((gradient == 99).all() for gradient in layer.grads.values())
    expected = numeric_gradient(lambda: layer.forward(x), x, dy)
    np.testing.assert_allclose(dx, expected, atol=1e-7)


def test_freezing_between_forward_and_backward_does_not_change_the_gradient():
    x, dy = sample(5, 3), RNG.normal(size=(5, 3))
    layer = BatchNorm(dtype="float64")
    layer(x, training=True)
    expected = layer.backward(dy)
    layer.trainable = False
    np.testing.assert_array_equal(layer.backward(dy), expected)


def test_the_first_axis_order_is_the_last_one_transposed():
    x, dy = sample(3, 4, 5, 2), RNG.normal(size=(3, 4, 5, 2))
    last, first = BatchNorm(dtype="float64"), BatchNorm(axis=1, dtype="float64")
    y = last(x, training=True)
    np.testing.assert_array_equal(first(x.transpose(0, 3, 1, 2), training=True), y.transpose(0, 3, 1, 2))
    dx = last.backward(dy)
    np.testing.assert_array_equal(first.backward(dy.transpose(0, 3, 1, 2)), dx.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(first.grads["gamma"], last.grads["gamma"])
    np.testing.assert_array_equal(first(x.transpose(0, 3, 1, 2)), last(x).transpose(0, 3, 1, 2))


@pytest.mark.parametrize("view", [lambda a: np.repeat(a, 2, axis=0)[::2], np.asfortranarray,
                                  lambda a: np.ascontiguousarray(a.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3),
                                  lambda a: np.ascontiguousarray(a[..., ::-1])[..., ::-1]])
def test_the_order_in_memory_does_not_matter(view):
    x, dy = sample(4, 3, 5, 2), RNG.normal(size=(4, 3, 5, 2))
    layer = BatchNorm(dtype="float64")
    y = layer(x, training=True)
    dx = layer.backward(dy)
    other = BatchNorm(dtype="float64")
    np.testing.assert_array_equal(other(view(x), training=True), y)
    np.testing.assert_array_equal(other.backward(view(dy)), dx)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_dtype_of_the_layer_is_that_of_the_results_and_no_input_changes(training, dtype):
    x = sample(6, 3, dtype=dtype)
    before = x.copy()
    layer = BatchNorm(dtype=dtype)
    y = layer(x, training=training)
    assert y.dtype == dtype
    assert not np.shares_memory(y, x)
    if training:
        dy = y.copy()
        dx = layer.backward(dy)
        assert dx.dtype == dtype
        assert (dy == y).all()
        assert not np.shares_memory(dx, dy)
    assert (x == before).all()
    assert all(array.dtype == dtype for array in layer.weights)


def test_what_was_handed_out_is_not_overwritten():
    layer = BatchNorm()
    y = layer(sample(6, 3), training=True)
    kept = y.copy()
    layer(sample(6, 3, scale=9), training=True)
    assert (y == kept).all()


def test_one_sample_gives_beta_and_no_gradient_and_no_division_by_zero():
    layer = BatchNorm(dtype="float64", beta_initializer=cnnlite.initializers.Constant(0.5))
    y = layer(np.array([[3.0, -4.0]]), training=True)
    assert (y == 0.5).all()
    assert (layer.backward(np.array([[1.0, 2.0]])) == 0).all()
    assert layer.grads["beta"].tolist() == [1, 2]
    assert (layer.state["moving_variance"] == 0.99).all()


def test_a_constant_channel_gives_beta():
    layer = BatchNorm()
    y = layer(np.full((7, 2), 1e4, "float32"), training=True)
    assert (y == 0).all()
    dx = layer.backward(RNG.normal(size=(7, 2)))
    np.testing.assert_allclose(dx.sum(axis=0), 0, atol=1e-4)


def test_a_batch_of_0_samples_changes_nothing():
    layer = BatchNorm()
    y = layer(np.empty((0, 4, 4, 3)), training=True)
    assert y.shape == (0, 4, 4, 3)
    layer.grads["gamma"][...] = 5
    assert layer.backward(y).shape == y.shape
    assert (layer.grads["gamma"] == 0).all()
    assert (layer.state["moving_variance"] == 1).all()
    assert layer(y).shape == y.shape


def test_a_large_mean_does_not_spoil_float32():
    x = sample(400, 3, dtype="float32", loc=1e4, scale=1)
    y = BatchNorm()(x, training=True)
    # The spacing of float32 at 10,000 is 0.001.
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(y.std(axis=0), 1, atol=1e-3)


def test_backward_twice_gives_the_same_and_before_forward_is_an_error():
    layer = BatchNorm()
    layer.build((None, 3))
    with pytest.raises(ValueError, match="training"):
        layer.backward(np.ones((2, 3)))
    layer(sample(5, 3), training=True)
    dy = RNG.normal(size=(5, 3))
    first, gamma = layer.backward(dy), layer.grads["gamma"].copy()
    np.testing.assert_array_equal(layer.backward(dy), first)
    np.testing.assert_array_equal(layer.grads["gamma"], gamma)


def test_weights_come_in_the_order_of_keras():
    layer = BatchNorm()
    layer.build((None, 3))
    assert [*layer.params, *layer.state] == ["gamma", "beta", "moving_mean", "moving_variance"]
    assert layer.count_params() == 12


def test_the_config_makes_the_same_layer_again():
    layer = BatchNorm(axis=1, momentum=0.8, epsilon=0.01, center=False, gamma_initializer="he_normal",
                      gamma_regularizer="l2", name="norm", dtype="float64", trainable=False)
    again = BatchNorm.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


def test_regularizers_reach_the_weights():
    layer = BatchNorm(gamma_regularizer="l2", beta_regularizer="l1")
    layer.build((None, 3))
    assert sorted(layer.regularizers) == ["beta", "gamma"]


@pytest.mark.parametrize(("arguments", "error", "text"), [
    ({"axis": 1.5}, TypeError, "axis must be an integer"),
    ({"momentum": 1.5}, ValueError, "momentum=1.5"),
    ({"momentum": -0.1}, ValueError, "momentum=-0.1"),
    ({"epsilon": 0}, ValueError, "epsilon=0"),
    ({"center": 1}, TypeError, "center=1"),
    ({"gamma_initializer": "twos"}, ValueError, "twos"),
])
def test_bad_arguments_are_named(arguments, error, text):
    with pytest.raises(error, match=text):
        BatchNorm(**arguments)


@pytest.mark.parametrize(("axis", "shape"), [(0, (2, 3)), (-2, (2, 3)), (2, (2, 3)), (-3, (2, 3)),
                                             (-1, (5,)), (-1, ())])
def test_an_axis_that_is_not_one_of_a_sample_is_an_error(axis, shape):
    with pytest.raises(ValueError, match="axis must be an axis of the input other than the batch"):
        BatchNorm(axis=axis).build(shape)


def test_another_number_of_channels_is_an_error():
    layer = BatchNorm()
    layer.build((None, 4, 4, 3))
    with pytest.raises(ValueError, match="must have size 3"):
        layer(np.ones((2, 4, 4, 5)))
    with pytest.raises(ValueError, match="axes"):
        layer(np.ones((2, 3)))


@pytest.mark.parametrize("axis", [-1, 1])
def test_a_model_gives_each_sample_the_bits_of_the_layers_alone_in_a_batch_of_any_size(axis):
    x = sample(9, 6, 8, 4, dtype="float32")
    layers = [BatchNorm(axis), cnnlite.layers.MaxPool(2), BatchNorm(axis, scale=False), cnnlite.layers.AveragePool(2)]
    model = cnnlite.Sequential(layers)
    for _ in range(2):  # before and after the averages have moved
        together = model(x)
        expected = x
        for layer in layers:
            expected = layer(expected)
        assert together.tobytes() == expected.tobytes()
        for i in range(3):
            assert model(x[i : i + 1]).tobytes() == together[i : i + 1].tobytes()
        layers[0](x, training=True)


def test_a_model_trains_to_the_bits_of_the_layers_alone():
    x = sample(9, 6, 8, 4, dtype="float32")
    nets = [[BatchNorm(), cnnlite.layers.MaxPool(2), BatchNorm(), cnnlite.layers.GlobalAveragePool()] for _ in range(2)]
    model, alone = cnnlite.Sequential(nets[0]), nets[1]
    y, expected = model(x, training=True), x
    for layer in alone:
        expected = layer(expected, training=True)
    assert y.tobytes() == expected.tobytes()
    dx, dy = model.backward(y), y
    for layer in reversed(alone):
        dy = layer.backward(dy)
    assert dx.tobytes() == dy.tobytes()
    for one, other in zip(*nets):
        for arrays in ("_grads", "_state"):
            for name, array in getattr(one, arrays).items():
                assert array.tobytes() == getattr(other, arrays)[name].tobytes(), name


def test_averages_that_have_moved_and_weights_that_were_set_are_seen_by_a_model():
    x = sample(9, 4, dtype="float32")
    layer = BatchNorm(momentum=0.5)
    model = cnnlite.Sequential([layer])
    seen = [model(x)]
    layer(x, training=True)
    seen.append(model(x))
    layer.beta = np.ones(4)
    seen.append(model(x))
    layer.moving_variance[...] = 9
    seen.append(model(x))
    for before, after in itertools.pairwise(seen):
        assert (before != after).any()
    np.testing.assert_allclose(seen[-1], (x - layer.moving_mean) / np.sqrt(9 + 1e-3) + 1, rtol=1e-5)


def test_averages_that_a_model_has_moved_are_seen_by_its_next_inference():
    x = sample(9, 4, dtype="float32")
    layer = BatchNorm(momentum=0.5)
    model = cnnlite.Sequential([layer])
    for _ in range(3):
        model(x, training=True)
        assert model(x).tobytes() == layer(x).tobytes()
