"""A state machine that does to models what users do, in any order, misuse included, and checks these invariants:

    The user's arrays are never written to, and arrays that were handed out are never written to later.
    An error is a ValueError, a TypeError or an OSError with a readable sentence, and leaves the model unchanged.
    Outputs have the announced shape, and the same bits whether layers are fused or run separately.
    A model that was saved and loaded computes and continues training with the same bits.
    Gradients agree with finite differences.
"""

import copy
import json
import pathlib
import shutil
import tempfile
from collections import Counter

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import cnnlite
from cnnlite import check_gradients, fusion, layers, losses, optimizers
from cnnlite.models import clone_model
from tests.helpers.models import holds_no_batch

N, SHAPE, CLASSES = 6, (7, 6, 2), 3
MOST_MODELS = 3
DOCUMENTED = (ValueError, TypeError, OSError)

done = Counter()  # numbers of steps and refusals, for the table of the stress tests


def _read_only(array):
    array.flags.writeable = False
    return array


def _data():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(N, *SHAPE)).astype(np.float32)
    return _read_only(x), _read_only(generator.integers(0, CLASSES, N))


X, Y = _data()
ROWS = _read_only(np.ascontiguousarray(X.reshape(N, -1)[:, :5]))

# Whether one of these fits onto the layers below it is for the model to decide.
LAYERS = {
    "conv": lambda: layers.Conv2D(3, 3, activation="relu"),
    "conv, plain": lambda: layers.Conv2D(2, (1, 2), padding="same", use_bias=False),
    "conv, strided": lambda: layers.Conv2D(4, 2, strides=2, kernel_regularizer="l2"),
    "depthwise": lambda: layers.DepthwiseConv2D(2),
    "max pool": lambda: layers.MaxPool(),
    "average pool": lambda: layers.AveragePool(2, padding="same"),
    "large pool": lambda: layers.MaxPool(5),
    "global pool": lambda: layers.GlobalAveragePool(),
    "norm": lambda: layers.BatchNorm(momentum=0.5),
    "relu": lambda: layers.ReLU(),
    "tanh": lambda: layers.Activation("tanh"),
    "softmax": lambda: layers.Softmax(),
    "dropout": lambda: layers.Dropout(0.25),
    "spatial dropout": lambda: layers.SpatialDropout2D(0.25),
    "padding": lambda: layers.ZeroPadding2D(1),
    "rescaling": lambda: layers.Rescaling(0.5),
    "flatten": lambda: layers.Flatten(),
    "reshape": lambda: layers.Reshape((-1, 2)),
    "dense": lambda: layers.Dense(5, activation="relu"),
    "named": lambda: layers.Dense(5, name="named"),
    "classes": lambda: layers.Dense(CLASSES, activation="softmax"),
    "block": lambda: cnnlite.Sequential([layers.Conv2D(2, 2), layers.BatchNorm(), layers.ReLU()]),
    "block with a head": lambda: cnnlite.Sequential([layers.Flatten(), layers.Dense(CLASSES, activation="softmax")]),
    "residual": lambda: layers.Residual([layers.Conv2D(3, 3, padding="same"), layers.BatchNorm(), layers.ReLU()]),
    "projection": lambda: layers.Residual(layers.Conv2D(2, 1, 2), shortcut=layers.AveragePool(2, padding="same")),
    "empty block": lambda: cnnlite.Sequential([]),
}
OPTIMIZERS = {
    "sgd": lambda: optimizers.SGD(0.01), "momentum": lambda: optimizers.SGD(0.01, momentum=0.9),
    "adam": lambda: optimizers.Adam(1e-3), "clipped": lambda: optimizers.RMSprop(1e-3, clipnorm=1.0),
}
LOSSES = {
    "sparse": lambda: losses.SparseCategoricalCrossentropy(), "mse": lambda: losses.MeanSquaredError(),
    "logits": lambda: losses.SparseCategoricalCrossentropy(from_logits=True), "none": lambda: None,
}


def snapshot(model):
    """Return everything that an error must leave unchanged, as comparable values."""
    optimizer = model.optimizer
    return {
        "layers": [(type(layer).__name__, layer.name, layer.trainable) for layer in model.walk()],
        "built": [(layer.built, layer.input_shape) for layer in model.walk()],
        "config": [json.dumps(each.get_config(), default=str) for each in model.walk() if not (
            isinstance(each, cnnlite.Sequential))],
        "input": (model.name, model.given_input_shape, model.input_shape),
        "weights": [array.tobytes() for array in model.get_weights()],
        "random": [layer.random.state for layer in model.walk() if hasattr(layer, "random")],
        "compiled": None if not model.compiled else json.dumps(model.get_compile_config(), default=str),
        "optimizer": None if optimizer is None else (
            optimizer.iterations, {name: slot.tobytes() for name, slot in optimizer.slots.items()}),
    }


def same_bits(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def computes(model, shape):
    """Return whether the layers of a model accept inputs of that shape, as Dense does for any rank."""
    try:
        model.compute_output_shape(shape)
    except ValueError:
        return False
    return True


class Models(RuleBasedStateMachine):
    """Up to three models, the arrays they handed out, and a folder of files."""

    def __init__(self):
        super().__init__()
        cnnlite.utils.set_random_seed(0)
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.models = []
        self.handed_out = []
        self.saved = 0

    def teardown(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    # Helpers.

    def attempt(self, action, *models, must_fail=False):
        """Return the action's result, or None if it is properly refused: with a sentence, leaving no trace."""
        models = models or tuple(self.models)
        before = [snapshot(model) for model in models]
        done["operations"] += 1
        try:
            result = action()
        except DOCUMENTED as error:
            self.check_refusal(error, models, before)
            return None
        assert not must_fail, "nonsense was not refused"
        return result

    @staticmethod
    def check_refusal(error, models, before):
        done["refused operations"] += 1
        assert len(str(error).split()) > 3, repr(error)
        for model, expected in zip(models, before):
            now = snapshot(model)
            for key, value in expected.items():
                assert now[key] == value, f"{key} changed by a refused action: {error}"

    def pick(self, i):
        return self.models[i % len(self.models)]

    def keep(self, array):
        self.handed_out = [*self.handed_out[-20:], (array, array.copy())]
        return array

    @staticmethod
    def x_for(model):
        return X if model.input_shape is None or len(model.input_shape) == 4 else ROWS

    @initialize(first=st.sampled_from(["images", "unbuilt", "rows"]))
    def begin(self, first):
        inputs = {"images": [cnnlite.Input(SHAPE)], "unbuilt": [], "rows": [cnnlite.Input((5,))]}
        self.models.append(cnnlite.Sequential(inputs[first]))
        if first == "images":  # so that something can be trained without a lucky draw
            for kind in ("conv", "norm", "relu", "max pool", "flatten", "classes"):
                self.models[0].add(LAYERS[kind]())
            self.models[0].compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])

    # Stacks.

    @rule(i=st.integers(0, 2), kind=st.sampled_from(sorted(LAYERS)))
    def add(self, i, kind):
        model = self.pick(i)
        assume(len(model.layers) < 9)
        self.attempt(lambda: model.add(LAYERS[kind]()), model)

    @rule(i=st.integers(0, 2))
    def pop(self, i):
        model = self.pick(i)
        top = model.layers[-1:]
        popped = self.attempt(lambda: model.pop(), model, must_fail=not top)
        assert not top or popped is top[0]

    @rule(i=st.integers(0, 2), what=st.sampled_from(["again", "itself", "text", "class", "input", "of another"]))
    def add_what_makes_no_sense(self, i, what):
        model = self.pick(i)
        inside = model.layers[0] if model.layers else model
        things = {
            "again": inside, "itself": model, "text": "dense", "class": layers.Dense, "of another": None,
            "input": cnnlite.Input((3,)) if model.layers else 3,
        }
        self.attempt(lambda: model.add(things[what]), model, must_fail=True)

    @rule(i=st.integers(0, 2),
          shape=st.sampled_from([(None, *SHAPE), (None, 5), (None,), (None, 0, 3), (2, 3, 3, 1), 7]))
    def build(self, i, shape):
        model = self.pick(i)
        self.attempt(lambda: model.build(shape), model)

    @rule(i=st.integers(0, 2))
    def clone(self, i):
        model = self.pick(i)
        assume(len(self.models) < MOST_MODELS)
        twin = self.attempt(lambda: clone_model(model), model)
        if twin is not None:
            assert twin.get_config() == model.get_config()
            self.models.append(twin)

    @precondition(lambda self: len(self.models) > 1)
    @rule(i=st.integers(0, 2))
    def forget(self, i):
        del self.models[i % len(self.models)]

    # Changes.

    @rule(i=st.integers(0, 2), j=st.integers(0, 8), trainable=st.booleans())
    def freeze(self, i, j, trainable):
        model = self.pick(i)
        chosen = [model, *model.layers][j % (len(model.layers) + 1)]
        chosen.trainable = trainable
        assert all(layer.trainable == trainable for layer in chosen.walk())

    @rule(i=st.integers(0, 2), optimizer=st.sampled_from([*sorted(OPTIMIZERS), "of another"]),
          loss=st.sampled_from(sorted(LOSSES)), accuracy=st.booleans())
    def compile(self, i, optimizer, loss, accuracy):
        model = self.pick(i)
        chosen = self.models[0].optimizer if optimizer == "of another" else OPTIMIZERS[optimizer]()
        metrics = ["accuracy"] if accuracy else None
        self.attempt(lambda: model.compile(chosen or "sgd", LOSSES[loss](), metrics=metrics), model)

    @rule(i=st.integers(0, 2), arguments=st.sampled_from([
        {"optimizer": "adm"}, {"loss": "entropy"}, {"metrics": ["loss"]}, {"optimizer": 3}, {"loss": abs},
        {"metrics": ["accuracy", "accuracy"]}, {"loss_weights": [1]},
    ]))
    def compile_with_what_there_is_not(self, i, arguments):
        model = self.pick(i)
        self.attempt(lambda: model.compile(**arguments), model, must_fail=True)

    @rule(i=st.integers(0, 2), j=st.integers(0, 30), change=st.sampled_from([
        ("rate", 0.75), ("momentum", 0.9), ("epsilon", 0.1), ("strides", (1, 1)), ("padding", "same"),
        ("pool_size", (1, 2)), ("scale", np.array(2.0)), ("name", "renamed"), ("threshold", 0.5),
    ]))
    def change_an_attribute(self, i, j, change):
        model = self.pick(i)
        name, value = change
        owners = [layer for layer in model.walk() if name in vars(layer) and not (
            name == "scale" and not isinstance(layer, layers.Rescaling))]
        if name == "name":
            owners = model.layers
        assume(owners)
        setattr(owners[j % len(owners)], name, value)

    @rule(i=st.integers(0, 2), j=st.integers(0, 30), activation=st.sampled_from([None, "relu", "tanh", layers.ELU()]))
    def change_an_activation(self, i, j, activation):
        owners = [layer for layer in self.pick(i).walk() if "activation" in vars(layer)]
        assume(owners)
        owners[j % len(owners)].activation = activation

    @rule(i=st.integers(0, 2), j=st.integers(0, 30), change=st.sampled_from([
        ("filters", 7), ("kernel_size", (4, 4)), ("groups", 0), ("units", 9), ("use_bias", None), ("axis", 1),
        ("dilation_rate", (-1, -1)), ("strides", 0), ("padding", "full"), ("pool_size", -1), ("momentum", "a"),
        ("dtype", "float64"), ("rate", 2), ("scale", np.nan), ("target_shape", (0,)), ("activation", "tahn"),
    ]))
    def change_an_attribute_to_what_makes_no_sense(self, i, j, change):
        model = self.pick(i)
        name, value = change
        makes_sense_before_building = name in ("filters", "kernel_size", "units", "axis", "dtype")
        owners = [layer for layer in model.walk()
                  if name in vars(layer) and (layer._params or not makes_sense_before_building)]
        assume(owners)
        self.attempt(lambda: setattr(owners[j % len(owners)], name, value), model, must_fail=True)

    @rule(i=st.integers(0, 2), misuse=st.sampled_from([None, "few", "shape", "text", "nan", "not a list"]))
    def set_weights(self, i, misuse):
        model = self.pick(i)
        weights = [array * np.float32(0.5) for array in model.get_weights()]
        given = {"few": weights[1:], "shape": [array[..., np.newaxis] for array in weights], "not a list": 5,
                 "text": ["a" for _ in weights], "nan": weights, None: weights}[misuse]
        must_fail = misuse == "not a list" or (misuse in ("few", "shape", "text") and bool(weights))
        self.attempt(lambda: model.set_weights(given), model, must_fail=must_fail)
        if misuse is None and model.built:
            kept = [array.copy() for array in weights]
            for array in weights:
                array[...] = np.nan  # they belong to the user, not to the model
            assert all(same_bits(mine, array) for mine, array in zip(model.get_weights(), kept))

    # Training.

    @rule(i=st.integers(0, 2), batch_size=st.integers(1, 7), shuffle=st.booleans(), weighted=st.booleans(),
          split=st.sampled_from([0.0, 0.34]))
    def fit(self, i, batch_size, shuffle, weighted, split):
        model = self.pick(i)
        arguments = {"sample_weight": _read_only(np.linspace(0, 2, N))} if weighted else {}
        healthy = self.healthy(model)
        history = self.attempt(lambda: model.fit(
            self.x_for(model), self.targets(model), batch_size, verbose=0, shuffle=shuffle, validation_split=split,
            **arguments), model)
        if history is not None:
            done["fits"] += 1
            if healthy and model.output_activation == "softmax":  # other losses may be undefined for the outputs
                assert np.isfinite(history.history["loss"]).all()
            assert holds_no_batch(model)

    @rule(i=st.integers(0, 2), n=st.integers(1, N), evaluates=st.booleans())
    def on_a_batch(self, i, n, evaluates):
        model = self.pick(i)
        x, y = self.x_for(model)[:n], self.targets(model)[:n]
        call = model.test_on_batch if evaluates else model.train_on_batch
        logs = self.attempt(lambda: call(x, y, return_dict=True), model)
        if logs is not None:
            assert list(logs) == model.metrics_names

    @rule(i=st.integers(0, 2), call=st.sampled_from(["fit", "train_on_batch", "evaluate", "test_on_batch"]),
          misuse=st.sampled_from(["nan", "infinity", "few", "none", "label", "text", "axis", "shape", "weight"]))
    def train_on_what_makes_no_sense(self, i, call, misuse):
        model = self.pick(i)
        x, y = self.x_for(model), self.targets(model)
        spoilt = x.copy()
        spoilt.flat[-1] = np.inf if misuse == "infinity" else np.nan
        arguments = {
            "nan": (spoilt, y), "infinity": (spoilt, y), "few": (x, y[1:]), "none": (x[:0], y[:0]),
            "label": (x, np.full(y.shape, np.nan)), "text": (x.astype(str), y), "axis": (x[0], y[:1]),
            "shape": (x[:, :-1], y), "weight": (x, y, np.full(N, -1.0)),
        }[misuse]
        if misuse == "weight":
            arguments = {"x": x, "y": y, "sample_weight": np.full(N, -1.0)}
        else:
            arguments = dict(zip(("x", "y"), arguments))
        if call in ("fit", "evaluate"):
            arguments["verbose"] = 0
        unbuilt_takes_it = misuse == "shape" and model.input_shape is None
        self.attempt(lambda: getattr(model, call)(**arguments), model, must_fail=not unbuilt_takes_it)

    def targets(self, model):
        """Return targets that fit the model's loss and outputs, if any do."""
        shape = self.shape_of_outputs(model)
        if isinstance(model.loss, losses.MeanSquaredError) and shape is not None:
            return _read_only(np.zeros((N, *shape[1:]), np.float32))
        if shape is not None and len(shape) > 2:
            return _read_only(np.broadcast_to(Y.reshape(N, *(1 for _ in shape[2:])), (N, *shape[1:-1])).copy())
        return Y

    @staticmethod
    def shape_of_outputs(model):
        try:
            return model.output_shape
        except DOCUMENTED:  # an attribute was changed, and the layers no longer fit together
            return None

    # Outputs.

    @rule(i=st.integers(0, 2), n=st.integers(1, N), batch_size=st.integers(1, 7))
    def predict(self, i, n, batch_size):
        model = self.pick(i)
        x = self.x_for(model)[:n]
        y = self.attempt(lambda: model.predict(x, batch_size=batch_size, verbose=0), model)
        if y is None:
            return
        done["predictions"] += 1
        self.keep(y)
        expected = self.shape_of_outputs(model)
        assert y.shape[0] == n
        assert len(expected) == y.ndim
        assert all(announced in (None, size) for announced, size in zip(expected[1:], y.shape[1:]))
        assert y.dtype == np.float32
        with fusion.disabled():
            assert same_bits(model.predict(x, batch_size=batch_size, verbose=0), y)
        assert same_bits(model(x[:batch_size]), y[:batch_size])

    @rule(i=st.integers(0, 2),
          misuse=st.sampled_from(["none", "text", "axis", "ragged", "complex", "number", "nothing"]))
    def predict_what_makes_no_sense(self, i, misuse):
        model = self.pick(i)
        x = self.x_for(model)
        given = {"none": None, "text": x.astype(str), "axis": x[0], "ragged": [[1.0], [1.0, 2.0]],
                 "complex": x * 1j, "number": 3.0, "nothing": x[:0]}[misuse]
        takes_it = misuse == "axis" and (model.input_shape is None or len(model.input_shape) == x.ndim - 1
                                         or (model.given_input_shape is None and computes(model, x[0].shape)))
        self.attempt(lambda: model.predict(given, verbose=0), model, must_fail=not takes_it)

    @rule(i=st.integers(0, 2))
    def in_training_as_one_and_layer_by_layer(self, i):
        model = self.pick(i)
        assume(model.built and model.layers)
        x = self.x_for(model)
        with fusion.disabled():
            alone = self.attempt(lambda: self.passes(copy.deepcopy(model), x), model)
        as_one = self.attempt(lambda: self.passes(copy.deepcopy(model), x), model, must_fail=alone is None)
        if alone is not None:
            assert all(map(same_bits, as_one, alone))

    @staticmethod
    def healthy(model):
        return all(np.isfinite(array).all() for array in model.weights)

    @staticmethod
    def passes(model, x):
        y = model.forward(x, training=True)
        dx = model.backward(np.cos(np.arange(y.size, dtype=np.float32)).reshape(y.shape))
        gradients = [gradient for _, layer in model.named_layers() if layer.trainable
                     for gradient in layer.grads.values()]
        return [y, dx, *gradients, *model.get_weights()]

    @rule(i=st.integers(0, 2))
    def gradients(self, i):
        model = self.pick(i)
        assume(model.built and model.layers and self.healthy(model))
        report = self.attempt(lambda: check_gradients(model, self.x_for(model)[:3], max_elements=4), model)
        if report is not None:
            done["gradient checks"] += 1
            assert all(row.verdict in ("ok", "kink") for row in report.rows), str(report)

    # Files.

    @rule(i=st.integers(0, 2))
    def save_and_load(self, i):
        model = self.pick(i)
        path = self.folder / f"model-{self.saved}.safetensors"
        self.saved += 1
        self.attempt(lambda: model.save(path), model, must_fail=not model.built)
        if not path.exists():
            return
        loaded = cnnlite.load_model(path)
        done["models saved and loaded"] += 1
        expected, found = self.of_a_file(snapshot(model)), self.of_a_file(snapshot(loaded))
        if model.optimizer is not None and not model.optimizer.takes(model.named_layers()):
            del expected["optimizer"], found["optimizer"]
        assert found == expected
        x, y = self.x_for(model), self.targets(model)
        twin = copy.deepcopy(model)
        known = model.shuffle_random is not None  # otherwise each draws an order of its own
        if "optimizer" in expected:
            self.attempt(lambda: twin.fit(x, y, 4, verbose=0, shuffle=known), twin)
            self.attempt(lambda: loaded.fit(x, y, 4, verbose=0, shuffle=known), loaded)
            assert self.of_a_file(snapshot(loaded)) == self.of_a_file(snapshot(twin))
        if len(self.models) < MOST_MODELS:
            self.models.append(loaded)

    @staticmethod
    def of_a_file(found):
        del found["built"]  # the shapes that the layers were built for, which an attribute may have changed since
        return found

    @rule(i=st.integers(0, 2), j=st.integers(0, 2))
    def weights_from_one_to_another(self, i, j):
        model, other = self.pick(i), self.pick(j)
        path = self.folder / "weights.safetensors"
        path.unlink(missing_ok=True)
        self.attempt(lambda: model.save_weights(path), model, other, must_fail=not model.built)
        self.attempt(lambda: other.load_weights(path), model, other, must_fail=not path.exists())
        if model is other and model.built:
            return
        if path.exists() and other.built and list(model.params) == list(other.params):
            shapes = [[array.shape for array in each.get_weights()] for each in (model, other)]
            if shapes[0] == shapes[1] and list(model.state) == list(other.state):
                assert all(map(same_bits, model.get_weights(), other.get_weights()))

    @rule(i=st.integers(0, 2), misuse=st.sampled_from(["folder", "ending", "there", "number", "missing", "damaged"]))
    def files_that_make_no_sense(self, i, misuse):
        model = self.pick(i)
        path = self.folder / "there.safetensors"
        path.write_bytes(b"not a model")
        calls = {
            "folder": lambda: model.save(self.folder / "nowhere" / "model.safetensors"),
            "ending": lambda: model.save(self.folder / "model.pkl"),
            "there": lambda: model.save(path, overwrite=False),
            "number": lambda: model.save(3),
            "missing": lambda: model.load_weights(self.folder / "missing.safetensors"),
            "damaged": lambda: model.load_weights(path),
        }
        self.attempt(calls[misuse], model, must_fail=True)
        assert path.read_bytes() == b"not a model"

    # Invariants.

    @invariant()
    def what_was_handed_out_stays_as_it_was(self):
        for array, values in self.handed_out:
            assert same_bits(array, values)

    @invariant()
    def a_model_is_in_order(self):
        for model in self.models:
            names = [path for path, _ in model.named_layers()]
            assert len(names) == len(set(names))
            assert all(array.dtype == np.float32 for array in model.weights)
            assert all(model.params[name].shape == gradient.shape for name, gradient in model.grads.items())
