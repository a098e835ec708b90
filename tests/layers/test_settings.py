"""The arguments of layers as attributes: checked when they are set, and fixed where weights were made for them."""

import contextlib
import copy
import pickle

import numpy as np
import pytest

import cnnlite
from cnnlite import fusion, layers
from tests.helpers.fused import normal, unfused
from tests.kernels.drawn import compiled_kernels_needed

IMAGES = (9, 8, 4)
# For each layer: an input, what can't change once it is built, what may, and what makes no sense at any time.
CASES = {
    "Conv2D": (
        lambda: layers.Conv2D(8, 3, activation="relu"), IMAGES,
        {"filters": 1, "kernel_size": 5, "groups": 2, "use_bias": False, "data_format": "channels_first"},
        {"strides": (2, (2, 2)), "padding": ("SAME", "same"), "dilation_rate": ([1, 2], (1, 2))},
        {"strides": (0, "a", (1, 2, 3), -1, None), "padding": ("full", 3), "dilation_rate": ((-1, -1), 0, 2.5),
         "filters": (0, 8.5, "8"), "kernel_size": ((0, 1), -1), "groups": (0, None), "use_bias": (3, None),
         "data_format": ("NHWC", 3)},
    ),
    "DepthwiseConv2D": (
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), IMAGES,
        {"kernel_size": (3, 2), "depth_multiplier": 3, "use_bias": False, "data_format": "channels_first"},
        {"strides": (2, (2, 2)), "padding": ("same", "same"), "dilation_rate": (2, (2, 2))},
        {"depth_multiplier": (0, True), "dilation_rate": (-1, (2**31, 1))},
    ),
    "Dense": (
        lambda: layers.Dense(5), (6,), {"units": 4, "use_bias": False}, {},
        {"units": (0, "5"), "use_bias": ("no",)},
    ),
    "BatchNorm": (
        lambda: layers.BatchNorm(), IMAGES, {"axis": 1, "center": False, "scale": False},
        {"momentum": (1, 1.0), "epsilon": (0.5, 0.5)},
        {"axis": (0.5, "a"), "momentum": ("a", 1.5, -0.1, np.nan), "epsilon": (0, None), "center": (1,)},
    ),
    "MaxPool": (
        lambda: layers.MaxPool(), IMAGES, {},
        {"pool_size": (3, (3, 3)), "strides": (1, (1, 1)), "padding": ("Same", "same"),
         "data_format": ("channels_first", "channels_first")},
        {"pool_size": (0, (2, 2, 2)), "strides": (-1, "a", (0, 1)), "padding": ("foo", None), "data_format": (1,)},
    ),
    "GlobalAveragePool": (
        lambda: layers.GlobalAveragePool(), IMAGES, {}, {"keepdims": (True, True)}, {"keepdims": (1, "yes")},
    ),
    "ZeroPadding2D": (
        lambda: layers.ZeroPadding2D(1), IMAGES, {}, {"padding": (2, ((2, 2), (2, 2)))},
        {"padding": (-1, "same", (1, 2, 3))},
    ),
    "Reshape": (
        lambda: layers.Reshape((-1, 2)), IMAGES, {}, {"target_shape": ([4, -1], (4, -1))},
        {"target_shape": ((-1, -1), (0, 2), 5, "ab")},
    ),
    "Dropout": (
        lambda: layers.Dropout(0.5), IMAGES, {}, {"rate": (0, 0.0), "noise_shape": ([None, 1, 1, 4], (None, 1, 1, 4))},
        {"rate": (1.5, -0.1, "a"), "noise_shape": ("ab", (0, 1), 3)},
    ),
    "SpatialDropout2D": (
        lambda: layers.SpatialDropout2D(0.5), IMAGES, {}, {"data_format": ("channels_first", "channels_first")},
        {"data_format": ("last",)},
    ),
    "Flatten": (
        lambda: layers.Flatten(), IMAGES, {}, {"data_format": (None, "channels_last")}, {"data_format": (3,)},
    ),
    "ReLU": (
        lambda: layers.ReLU(), IMAGES, {}, {"max_value": (3, 3.0), "negative_slope": (1, 1.0), "threshold": (1, 1.0)},
        {"max_value": (-1, "a"), "negative_slope": (-0.5, None), "threshold": (np.inf,)},
    ),
    "LeakyReLU": (lambda: layers.LeakyReLU(), IMAGES, {}, {"negative_slope": (0, 0.0)}, {"negative_slope": (-1,)}),
    "ELU": (lambda: layers.ELU(), IMAGES, {}, {"alpha": (2, 2.0)}, {"alpha": ("a", np.nan)}),
    "GELU": (lambda: layers.GELU(), IMAGES, {}, {"approximate": (True, True)}, {"approximate": (1,)}),
    "Softmax": (lambda: layers.Softmax(), IMAGES, {}, {"axis": ([1, 2], (1, 2))}, {"axis": ("a", 4, -5, (1, -3))}),
    "Rescaling": (
        lambda: layers.Rescaling(2.0), IMAGES, {}, {"scale": (3, np.array(3.0)), "offset": (1, np.array(1.0))},
        {"scale": (np.ones(3), "a", np.inf), "offset": (np.ones(5), None)},
    ),
}
FIXED = [(case, name) for case, (_, _, fixed, _, _) in CASES.items() for name in fixed]
FREE = [(case, name) for case, (*_, free, _) in CASES.items() for name in free]
SENSELESS = [(case, name, value) for case, (*_, values) in CASES.items() for name, some in values.items()
             for value in some]


def built(case):
    make, shape, *_ = CASES[case]
    layer = make()
    layer(normal(2, *shape))
    return layer, normal(2, *shape)


@pytest.mark.parametrize(("case", "name"), FIXED)
def test_what_the_weights_were_made_for_can_not_change_once_they_are_there(case, name):
    layer, x = built(case)
    y, before, value = layer(x), copy.deepcopy(vars(layer)[name]), CASES[case][2][name]
    with pytest.raises(ValueError, match=rf"{layer.name}: {name} can't change once the layer is built.*Make a new"):
        setattr(layer, name, value)
    assert vars(layer)[name] == before
    setattr(layer, name, before)  # the same is no change
    np.testing.assert_array_equal(layer(x), y)
    unbuilt = CASES[case][0]()
    setattr(unbuilt, name, value)
    assert unbuilt.get_config() != layer.get_config()
    assert unbuilt(x).shape == unbuilt.compute_output_shape(x.shape)


@pytest.mark.parametrize(("case", "name"), FREE)
def test_another_value_is_converted_as_the_argument_is_and_holds(case, name):
    layer, x = built(case)
    value, kept = CASES[case][3][name]
    setattr(layer, name, value)
    assert type(getattr(layer, name)) is type(kept)
    np.testing.assert_array_equal(getattr(layer, name), kept)
    twin = type(layer).from_config(layer.get_config())
    twin(x)
    if layer.weights:
        twin.set_weights(layer.get_weights())
    np.testing.assert_array_equal(layer(x), twin(x))


@pytest.mark.parametrize(("case", "name", "value"), SENSELESS)
def test_a_senseless_value_is_refused_as_the_argument_is_and_changes_nothing(case, name, value):
    layer, x = built(case)
    y, before = layer(x), pickle.dumps(layer)
    with pytest.raises((ValueError, TypeError), match=rf"({type(layer).__name__}|{layer.name}): {name} .*Received: "):
        setattr(layer, name, value)
    assert pickle.dumps(layer) == before
    np.testing.assert_array_equal(layer(x), y)


def test_arguments_that_exclude_each_other_are_refused_whichever_is_set_last():
    layer = layers.Conv2D(4, 3, groups=2)
    with pytest.raises(ValueError, match=r"Conv2D: filters must be divisible by groups. Received: filters=5, groups=2"):
        layer.filters = 5
    layer.strides = 2
    with pytest.raises(ValueError, match=r"strides above 1 can't be combined with a dilation_rate above 1"):
        layer.dilation_rate = 2
    assert (layer.filters, layer.dilation_rate) == (4, (1, 1))
    layer.data_format = "channels_first"
    assert layer(normal(1, 4, 9, 8)).shape == (1, 4, 4, 3)


def test_the_dtype_is_that_of_the_weights_and_of_the_layers_inside():
    layer = layers.Dense(3, activation="tanh")
    layer.dtype = np.float64
    assert layer.activation.dtype == np.float64
    assert layer(np.ones((1, 2))).dtype == np.float64
    with pytest.raises(ValueError, match=r"dense: dtype can't change once the layer is built, as its weights are"):
        layer.dtype = "float32"
    with pytest.raises(ValueError, match=r"dtype must be one of 'float32', 'float64'. Received: dtype='float16'"):
        layers.ReLU().dtype = np.float16
    model = cnnlite.Sequential([layers.Dense(3, input_shape=(2,))])
    with pytest.raises(ValueError, match=r"a model takes its dtype from its layers. Received: dtype='float64'"):
        model.dtype = "float64"


def test_a_refused_filters_leaves_the_block_of_a_model_whole():
    # From a report: heap corruption, as the block took the number of filters from the attribute.
    model = cnnlite.Sequential([
        layers.Input((20, 20, 64)), layers.Conv2D(8, 3, activation="relu"), layers.MaxPool(),
        layers.GlobalAveragePool(),
    ])
    x = normal(2, 20, 20, 64)
    y = model.predict(x, verbose=0)
    for name, value in {"filters": 1, "dilation_rate": (-1, -1), "groups": 8}.items():
        with pytest.raises(ValueError, match=name):
            setattr(model.layers[0], name, value)
    np.testing.assert_array_equal(model.predict(x, verbose=0), y)


def mixed(below, above):
    """Return a model of layers that were built for other channels, put together behind the back of `add`."""
    model = cnnlite.Sequential([layers.Input((9, 8, 4)), *below])
    other = cnnlite.Sequential([layers.Input((9, 8, 4)), *above])
    model.inner_layers = [*model.inner_layers[:1], *other.inner_layers[1:]]
    return model


@pytest.mark.parametrize("training", [False, True])
def test_layers_that_do_not_fit_each_other_are_refused_in_a_block_too(training):
    model = mixed([layers.Conv2D(4, 3), layers.ReLU()], [layers.Conv2D(64, 3), layers.BatchNorm(), layers.MaxPool()])
    x = normal(6, 9, 8, 4)
    for run in (lambda: model.forward(x, training=training), lambda: unfused(model.forward, x, training)):
        with pytest.raises(ValueError, match=r"must (have|keep) .*Received: "):
            run()


@compiled_kernels_needed
@pytest.mark.parametrize("training", [False, True])
def test_a_weight_that_was_given_another_shape_is_refused(training):
    x = normal(6, 9, 8, 4)
    for name, shape in {"kernel": (9, 4, 8, 1), "bias": (2, 4)}.items():
        model = cnnlite.Sequential([layers.Input((9, 8, 4)), layers.Conv2D(8, 3, activation="relu"), layers.MaxPool()])
        model.forward(x, training=training)
        model.layers[0].params[name].shape = shape
        for mode in (contextlib.nullcontext, fusion.disabled):
            with mode(), pytest.raises(ValueError, match=r"must (have|keep) .*Received: "):
                model.forward(x, training=training)


@compiled_kernels_needed
def test_the_channels_that_an_attribute_announces_are_not_trusted():
    model = cnnlite.Sequential([layers.Input((None, None, 4)), layers.Conv2D(8, 3), layers.ReLU()])
    model.forward(normal(2, 9, 8, 4))
    model.layers[0].input_shape = (None, None, None, 64)
    model.input_shape = (None, None, None, 64)
    with pytest.raises(ValueError, match=r"x must have C channels, the kernel C / groups"):
        model.forward(normal(2, 9, 8, 64))


ACTIVATIONS = {
    "None": (None, lambda z: z), "a name": ("tanh", np.tanh), "a function": (cnnlite.activations.tanh, np.tanh),
    "a layer": (layers.Tanh(), np.tanh), "an Activation": (layers.Activation("tanh"), np.tanh),
}


@pytest.mark.parametrize("case", ACTIVATIONS)
@pytest.mark.parametrize("make", [
    lambda: layers.Dense(3, "relu"), lambda: layers.Conv2D(3, 1, activation="relu"),
    lambda: layers.DepthwiseConv2D(1, activation="relu"), lambda: layers.Activation("relu"),
])
def test_an_activation_is_set_as_it_is_given(make, case):
    layer, x = make(), normal(1, 2, 2, 3)
    layer(x)
    given, function = ACTIVATIONS[case]
    twin = copy.deepcopy(layer)
    twin.activation = "linear"
    layer.activation = given
    np.testing.assert_allclose(layer(x), function(twin(x)), rtol=1e-5, atol=1e-6)
    assert layer.inner_layers == (layer.activation,)
    assert layer.activation is not given
    assert cnnlite.check_gradients(layer, x, max_elements=3).ok
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()
    with pytest.raises(ValueError, match="Unknown activation: 'tahn'"):
        layer.activation = "tahn"
    assert cnnlite.activations.serialize(layer.activation) in ("linear", "tanh")


def test_an_activation_set_in_a_trained_model_trains_on():
    model = cnnlite.Sequential([cnnlite.Input((4,)), layers.Dense(6, "relu"), layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    x, y = normal(8, 4), np.arange(8) % 3
    model.fit(x, y, verbose=0)
    model.layers[0].activation = cnnlite.activations.tanh
    model.layers[1].activation = None
    assert model.output_activation == "linear"
    model.layers[1].activation = "softmax"
    model.fit(x, y, verbose=0)
    assert cnnlite.check_gradients(model, x, y).ok


def test_a_regularizer_set_after_building_counts_from_then_on():
    model = cnnlite.Sequential([cnnlite.Input((4,)), layers.Dense(3, kernel_regularizer="l1"), layers.BatchNorm()])
    dense, norm = model.layers
    expected = 0.5 * np.square(dense.kernel).sum() + 0.01 * np.square(norm.gamma).sum()
    dense.kernel_regularizer = cnnlite.regularizers.L2(0.5)
    norm.gamma_regularizer = "l2"
    np.testing.assert_allclose(model.regularization_loss(), expected, rtol=1e-5)
    dense.kernel_regularizer = norm.gamma_regularizer = None
    assert model.regularization_loss() == 0
    with pytest.raises(ValueError, match="Unknown regularizer: 'l3'"):
        dense.bias_regularizer = "l3"


def test_an_initializer_that_is_set_is_one_by_name_too():
    layer = layers.Conv2D(2, 3)
    layer.kernel_initializer = "ones"
    layer.build((None, 5, 5, 1))
    assert (layer.kernel == 1).all()
    with pytest.raises(ValueError, match="Unknown initializer: 'twos'"):
        layer.bias_initializer = "twos"


def test_a_seed_that_is_set_begins_the_masks_anew():
    layer, x = layers.Dropout(0.5, seed=1), np.ones((4, 9), np.float32)
    first = layer(x, training=True)
    layer.seed = 2
    other = layer(x, training=True)
    layer.seed = 1
    np.testing.assert_array_equal(layer(x, training=True), first)
    assert not np.array_equal(first, other)
    with pytest.raises(ValueError, match="seed"):
        layer.seed = -1
    assert layer.seed == 1
