"""Shared by the tests of plans: random stacks, and everything that a model computes, fused, unfused or by layers."""

import copy
import gc

import numpy as np
from hypothesis import strategies as st

import cnnlite
from cnnlite import fusion, layers
from cnnlite.engine.program import Memory

BATCHES = [1, 2, 5, 16, 17, 33]
# With at least 16 channels and filters, kernels of 2 to 5 taps may use Winograd's method.
CHANNELS = [1, 2, 3, 16, 17, 20]
FILTERS = [1, 2, 8, 15, 16, 17, 33, 40]


@st.composite
def convolutions(draw, channels):
    """Draw the arguments of a Conv2D on `channels` channels."""
    groups = draw(st.sampled_from([1, 1, 1, 2])) if channels % 2 == 0 else 1
    size = draw(st.integers(1, 5) | st.tuples(st.integers(1, 5), st.integers(1, 3)))
    strides, dilation = draw(st.sampled_from([(1, 1), (1, 1), (1, 1), (2, 1), ((1, 2), 1), (1, 2)]))
    return dict(
        filters=groups * draw(st.sampled_from(FILTERS)), kernel_size=size, strides=strides, dilation_rate=dilation,
        padding=draw(st.sampled_from(["valid", "same"])), groups=groups, use_bias=draw(st.booleans()),
        activation=draw(st.sampled_from([None, None, "relu", "relu", "tanh", "leaky_relu"])),
    )


norms = st.fixed_dictionaries(dict(
    axis=st.sampled_from([-1, -1, 3, 1]), center=st.booleans(), scale=st.booleans(),
    trainable=st.sampled_from([True, True, False]),
))
pools = st.fixed_dictionaries(dict(
    pool_size=st.sampled_from([1, 2, 2, 3, (2, 3)]), strides=st.sampled_from([None, None, 1, 2, 3, (3, 1)]),
    padding=st.sampled_from(["valid", "same"]),
))
followers = st.one_of(
    st.just(("ReLU", {})),
    st.just(("Activation", dict(activation="relu"))),
    st.just(("LeakyReLU", {})),
    st.just(("ReLU", dict(max_value=1.0))),
    norms.map(lambda arguments: ("BatchNorm", arguments)),
    pools.map(lambda arguments: ("MaxPool", arguments)),
    pools.map(lambda arguments: ("AveragePool", arguments)),
)
usual = st.sampled_from(["B", "R", "BR", "RB", "RBR", "P", "RP", "BP", "BRP", "RBP", "RBRP", "A", "BRA", "RBA", "PBR"])


@st.composite
def followings(draw):
    """Draw the layers after a convolution: in one of the orders that can be fused into one kernel, or any order."""
    if draw(st.booleans()):
        return draw(st.lists(followers, max_size=4))
    kinds = {"B": norms, "P": pools, "A": pools, "R": st.just({})}
    names = {"B": "BatchNorm", "P": "MaxPool", "A": "AveragePool", "R": "ReLU"}
    return [(names[letter], draw(kinds[letter])) for letter in draw(usual)]


@st.composite
def stacks(draw):
    """Draw the shape of an image, and one or two convolutions, each with the layers that follow it."""
    shape = (draw(st.integers(9, 14)), draw(st.integers(9, 14)), draw(st.sampled_from(CHANNELS)))
    channels, specs = shape[2], []
    for _ in range(draw(st.integers(1, 2))):
        convolution = draw(convolutions(channels))
        specs += [("Conv2D", convolution), *draw(followings())]
        channels = convolution["filters"]
    return shape, specs


def make(shape, specs, dtype="float32", seed=0):
    """Return a model whose weights and moving statistics are all nonzero.

    The model ends before the first layer whose window doesn't fit into the image.
    """
    model = cnnlite.Sequential([cnnlite.Input(shape=shape)])
    model.dtype = np.dtype(dtype)
    for name, arguments in specs:
        layer = getattr(layers, name)(**arguments, dtype=dtype)
        try:
            layer.compute_output_shape(model.output_shape or (None, *shape))
        except ValueError:
            break
        model.add(layer)
    randomise(model, seed)
    return model


def randomise(model, seed=0):
    rng = np.random.default_rng(seed)
    for _, layer in model.named_layers():
        for name, array in (*layer.params.items(), *layer.state.items()):
            array[...] = rng.normal(size=array.shape) / np.sqrt(max(1, array.size // array.shape[-1]))
            if name == "moving_variance":
                array[...] = np.abs(array) + 0.5


def arrays_of(model):
    """Return copies of all weights, statistics and gradients, by path."""
    return {f"{path}/{kind}/{name}": array.copy() for path, layer in model.named_layers()
            for kind in ("params", "state", "grads") for name, array in getattr(layer, kind).items()}


def everything(model, x, dy):
    """Return by name all that a copy of a model computes for x: inference, training forward and backward."""
    model = copy.deepcopy(model)
    result = {"inference": model.forward(x), "y": model.forward(x, training=True)}
    result["dx"] = model.backward(dy.reshape(result["y"].shape))
    result.update(arrays_of(model))
    for _, layer in model.named_layers():
        for array in layer.grads.values():
            array[...] = 0
    model.backward_weights(dy.reshape(result["y"].shape))
    result.update({f"weights only, {name}": array for name, array in arrays_of(model).items() if "grads" in name})
    return result


def unfused(function, *arguments):
    with fusion.disabled():
        return function(*arguments)


def layer_by_layer(model, x, training=False):
    """Return the output with every layer called separately, including those of nested models."""
    for layer in model.layers:
        x = layer_by_layer(layer, x, training) if type(layer) is cnnlite.Sequential else layer.forward(x, training)
    return x


def by_layers(model, x, dy):
    """Return the same as `everything`, with every layer called separately."""
    model = copy.deepcopy(model)
    result = {"inference": layer_by_layer(model, x), "y": layer_by_layer(model, x, training=True)}
    dx = dy.reshape(result["y"].shape)
    for layer in reversed(list(leaves(model))):
        dx = layer.backward(dx)
    return {**result, "dx": dx, **arrays_of(model)}


def leaves(model):
    """Yield the layers of a model, with nested models replaced by their layers."""
    for layer in model.layers:
        yield from leaves(layer) if type(layer) is cnnlite.Sequential else [layer]


def plans_of(model):
    """Return a model's plans, by keys that begin with "inference", "training" or "step"."""
    return {(_kind(key), key): made for key, made in (model.memo._found or {}).items() if hasattr(made, "plan")}


def memory_in_use():
    """Return the bytes of workspace memory held by the plans of all models."""
    gc.collect()
    return sum(thing.bytes.nbytes for thing in gc.get_objects() if type(thing) is Memory)


def _kind(key):
    return key[0] if isinstance(key[0], str) else {"_Inference": "inference", "_Training": "training"}[
        key[0][0].__name__]


def assert_same_bits(mine, expected):
    assert mine.keys() == expected.keys()
    for name, array in expected.items():
        assert mine[name].shape == array.shape, name
        assert mine[name].dtype == array.dtype, name
        # NaN has many bit patterns, and the processor may produce any of them.
        np.testing.assert_array_equal(mine[name], array, err_msg=name)
        if not np.isnan(array).any():
            assert mine[name].tobytes() == array.tobytes(), name


def assert_fused_is_unfused(model, x, seed=1):
    shape = model.compute_output_shape(x.shape)
    dy = np.random.default_rng(seed).normal(size=shape).astype(model.dtype)
    fused = everything(model, x, dy)
    assert_same_bits(fused, unfused(everything, model, x, dy))
    alone = by_layers(model, x, dy)
    assert_same_bits({name: fused[name] for name in alone}, alone)
    return fused


WITH_ALL = [
    ("Conv2D", dict(filters=33, kernel_size=3, activation="relu")),
    ("BatchNorm", {}),
    ("ReLU", {}),
    ("MaxPool", {}),
    ("Conv2D", dict(filters=17, kernel_size=2, padding="same")),
    ("BatchNorm", {}),
    ("ReLU", {}),
    ("MaxPool", dict(pool_size=3, strides=1)),
]


def normal(*shape, seed=0, dtype="float32"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def model_of(*stack, shape=(13, 12, 17), seed=0):
    model = cnnlite.Sequential([cnnlite.Input(shape=shape), *stack])
    randomise(model, seed)
    return model
