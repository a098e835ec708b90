"""Draws networks from all layers, and lives for them: plain data, which an error shows and anybody can run again."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

import cnnlite
from cnnlite import layers
from tests.stress.differential.twists import twisted


class Part(NamedTuple):
    """A layer: its class, its arguments, and how a subclass of it computes otherwise ("" for not at all)."""

    kind: str
    arguments: dict[str, Any]
    twist: str = ""


class Net(NamedTuple):
    """A network: the shape of a sample, its layers, what its loss is, and whence its weights come."""

    shape: tuple[int, ...]
    parts: list[Part]
    loss: str
    dtype: str
    seed: int


ACTIVATIONS = [
    None, "relu", "tanh", "leaky_relu", "elu", "gelu", "silu", "sigmoid", "softplus", "softmax", "log_softmax", "relu6",
    "linear", "swish",
]
TWISTS = st.sampled_from([*[""] * 8, "forward", "function", "_weight_gradients"])

sizes = st.integers(1, 4) | st.tuples(st.integers(1, 3), st.integers(1, 4))
paddings = st.sampled_from(["valid", "same"])
some_activation = st.sampled_from(ACTIVATIONS)
strides_and_dilation = st.sampled_from([(1, 1), (1, 1), (1, 1), (2, 1), ((1, 2), 1), (1, 2), (1, (2, 1))])


@st.composite
def convolutions(draw: Any) -> Part:
    strides, dilation = draw(strides_and_dilation)
    groups = draw(st.sampled_from([1, 1, 1, 2]))
    arguments = dict(kernel_size=draw(sizes), strides=strides, padding=draw(paddings), dilation_rate=dilation,
                     activation=draw(some_activation), use_bias=draw(st.booleans()))
    if draw(st.integers(0, 3)) == 0:
        return Part("DepthwiseConv2D", dict(arguments, depth_multiplier=draw(st.sampled_from([1, 1, 2]))), draw(TWISTS))
    filters = groups * draw(st.sampled_from([1, 2, 3, 8, 16, 17]))
    regularizer = draw(st.sampled_from([None, None, None, "l2"]))
    return Part("Conv2D", dict(arguments, filters=filters, groups=groups, kernel_regularizer=regularizer), draw(TWISTS))


@st.composite
def others(draw: Any) -> Part:
    """Draw a layer that is not a convolution."""
    kind = draw(st.sampled_from(sorted(OTHERS)))
    return Part(kind, draw(st.fixed_dictionaries(OTHERS[kind])), draw(TWISTS))


pool_arguments = dict(pool_size=sizes, strides=st.sampled_from([None, None, 1, 2, (2, 1)]), padding=paddings)
OTHERS: dict[str, dict[str, Any]] = {
    "Activation": dict(activation=some_activation.filter(bool)),
    "AveragePool": pool_arguments,
    "BatchNorm": dict(center=st.booleans(), scale=st.booleans(), momentum=st.sampled_from([0.5, 0.99]),
                      trainable=st.sampled_from([True, True, True, False])),
    "Dense": dict(units=st.sampled_from([1, 3, 16, 20]), activation=some_activation, use_bias=st.booleans(),
                  kernel_regularizer=st.sampled_from([None, None, "l2"])),
    "Dropout": dict(rate=st.sampled_from([0.0, 0.25, 0.5])),
    "ELU": dict(alpha=st.sampled_from([1.0, 0.5])),
    "Flatten": {},
    "GELU": dict(approximate=st.booleans()),
    "GlobalAveragePool": dict(keepdims=st.booleans()),
    "GlobalMaxPool": dict(keepdims=st.booleans()),
    "LeakyReLU": dict(negative_slope=st.sampled_from([0.3, 0.0])),
    "Linear": {},
    "LogSoftmax": {},
    "MaxPool": pool_arguments,
    "ReLU": dict(max_value=st.sampled_from([None, None, 1.0]), negative_slope=st.sampled_from([0.0, 0.0, 0.25]),
                 threshold=st.sampled_from([0.0, 0.0, 0.5])),
    "Rescaling": dict(scale=st.sampled_from([0.5, 2.0]), offset=st.sampled_from([0.0, -1.0])),
    "Reshape": dict(target_shape=st.sampled_from([(-1,), (2, -1), (-1, 1), (-1, 2, 2)])),
    "SiLU": {},
    "Sigmoid": {},
    "Softmax": {},
    "Softplus": {},
    "SpatialDropout2D": dict(rate=st.sampled_from([0.25, 0.5])),
    "Tanh": {},
    "ZeroPadding2D": dict(padding=st.sampled_from([1, (0, 2), ((0, 1), (2, 0))])),
}
# What is most often met, and what the library runs as one: so that these don't drown among the rest.
usual = st.sampled_from(["BatchNorm", "ReLU", "MaxPool", "AveragePool", "Dense", "Flatten"]).flatmap(
    lambda kind: st.builds(Part, st.just(kind), st.fixed_dictionaries(OTHERS[kind]), TWISTS))
plain = st.one_of(convolutions(), usual, others())


@st.composite
def residuals(draw: Any, inside: Any = plain) -> Part:
    """Draw a Residual: of layers that keep the shape, of one of two convolutions that change it alike, or of any."""
    keeping = [part for part in draw(st.lists(keepers | inside, max_size=2)) if _keeps_shape(part)]
    kind = draw(st.sampled_from(["identity", "identity", "projection", "any"]))
    body, shortcut = [draw(keepers), *keeping], None
    if kind == "projection":
        common = dict(filters=draw(st.sampled_from([1, 3, 8, 16])), strides=draw(st.sampled_from([1, 2, (1, 2)])))
        first = Part("Conv2D", dict(common, kernel_size=draw(sizes), padding="same"), draw(TWISTS))
        end = draw(st.lists(keepers, max_size=1))
        body, shortcut = [first, *keeping], [Part("Conv2D", dict(common, kernel_size=1), draw(TWISTS)), *end]
    elif kind == "any":
        body = draw(st.lists(inside, min_size=1, max_size=2))
        shortcut = draw(st.none() | st.lists(inside, min_size=1, max_size=2))
    return Part("Residual", {"body": body, "shortcut": shortcut}, draw(TWISTS))


def _keeps_shape(part: Part) -> bool:
    return part.kind in (*KEEPERS, "Residual")


KEEPERS = ("Activation", "BatchNorm", "Dropout", "ELU", "GELU", "LeakyReLU", "Linear", "ReLU", "Rescaling", "Softmax")
keepers = st.one_of(
    st.sampled_from(KEEPERS).flatmap(
        lambda kind: st.builds(Part, st.just(kind), st.fixed_dictionaries(OTHERS[kind]), TWISTS)),
    st.builds(Part, st.just("DepthwiseConv2D"), st.fixed_dictionaries(dict(
        kernel_size=sizes, padding=st.just("same"), activation=some_activation, use_bias=st.booleans())), TWISTS),
    st.builds(Part, st.sampled_from(["MaxPool", "AveragePool"]), st.fixed_dictionaries(dict(
        pool_size=sizes, strides=st.just(1), padding=st.just("same"))), TWISTS),
    st.builds(Part, st.just("Conv2D"), st.fixed_dictionaries(dict(
        filters=st.sampled_from([1, 2, 3, 16]), kernel_size=sizes, padding=st.just("same"))), TWISTS),
)
blocks = residuals() | residuals(plain | residuals())
nested = st.lists(plain | blocks, min_size=1, max_size=3).map(lambda parts: Part("Sequential", {"layers": parts}))
HEADS = {
    "none": ([], "mse"),
    "classes": ([Part("Flatten", {}), Part("Dense", dict(units=3, activation="softmax"))], "classes"),
    "classes, twisted": ([Part("Flatten", {}), Part("Dense", dict(units=3)), Part("Softmax", {}, "function")],
                         "classes"),
    "classes, apart": ([Part("GlobalAveragePool", {}), Part("Dense", dict(units=4)), Part("Softmax", {})], "classes"),
    "classes, by name": ([Part("Flatten", {}), Part("Dense", dict(units=3)),
                          Part("Activation", dict(activation="softmax"))], "classes"),
    "classes, nested": ([Part("Flatten", {}), Part("Sequential", {"layers": [
        Part("Dense", dict(units=3, activation="softmax"))]})], "classes"),
    "classes, doubled": ([Part("Flatten", {}), Part("Dense", dict(units=3, activation="softmax"), "_weight_gradients")],
                       "classes"),
    "logits": ([Part("Flatten", {}), Part("Dense", dict(units=3))], "logits"),
    "pixels": ([Part("Dense", dict(units=2, activation="softmax"))], "classes"),
    "yes or no": ([Part("Flatten", {}), Part("Dense", dict(units=2, activation="sigmoid"))], "yes or no"),
    "yes or no, twisted": ([Part("Flatten", {}), Part("Dense", dict(units=2), "forward"),
                            Part("Sigmoid", {}, "forward")], "yes or no"),
}


@st.composite
def nets(draw: Any) -> Net:
    """Draw a network. Layers that don't fit where they stand are left out when it is made."""
    shape: tuple[int, ...] = (draw(st.integers(4, 12)), draw(st.integers(4, 12)), draw(st.sampled_from([1, 2, 3, 16])))
    if draw(st.integers(0, 5)) == 0:
        shape = (draw(st.sampled_from([3, 8, 16])),)
    parts = draw(st.lists(plain | nested | blocks, min_size=1, max_size=6))
    head, loss = HEADS[draw(st.sampled_from(sorted(HEADS)))]
    return Net(shape, [*parts, *head], loss, draw(st.sampled_from(["float32", "float32", "float64"])),
               draw(st.integers(0, 99)))


def make(net: Net) -> cnnlite.Sequential:
    """Return the network, compiled, with weights that are nowhere 0."""
    cnnlite.utils.set_random_seed(net.seed)
    model = cnnlite.Sequential([cnnlite.Input(net.shape)])
    model.dtype = np.dtype(net.dtype)
    for part in net.parts:
        try:
            model.add(_layer(part, net.dtype))
        except ValueError:
            continue  # it can't take what is below it
    if not model.layers:
        model.add(layers.Linear(dtype=net.dtype))
    generator = np.random.default_rng(net.seed)
    for _, layer in model.named_layers():
        for name, array in (*layer.params.items(), *layer.state.items()):
            array[...] = generator.normal(size=array.shape) / np.sqrt(max(1, array.size // array.shape[-1]))
            if name == "moving_variance":
                array[...] = np.abs(array) + 0.5
    model.compile(cnnlite.optimizers.SGD(RATE), LOSSES[net.loss]())
    return model


RATE = 0.03
LOSSES = {
    "mse": cnnlite.losses.MeanSquaredError,
    "classes": cnnlite.losses.SparseCategoricalCrossentropy,
    "logits": lambda: cnnlite.losses.SparseCategoricalCrossentropy(from_logits=True),
    "yes or no": cnnlite.losses.BinaryCrossentropy,
}


def _layer(part: Part, dtype: str) -> Any:
    if part.kind == "Sequential":
        model = cnnlite.Sequential([])
        model.dtype = np.dtype(dtype)
        for inner in part.arguments["layers"]:
            model.add(_layer(inner, dtype))
        return model
    if part.kind == "Residual":
        branches = (None if parts is None else [_layer(inner, dtype) for inner in parts]
                    for parts in part.arguments.values())
        return twisted(layers.Residual, part.twist)(*branches)
    kind = getattr(layers, part.kind)
    return (twisted(kind, part.twist) if part.twist else kind)(**part.arguments, dtype=dtype)


# Lives.

NUMBERS = st.integers(0, 1000)  # which of the things that there are; taken modulo how many
EVENTS = st.one_of(
    st.tuples(st.just("call"), st.integers(1, 5), st.integers(1, 6)),  # so many images at a time, so often
    st.tuples(st.just("call"), st.just(1), st.integers(3, 6)),
    st.tuples(st.just("predict"), st.integers(1, 18)),
    st.tuples(st.just("train"), st.sampled_from([1, 2, 3, 5, 16, 17, 18, 33])),
    st.tuples(st.just("sizes"), st.lists(st.sampled_from([0, 1, 2, 3, 17, 33]), min_size=2, max_size=4)),
    st.tuples(st.just("by_hand"), st.sampled_from([0, 1, 2, 17]), st.sampled_from([0, 1, 2])),
    st.tuples(st.just("weighted"), st.sampled_from([1, 2, 17])),
    st.tuples(st.just("otherwise"), st.sampled_from(["eagerly", "apart"]), st.sampled_from([1, 3, 17])),
    st.tuples(st.just("inside"), st.sampled_from([1, 3, 17])),
    st.tuples(st.just("evaluate"), st.integers(1, 18)),
    st.tuples(st.just("edit"), NUMBERS, st.sampled_from(["in place", "a view", "set_weights", "assign", "update"])),
    st.tuples(st.just("change"), NUMBERS, NUMBERS),
    st.tuples(st.just("spoil"), NUMBERS, NUMBERS),
    st.tuples(st.just("patch"), NUMBERS, st.sampled_from(["forward", "function", "prepare", "_weight_gradients"]),
              st.sampled_from(["object", "class"])),
    st.tuples(st.just("unpatch")),
    st.tuples(st.just("copy")),
)
lives = st.lists(EVENTS, min_size=2, max_size=9)
