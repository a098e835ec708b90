"""Hypothesis strategies for nets of all layers in any order."""

from hypothesis import strategies as st

import cnnlite
from cnnlite import layers

SHAPE = (7, 6, 4)
SAME = {"padding": "same"}
FIRST = {"data_format": "channels_first"}

# (name, arguments); whether a layer fits depends on the layers below it.
PLAIN = [
    *(("Activation", {"activation": name}) for name in ("relu", "sigmoid", "tanh", "gelu", "softplus", "swish", "elu")),
    ("ReLU", {"max_value": 6.0, "negative_slope": 0.1, "threshold": 0.05}), ("LeakyReLU", {}), ("Softmax", {}),
    ("Softmax", {"axis": 1}), ("LogSoftmax", {}), ("Linear", {}),
    ("BatchNorm", {}), ("BatchNorm", {"axis": 1, "scale": False}), ("BatchNorm", {"trainable": False}),
    ("Rescaling", {"scale": 0.5, "offset": 0.25}), ("Dropout", {"rate": 0.3, "seed": 1}),
]
IMAGES = [
    ("Conv2D", {"filters": 5, "kernel_size": 3, "activation": "relu"}),
    ("Conv2D", {"filters": 4, "kernel_size": (1, 2), "use_bias": False, **SAME}),
    ("Conv2D", {"filters": 4, "kernel_size": 3, "groups": 2, "strides": 2, **SAME}),
    ("Conv2D", {"filters": 17, "kernel_size": 3, "activation": "tanh", **SAME}),
    ("Conv2D", {"filters": 16, "kernel_size": 3, "dilation_rate": 2, **SAME}),
    ("Conv2D", {"filters": 6, "kernel_size": 1}), ("Conv2D", {"filters": 3, "kernel_size": 2, **FIRST}),
    ("DepthwiseConv2D", {"kernel_size": 3, **SAME}),
    ("DepthwiseConv2D", {"kernel_size": 2, "depth_multiplier": 2, "activation": "leaky_relu"}),
    ("DepthwiseConv2D", {"kernel_size": 2, **FIRST}),
    ("MaxPool", {}), ("MaxPool", {"pool_size": 3, "strides": 1, **SAME}), ("MaxPool", FIRST),
    ("AveragePool", {"pool_size": 2, "strides": 1}), ("AveragePool", {"pool_size": 3, **SAME}),
    ("ZeroPadding2D", {"padding": ((1, 0), (0, 2))}), ("SpatialDropout2D", {"rate": 0.3, "seed": 2}),
    ("GlobalAveragePool", {}), ("GlobalMaxPool", {}), ("GlobalAveragePool", {"keepdims": True}), ("Flatten", {}),
]
ROWS = [("Dense", {"units": 5, "activation": "relu"}), ("Dense", {"units": 4, "use_bias": False}),
        ("Reshape", {"target_shape": (-1, 2)}), ("Reshape", {"target_shape": (2, 2, -1)}), ("Flatten", {})]

_simple = st.sampled_from(PLAIN) | st.sampled_from(IMAGES) | st.sampled_from(ROWS)
_kept = st.sampled_from([spec for spec in PLAIN if "axis" not in spec[1]] + [
    ("DepthwiseConv2D", {"kernel_size": 3, **SAME}), ("MaxPool", {"pool_size": 2, "strides": 1, **SAME})])
_stacks = st.lists(_kept, min_size=1, max_size=3)
_any = st.one_of(
    _simple, _simple, _simple, st.tuples(st.just("Sequential"), st.lists(_simple, min_size=1, max_size=3)),
    st.tuples(st.just("Residual"), st.tuples(_stacks, st.none() | _stacks)),
)
nets = st.lists(_any, min_size=1, max_size=7)


def made(spec, dtype):
    """Return the layer that a spec describes."""
    name, arguments = spec
    if name == "Sequential":
        return cnnlite.Sequential([made(inner, dtype) for inner in arguments])
    if name == "Residual":
        body, shortcut = arguments
        return layers.Residual([made(inner, dtype) for inner in body],
                               shortcut and [made(inner, dtype) for inner in shortcut])
    return getattr(layers, name)(**arguments, dtype=dtype)


def net(specs, dtype="float32", shape=SHAPE, top=True):
    """Return a model of the layers that fit onto those below them, with a Dense on top."""
    model = cnnlite.Sequential([cnnlite.Input(shape), layers.Linear(dtype=dtype)])
    for spec in specs:
        try:
            model.add(made(spec, dtype))
        except ValueError:
            continue
    if top:
        model.add(layers.Flatten(dtype=dtype))
        model.add(layers.Dense(3, "softmax", dtype=dtype))
    return model
