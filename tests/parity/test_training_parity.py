"""Training gives what Keras gives, and takes the arguments that Keras takes."""

import inspect
import os

import numpy as np
import pytest

import cnnlite

os.environ.setdefault("KERAS_BACKEND", "torch")
pytestmark = pytest.mark.parity
pytest.importorskip("torch")
keras = pytest.importorskip("keras")


def arguments(function):
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, p.default) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]


@pytest.mark.parametrize("name", [
    "compile", "fit", "evaluate", "predict", "train_on_batch", "test_on_batch", "predict_on_batch",
    "get_compile_config", "compile_from_config",
])
def test_the_methods_of_a_model(name):
    assert arguments(getattr(cnnlite.Sequential, name)) == arguments(getattr(keras.Sequential, name))


@pytest.mark.parametrize("name", [
    "EarlyStopping", "ModelCheckpoint", "LearningRateScheduler", "ReduceLROnPlateau", "CSVLogger", "TerminateOnNaN",
    "LambdaCallback", "History",
])
def test_the_callbacks(name):
    assert arguments(getattr(cnnlite.callbacks, name)) == arguments(getattr(keras.callbacks, name))


def test_the_hooks():
    hooks = [name for name in dir(keras.callbacks.Callback) if name.startswith("on_")]
    assert sorted(cnnlite.callbacks.base.HOOKS) == sorted(hooks)
    for hook in hooks:
        mine, theirs = (getattr(library.callbacks.Callback, hook) for library in (cnnlite, keras))
        assert arguments(mine) == arguments(theirs)


@pytest.mark.parametrize("weighting", ["none", "samples", "classes"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_history_of_a_fit(optimizer, weighting):
    # A short last batch, a penalty, a validation split, a BatchNorm, and weights.
    generator = np.random.default_rng(0)
    x = generator.normal(size=(45, 6)).astype(np.float32)
    y = (x @ generator.normal(size=(6, 3))).argmax(axis=1)
    arguments = {
        "none": {},
        "samples": dict(sample_weight=generator.uniform(size=45).astype(np.float32)),
        "classes": dict(class_weight={0: 0.5, 1: 2.0, 2: 1.0}),
    }[weighting]
    histories, evaluations, start = [], [], None
    for library in (keras, cnnlite):
        model = library.Sequential([
            library.layers.Dense(8, activation="relu", kernel_regularizer="l2"),
            library.layers.BatchNormalization(),
            library.layers.Dense(3, activation="softmax"),
        ])
        model.build((None, 6))
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], weighted_metrics=["accuracy"])
        start = model.get_weights() if start is None else start
        model.set_weights(start)
        history = model.fit(x, y, batch_size=8, epochs=3, shuffle=False, validation_split=0.2, verbose=0, **arguments)
        histories.append(history.history)
        evaluations.append(model.evaluate(x, y, batch_size=16, verbose=0, return_dict=True))
    assert list(histories[1]) == ["loss", "accuracy", "weighted_accuracy",
                                  "val_loss", "val_accuracy", "val_weighted_accuracy"]
    assert histories[1].keys() == histories[0].keys()
    for name, values in histories[1].items():
        np.testing.assert_allclose(values, histories[0][name], rtol=2e-5, err_msg=name)
    assert evaluations[1] == pytest.approx(evaluations[0], rel=2e-5)
