"""The stack: what can be added to it, its shapes, and nested models."""

import pickle

import numpy as np
import pytest

import cnnlite
from cnnlite import check_gradients, layers
from cnnlite.layers import Layer
from tests.helpers.models import convnet, normal

pytestmark = pytest.mark.usefixtures("same_weights_in_every_run")

RNG = np.random.default_rng


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
    (cnnlite.Input(shape=(3,)), ValueError, "an Input must come first, and only once"),
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
    ((8, 7, 2), r" Add a batch axis: x\[np.newaxis\]."),
    ((), ""),
])
def test_wrong_shapes_are_refused(shape, hint):
    message = r"the input must have the shape \(None, 8, 7, 2\). Received: shape=.*" + hint + "$"
    with pytest.raises(ValueError, match=message):
        convnet()(np.ones(shape))


def test_a_missing_axis_of_channels_is_pointed_out():
    model = cnnlite.Sequential([layers.Flatten(input_shape=(28, 28, 1))])
    with pytest.raises(ValueError, match=r"\(5, 28, 28\). Add a channel axis: x\[..., np.newaxis\]."):
        model(np.ones((5, 28, 28)))


def test_sizes_that_are_not_given_may_differ():
    model = cnnlite.Sequential([
        cnnlite.Input(shape=(None, None, 2)), layers.Conv2D(3, 3), layers.GlobalAveragePool(), layers.Dense(2)
    ])
    assert model(normal(2, 5, 6, 2)).shape == model(normal(2, 9, 4, 2)).shape == (2, 2)


# Nested models.


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


# A model with an Input and no layers.


def test_a_model_of_an_input_alone_inside_another_hands_on_what_it_gets(tmp_path):
    model = cnnlite.Sequential([
        cnnlite.Sequential([cnnlite.Input(shape=(5,))]), layers.Dense(3), cnnlite.Sequential([cnnlite.Input((3,))]),
    ])
    assert (model.built, model.input_shape, model.output_shape) == (True, (None, 5), (None, 3))
    x = RNG(0).normal(size=(4, 5)).astype("float32")
    np.testing.assert_array_equal(model(x), model.layers[1](x))
    model.compile("sgd", "mse")
    before = model.get_weights()
    model.fit(x, np.ones((4, 3)), verbose=0)
    assert (model.get_weights()[0] != before[0]).all()
    dy = model.forward(x, training=True)
    dx = model.backward(dy)
    model.layers[1].forward(x, training=True)
    np.testing.assert_array_equal(dx, model.layers[1].backward(dy))
    model.summary(print_fn=lambda text: None)
    model.save(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(cnnlite.load_model(tmp_path / "model.safetensors").predict(x), model.predict(x))


def test_a_model_of_an_input_alone_takes_samples_of_its_shape_and_more_layers():
    inner = cnnlite.Sequential([cnnlite.Input(shape=(5,))])
    outer = cnnlite.Sequential([inner])
    np.testing.assert_array_equal(outer.predict(np.ones((2, 5))), np.ones((2, 5)))
    with pytest.raises(ValueError, match="shape"):
        outer.predict(np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"samples of shape \(4,\)"):
        cnnlite.Sequential([cnnlite.Input((3,)), cnnlite.Sequential([cnnlite.Input((4,))])])
    inner.add(layers.Dense(2))
    assert inner.output_shape == outer.output_shape == (None, 2)


def test_a_model_without_layers_and_input_is_refused_inside_another_one():
    with pytest.raises(ValueError, match="needs layers before it can be built"):
        cnnlite.Sequential([cnnlite.Input((3,)), cnnlite.Sequential()])


def test_older_pickles_find_the_class():
    content = pickle.dumps(cnnlite.Sequential([layers.Input((3,)), layers.Dense(2)]), protocol=2)
    older = content.replace(b"ccnnlite.model.sequential\n", b"ccnnlite.sequential\n")
    assert older != content
    assert type(pickle.loads(older)) is cnnlite.Sequential
