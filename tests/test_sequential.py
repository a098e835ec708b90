import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import cnnlite
from cnnlite import check_gradients, layers
from cnnlite.layers import Layer

RNG = np.random.default_rng


@pytest.fixture(autouse=True)
def same_weights_in_every_run():
    cnnlite.utils.set_random_seed(0)


def convnet(**arguments):
    return cnnlite.Sequential([
        cnnlite.Input(shape=(8, 7, 2)),
        layers.Conv2D(4, 3, activation="relu", name="conv"),
        layers.BatchNorm(name="norm"),
        layers.MaxPool(),
        layers.Flatten(),
        layers.Dense(5, activation="softmax", name="top"),
    ], **arguments)


def normal(*shape, seed=0):
    return RNG(seed).normal(size=shape).astype(np.float32)


class Counting(Layer):
    """Hands everything on, and counts its backward passes."""

    passes = 0

    def forward(self, x, training=False):
        return x

    def backward(self, dy):
        self.passes += 1
        return dy


# The stack.


def test_layers_run_in_order_and_come_back_in_order():
    model = convnet()
    x = normal(3, 8, 7, 2)
    y = x
    for layer in model.layers:
        y = layer.forward(y, training=True)
    dy = normal(*y.shape, seed=1)
    dx = dy
    for layer in reversed(model.layers):
        dx = layer.backward(dx)
    np.testing.assert_array_equal(model.forward(x, training=True), y)
    np.testing.assert_array_equal(model.backward(dy), dx)
    assert dx.shape == x.shape


def test_gradients_are_those_of_finite_differences():
    model = cnnlite.Sequential([
        layers.Conv2D(3, 3, padding="same", activation="tanh"),
        layers.BatchNorm(),
        cnnlite.Sequential([layers.Flatten(), layers.Dense(4, activation="sigmoid")]),
        layers.Dense(3, activation="softmax"),
    ])
    report = check_gradients(model, RNG(0).normal(size=(3, 5, 4, 2)), max_elements=12)
    assert report.ok, report


def test_shapes_are_known_before_any_data():
    model = convnet()
    assert model.built
    assert model.input_shape == (None, 8, 7, 2)
    assert model.output_shape == (None, 5)
    assert [layer.output_shape for layer in model.layers] == [
        (None, 6, 5, 4), (None, 6, 5, 4), (None, 3, 2, 4), (None, 24), (None, 5)
    ]
    assert model.compute_output_shape((9, 8, 7, 2)) == (9, 5)


def test_the_shape_of_the_input_comes_from_an_input_a_first_layer_data_or_build():
    tops = {
        "Input": cnnlite.Sequential([cnnlite.Input(shape=(3,)), layers.Dense(2)]),
        "input_shape": cnnlite.Sequential([layers.Dense(2, input_shape=(3,))]),
        "data": cnnlite.Sequential([layers.Dense(2)]),
        "build": cnnlite.Sequential([layers.Dense(2)]),
    }
    assert [model.built for model in tops.values()] == [True, True, False, False]
    tops["data"](np.ones((7, 3)))
    tops["build"].build((None, 3))
    for model in tops.values():
        assert model.built
        assert (model.input_shape, model.output_shape) == ((None, 3), (None, 2))
        assert model.count_params() == 8


@pytest.mark.parametrize("first", ["fit", "predict", "evaluate", "forward"])
def test_a_model_that_is_not_built_is_built_by_data(first):
    model = cnnlite.Sequential([layers.Flatten(), layers.Dense(1)])
    model.compile("sgd", "mse")
    x, y = normal(4, 2, 3), normal(4, 1)
    if first in ("fit", "evaluate"):
        getattr(model, first)(x, y, verbose=0)
    elif first == "predict":
        model.predict(x, verbose=0)
    else:
        model.forward(x)
    assert model.input_shape == (None, 2, 3)
    assert [array.shape for array in model.weights] == [(6, 1), (1,)]


def test_layers_added_to_a_built_model_are_built_at_once():
    model = cnnlite.Sequential([cnnlite.Input(shape=(3,)), layers.Dense(2)])
    top = layers.Dense(4)
    model.add(top)
    assert top.built
    assert model.output_shape == (None, 4)


def test_pop_takes_the_top_layer_off():
    model = convnet()
    top = model.layers[-1]
    assert model.pop() is top
    assert model.output_shape == (None, 24)
    assert model(normal(2, 8, 7, 2)).shape == (2, 24)
    for _ in range(4):
        model.pop()
    assert not model.built
    with pytest.raises(ValueError, match="pop needs a layer to take"):
        model.pop()


def test_layers_is_a_list_of_its_own():
    model = convnet()
    model.layers.clear()
    assert len(model.layers) == 5


def test_layers_are_found_by_name_and_by_index():
    model = convnet()
    assert model.get_layer("norm") is model.layers[1]
    assert model.get_layer(index=-1) is model.get_layer(name="top")
    with pytest.raises(ValueError, match=r"no layer is called 'nrom'. The layers are: conv, norm, max_pool, flatten,"):
        model.get_layer("nrom")
    with pytest.raises(ValueError, match=r"there are 5 layers. Received: index=5"):
        model.get_layer(index=5)
    with pytest.raises(ValueError, match="takes a name or an index"):
        model.get_layer()
    with pytest.raises(ValueError, match="takes a name or an index"):
        model.get_layer("norm", 1)


def test_names_that_were_not_given_are_numbered():
    model = cnnlite.Sequential([layers.Dense(2), layers.Dense(2), layers.ReLU(), layers.Dense(2)])
    assert [layer.name for layer in model.layers] == ["dense", "dense_1", "re_lu", "dense_2"]


def test_a_name_given_twice_is_refused_and_the_stack_stays():
    model = cnnlite.Sequential([layers.Dense(2, name="a")])
    with pytest.raises(ValueError, match=r"the names of layers must differ. Received: a second layer called 'a'"):
        model.add(layers.Dense(2, name="a"))
    assert len(model.layers) == 1


@pytest.mark.parametrize(("layer", "error", "message"), [
    ("dense", TypeError, "add takes a layer. Received: 'dense', a str"),
    (layers.Dense, TypeError, "add takes a layer"),
    (cnnlite.Input(shape=(3,)), ValueError, "an Input must come first and once"),
    (layers.Conv2D(2, 3), ValueError, "must have 4 axes"),
])
def test_what_cannot_be_added_leaves_the_model_as_it_was(layer, error, message):
    model = cnnlite.Sequential([cnnlite.Input(shape=(3,)), layers.Dense(2)])
    with pytest.raises(error, match=message):
        model.add(layer)
    assert len(model.layers) == 1
    assert model.output_shape == (None, 2)


def test_a_layer_can_be_in_a_stack_only_once():
    layer = layers.ReLU()
    with pytest.raises(ValueError, match="a layer can be in a stack only once"):
        cnnlite.Sequential([layer, layer])


def test_a_layer_of_the_stack_cannot_come_again_inside_a_model():
    shared = layers.Dense(3)
    inner = cnnlite.Sequential([shared], name="inner")
    with pytest.raises(ValueError, match=r"only once. Received: 'dense' a second time"):
        cnnlite.Sequential([shared, inner])
    with pytest.raises(ValueError, match=r"only once. Received: 'inner' a second time"):
        inner.add(inner)
    assert inner.layers == [shared]


def test_a_single_layer_is_not_a_list():
    with pytest.raises(TypeError, match=r"layers must be a list.*Write \[layer\]"):
        cnnlite.Sequential(layers.Dense(3))


def test_a_layer_that_does_not_call_super_is_told_so():
    class Bare(Layer):
        def __init__(self):
            pass

    with pytest.raises(TypeError, match=r"must call super\(\).__init__\(\) first. Received: a Bare"):
        cnnlite.Sequential([Bare()])


def test_a_window_that_is_too_large_for_the_layer_below_is_refused_when_added():
    model = cnnlite.Sequential([cnnlite.Input(shape=(6, 6, 1)), layers.Conv2D(2, 3)])
    with pytest.raises(ValueError, match="the window must fit into the image"):
        model.add(layers.Conv2D(2, 5))
    assert model.output_shape == (None, 4, 4, 2)


def test_a_shape_that_fits_the_bottom_layers_only_builds_none():
    model = cnnlite.Sequential([layers.Conv2D(2, 3), layers.MaxPool(9)])
    with pytest.raises(ValueError, match="must fit into the image"):
        model(normal(2, 6, 6, 3))
    assert not any(layer.built for layer in model.layers)
    assert model(normal(2, 11, 11, 1)).shape == (2, 1, 1, 2)


def test_sizes_of_an_input_are_positive():
    model = cnnlite.Sequential([layers.Dense(2)])
    with pytest.raises(ValueError, match="input_shape must be at least 1"):
        model.build((None, -3))
    with pytest.raises(TypeError, match="input_shape must be a tuple"):
        model.build(3)


def test_an_empty_model_says_what_it_lacks():
    with pytest.raises(ValueError, match=r"a model needs layers before it can be built. Use add\(layer\)"):
        cnnlite.Sequential().build((None, 3))
    with pytest.raises(ValueError, match="the shape of the input must be known"):
        cnnlite.Sequential([layers.Dense(2)]).build()


@pytest.mark.parametrize(("shape", "hint"), [
    ((3, 8, 7, 1), ""),
    ((3, 9, 7, 2), ""),
    ((8, 7, 2), r" Add the axis of samples: x\[np.newaxis\]."),
    ((), ""),
])
def test_wrong_shapes_are_refused(shape, hint):
    message = r"the input must have the shape \(None, 8, 7, 2\). Received: shape=.*" + hint + "$"
    with pytest.raises(ValueError, match=message):
        convnet()(np.ones(shape))


def test_a_missing_axis_of_channels_is_pointed_out():
    model = cnnlite.Sequential([layers.Flatten(input_shape=(28, 28, 1))])
    with pytest.raises(ValueError, match=r"\(5, 28, 28\). Add the axis of channels: x\[..., np.newaxis\]."):
        model(np.ones((5, 28, 28)))


def test_sizes_that_are_not_given_may_differ():
    model = cnnlite.Sequential([
        cnnlite.Input(shape=(None, None, 2)), layers.Conv2D(3, 3), layers.GlobalAveragePool(), layers.Dense(2)
    ])
    assert model(normal(2, 5, 6, 2)).shape == model(normal(2, 9, 4, 2)).shape == (2, 2)


# Weights.


def test_weights_come_layer_by_layer_in_the_order_of_keras():
    model = convnet()
    shapes = [(3, 3, 2, 4), (4,), (4,), (4,), (4,), (4,), (24, 5), (5,)]
    assert [array.shape for array in model.get_weights()] == shapes
    norm = model.get_layer("norm")
    for array, mine in zip(model.weights[2:6], (*norm.params.values(), *norm.state.values())):
        assert array is mine
    assert list(model.params) == ["conv/kernel", "conv/bias", "norm/gamma", "norm/beta", "top/kernel", "top/bias"]
    assert list(model.state) == ["norm/moving_mean", "norm/moving_variance"]
    assert model.count_params() == sum(int(np.prod(shape)) for shape in shapes)


def test_get_weights_gives_copies_that_set_weights_takes():
    one, two = convnet(), convnet()
    x = normal(3, 8, 7, 2)
    weights = [array + 0.5 for array in one.get_weights()]
    two.set_weights(weights)
    one.set_weights(two.get_weights())
    np.testing.assert_array_equal(one(x), two(x))
    weights[0][:] = 0
    assert two.weights[0].any()


@pytest.mark.parametrize("wrong", [
    lambda weights: weights[:-1],
    lambda weights: [*weights, np.ones(1)],
    lambda weights: [*weights[:-1], np.ones(6)],
    lambda weights: [],
])
def test_set_weights_sets_all_or_none(wrong):
    model = convnet()
    before = model.get_weights()
    with pytest.raises(ValueError, match="set_weights must get arrays of the shapes"):
        model.set_weights(wrong([array + 1 for array in before]))
    for mine, array in zip(model.weights, before):
        np.testing.assert_array_equal(mine, array)


def test_weights_need_a_built_model():
    model = cnnlite.Sequential([layers.Dense(2)])
    with pytest.raises(ValueError, match=r"set_weights needs weights to set. Call build\(input_shape\) first"):
        model.set_weights([])
    with pytest.raises(ValueError, match="count_params needs weights to count"):
        model.count_params()


def test_trainable_goes_down_to_every_layer_inside():
    inner = cnnlite.Sequential([layers.Dense(2)])
    model = cnnlite.Sequential([layers.Dense(3), inner])
    model.trainable = False
    assert not any(layer.trainable for layer in (model, model.layers[0], inner, inner.layers[0]))
    inner.trainable = True
    assert inner.layers[0].trainable
    assert not model.layers[0].trainable
    assert not cnnlite.Sequential([layers.Dense(3)], trainable=False).layers[0].trainable


def test_penalties_and_their_gradients_are_those_of_trainable_layers():
    model = cnnlite.Sequential([
        cnnlite.Input(shape=(3,)),
        layers.Dense(4, kernel_regularizer=cnnlite.regularizers.L2(0.1)),
        cnnlite.Sequential([layers.Dense(2, kernel_regularizer=cnnlite.regularizers.L1(0.2), bias_regularizer="l2")]),
    ])
    first, second = model.layers[0], model.layers[1].layers[0]
    second.params["bias"] = [1, -2]
    k1, k2 = first.params["kernel"], second.params["kernel"]
    expected = 0.1 * (k1**2).sum() + 0.2 * np.abs(k2).sum() + 0.01 * 5
    assert model.regularization_loss() == pytest.approx(expected, rel=1e-6)
    for gradient in model.grads.values():
        gradient[...] = 1
    model.add_regularization_gradients()
    np.testing.assert_allclose(first.grads["kernel"], 1 + 0.2 * k1, rtol=1e-6)
    np.testing.assert_allclose(second.grads["kernel"], 1 + 0.2 * np.sign(k2), rtol=1e-6)
    np.testing.assert_allclose(second.grads["bias"], [1.02, 0.96], rtol=1e-6)
    assert (first.grads["bias"] == 1).all()
    first.trainable = False
    assert model.regularization_loss() == pytest.approx(expected - 0.1 * (k1**2).sum(), rel=1e-5)
    before = first.grads["kernel"].copy()
    model.add_regularization_gradients()
    np.testing.assert_array_equal(first.grads["kernel"], before)


# The passes that training uses.


def test_backward_weights_gives_the_gradients_that_backward_gives():
    model = convnet()
    y = model.forward(normal(3, 8, 7, 2), training=True)
    dy = normal(*y.shape, seed=1)
    model.backward(dy)
    expected = {name: gradient.copy() for name, gradient in model.grads.items()}
    for gradient in model.grads.values():
        gradient[...] = np.nan
    model.backward_weights(dy)
    for name, gradient in model.grads.items():
        np.testing.assert_array_equal(gradient, expected[name])


def test_backward_weights_computes_no_gradient_of_the_input(monkeypatch):
    model = convnet()
    bottom = model.layers[0]
    monkeypatch.setattr(bottom, "backward_preactivation", lambda dz: pytest.fail("nobody needs dx of the first layer"))
    y = model.forward(normal(3, 8, 7, 2), training=True)
    bottom.grads["kernel"][...] = np.nan
    model.backward_weights(normal(*y.shape, seed=1))
    assert np.isfinite(bottom.grads["kernel"]).all()


def nested_top():
    return cnnlite.Sequential([
        layers.Dense(6, activation="tanh", input_shape=(3,)),
        cnnlite.Sequential([layers.Dense(5), layers.Softmax()], name="head"),
    ])


def activation_top():
    return cnnlite.Sequential([layers.Dense(5, input_shape=(3,)), layers.Activation("sigmoid")])


@pytest.mark.parametrize(("make", "shape", "activation"), [
    (convnet, (3, 8, 7, 2), "softmax"), (nested_top, (4, 3), "softmax"), (activation_top, (4, 3), "sigmoid"),
])
def test_logits_and_their_activation_are_the_forward_pass(make, shape, activation):
    model, x = make(), normal(*shape)
    assert model.output_activation == activation
    for training in (True, False):
        y = model.forward(x, training)
        z = model.forward_logits(x, training)
        assert not np.array_equal(y, z)
        np.testing.assert_array_equal(model.activate_logits(z), y)


@pytest.mark.parametrize(("make", "shape"), [(convnet, (3, 8, 7, 2)), (nested_top, (4, 3)), (activation_top, (4, 3))])
def test_the_gradient_by_the_logits_gives_the_same_weights_gradients(make, shape):
    model, x = make(), normal(*shape)
    y = model.forward(x, training=True)
    dy = normal(*y.shape, seed=1)
    model.backward(dy)
    expected = {name: gradient.copy() for name, gradient in model.grads.items()}
    dz = model.activation.backward(dy)
    model.forward_logits(x, training=True)
    for gradient in model.grads.values():
        gradient[...] = np.nan
    model.backward_weights(dz, from_logits=True)
    for name, gradient in model.grads.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-6, atol=1e-7)


def test_a_model_that_ends_without_an_activation_says_linear_or_none():
    assert cnnlite.Sequential([layers.Dense(2)]).output_activation == "linear"
    assert cnnlite.Sequential([layers.Dense(2), layers.Dropout(0.5)]).output_activation is None
    assert cnnlite.Sequential().output_activation is None


def test_frozen_layers_below_are_not_gone_back_through():
    model = cnnlite.Sequential([
        layers.Dense(3, input_shape=(3,)), Counting(name="low"), layers.Dense(3), Counting(name="high"), layers.Dense(2)
    ])
    y = model.forward(normal(4, 3), training=True)
    dy = normal(*y.shape, seed=1)
    model.backward(dy)
    assert (model.get_layer("low").passes, model.get_layer("high").passes) == (1, 1)
    expected = {name: gradient.copy() for name, gradient in model.grads.items()}
    model.layers[0].trainable = False
    for gradient in model.grads.values():
        gradient[...] = np.nan
    model.backward_weights(dy)
    assert (model.get_layer("low").passes, model.get_layer("high").passes) == (1, 2)
    for name, gradient in model.grads.items():
        np.testing.assert_array_equal(gradient, np.nan if name.startswith("dense/") else expected[name])
    model.trainable = False
    model.backward_weights(dy)
    assert model.get_layer("high").passes == 2


def test_frozen_layers_below_keep_their_weights_in_training_and_those_above_learn():
    model = convnet()
    model.layers[0].trainable = model.layers[1].trainable = False
    model.compile(cnnlite.optimizers.Adam(0.1), "sparse_categorical_crossentropy")
    before = model.get_weights()
    model.fit(normal(8, 8, 7, 2), RNG(1).integers(5, size=8), epochs=2, verbose=0)
    for i, (mine, array) in enumerate(zip(model.weights, before)):
        assert np.array_equal(mine, array) == (i < 6)


def test_inference_writes_nothing():
    model = convnet()
    model.forward(normal(3, 8, 7, 2), training=True)
    model.parameters()
    before = pickle.dumps(model)
    model.forward(normal(5, 8, 7, 2, seed=1))
    model.forward_logits(normal(2, 8, 7, 2, seed=1))
    model.predict(normal(40, 8, 7, 2, seed=2), verbose=0)
    assert pickle.dumps(model) == before


def test_eight_threads_predict_with_one_model_at_the_same_time():
    model = convnet()
    inputs = [normal(10 + i, 8, 7, 2, seed=i) for i in range(8)]
    expected = [model.predict(x, verbose=0) for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for mine, wanted in zip(pool.map(lambda x: model.predict(x, batch_size=4, verbose=0), inputs), expected):
                np.testing.assert_array_equal(mine, wanted)


def test_backward_before_forward_says_what_to_do():
    with pytest.raises(ValueError, match=r"Call forward\(x, training=True\) first"):
        convnet().backward(np.ones((3, 5)))


# Models in models.


def test_a_model_in_a_model_computes_what_its_layers_compute():
    inner = cnnlite.Sequential([layers.Dense(4, activation="tanh"), layers.Dense(2)], name="inner")
    nested = cnnlite.Sequential([cnnlite.Input(shape=(3,)), layers.Dense(3), inner])
    flat = cnnlite.Sequential([layers.Dense(3, input_shape=(3,)), layers.Dense(4, activation="tanh"), layers.Dense(2)])
    flat.set_weights(nested.get_weights())
    x = normal(5, 3)
    y = nested.forward(x, training=True)
    dy = normal(*y.shape, seed=1)
    np.testing.assert_array_equal(flat.forward(x, training=True), y)
    np.testing.assert_array_equal(flat.backward(dy), nested.backward(dy))
    assert [path for path, _ in nested.named_layers()] == ["dense", "inner/dense", "inner/dense_1"]
    for mine, theirs in zip(nested.grads.values(), flat.grads.values()):
        np.testing.assert_array_equal(mine, theirs)


def test_a_model_can_be_the_first_layer_and_gives_its_input_shape():
    inner = cnnlite.Sequential([layers.Dense(4, input_shape=(3,))])
    model = cnnlite.Sequential([inner, layers.Dense(2)])
    assert model.built
    assert model.output_shape == (None, 2)


def test_double_precision_goes_through_a_model():
    model = cnnlite.Sequential([layers.Dense(4, input_shape=(3,), dtype="float64"), layers.Dense(2, dtype="float64")])
    assert model(RNG(0).normal(size=(2, 3))).dtype == np.float64
    assert model.parameters().vector.dtype == np.float64


def test_a_clone_has_the_architecture_and_weights_of_its_own():
    model = cnnlite.Sequential([layers.Conv2D(2, 3, input_shape=(6, 6, 1)), layers.Flatten(), layers.Dense(3)])
    clone = cnnlite.models.clone_model(model)
    assert clone.get_config() == model.get_config()
    assert not np.shares_memory(clone.layers[0].kernel, model.layers[0].kernel)
    assert (clone.layers[0].kernel != model.layers[0].kernel).any()


def test_a_clone_of_a_model_with_layers_of_a_user_has_them_too():
    class Twice(layers.Layer):
        def forward(self, x, training=False):
            return 2 * x

    clone = cnnlite.models.clone_model(cnnlite.Sequential([Twice(input_shape=(3,))]))
    assert isinstance(clone.layers[0], Twice)
