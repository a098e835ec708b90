"""Small models and data shared by several test files."""

import numpy as np

import cnnlite
from cnnlite import layers
from cnnlite.callbacks import Callback
from cnnlite.model.passes import Segment
from cnnlite.model.training_step import StepPlan
from cnnlite.random import RandomStream

# Models to train.

N, D, K = 50, 6, 3


def make_data():
    """Return N samples of D numbers, and for each the argmax of K linear functions: a learnable class."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(N, D)).astype(np.float32)
    return x, (x @ generator.normal(size=(D, K))).argmax(axis=1)


def make_model(*, optimizer="sgd", loss="sparse_categorical_crossentropy", metrics=("accuracy",),
               activation="softmax", regularizer=None, batchnorm=False, seed=1):
    cnnlite.utils.set_random_seed(seed)
    stack = [layers.Dense(8, activation="relu", kernel_regularizer=regularizer)]
    stack += [layers.BatchNorm()] if batchnorm else []
    model = cnnlite.Sequential([*stack, layers.Dense(K, activation=activation)])
    model.compile(optimizer, loss, metrics=list(metrics))
    model.build((None, D))
    model.shuffle_random = RandomStream(seed)
    return model


def weights_of(model):
    return np.concatenate([array.ravel() for array in model.get_weights()])


def kept_for_training(model):
    """Return what a model and its nested models keep for training: plans of steps, and segments of layers."""
    found = [value for layer in model.walk() for value in (layer.memo.values() if hasattr(layer, "memo") else ())]
    units = [unit for value in found if isinstance(value, list) for unit in value if isinstance(unit, Segment)]
    return [value.plan for value in found if isinstance(value, StepPlan)], units


def holds_no_batch(model):
    """Return whether a model keeps neither a batch nor the memory in which it was computed."""
    plans, segments = kept_for_training(model)
    return (
        all(layer._memory is None for layer in model.walk())
        and not any(segment._in_use or any(memory.bytes.size for memory in segment._memories) for segment in segments)
        and not any(plan.workspace.memory.bytes.size for plan in plans)
    )


def fit(model, x, y, **arguments):
    return model.fit(x, y, **{"verbose": 0, **arguments})


class Stop(Callback):
    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training = True


# A model to inspect layer by layer.


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
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# Models to save.


def dense_model(dtype="float32", units=4, last="softmax"):
    return cnnlite.Sequential([
        cnnlite.Input(shape=(5,)),
        layers.Dense(3, dtype=dtype),
        layers.Dropout(0.5, dtype=dtype),
        layers.Dense(units, activation=last, dtype=dtype),
    ])


def image_model():
    """A model with one layer of each kind that has state."""
    return cnnlite.Sequential([
        cnnlite.Input(shape=(6, 6, 1)),
        layers.Conv2D(2, 3),
        layers.BatchNorm(),
        layers.ReLU(),
        layers.MaxPool(),
        layers.Flatten(),
        layers.Dropout(0.5),
        layers.Dense(3, activation="softmax"),
    ])


def image_data(seed=0, n=21):
    random = np.random.default_rng(seed)
    return random.normal(size=(n, 6, 6, 1)).astype("float32"), random.integers(0, 3, n)


def vectors(n=7):
    return np.random.default_rng(1).normal(size=(n, 5)).astype("float32")


def assert_same_weights(a, b):
    assert list(a.params) + list(a.state) == list(b.params) + list(b.state)
    for mine, other in zip(a.get_weights(), b.get_weights(), strict=True):
        assert mine.dtype == other.dtype
        assert mine.tobytes() == other.tobytes()
