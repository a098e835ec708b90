"""What a type checker sees of the library: the package ships `py.typed`, so its annotations are a promise."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import cnnlite
from cnnlite import callbacks, initializers, layers, losses, metrics, optimizers, regularizers, schedules

ROOT = Path(__file__).parent.parent

# A line that ends in "# not ..." is one that mypy must report, and no other may be.
SCRIPT = '''\
import numpy as np

import cnnlite
from cnnlite import callbacks, layers, losses, optimizers, schedules

(x_train, y_train), (x_test, y_test) = cnnlite.datasets.mnist.load_data()
model = cnnlite.Sequential([
    cnnlite.Input(shape=(28, 28, 1)),
    layers.Rescaling(1 / 255),
    layers.Conv2D(8, (3, 3), strides=2, padding="same", activation="relu", kernel_regularizer="l2"),
    layers.BatchNormalization(),
    layers.MaxPooling2D(2),
    layers.Flatten(),
    layers.Dense(10, layers.ReLU(max_value=6), kernel_initializer=cnnlite.initializers.HeNormal(seed=1), name="top"),
    layers.Activation("softmax"),
])
optimizer = optimizers.Adam(schedules.CosineDecay(1e-3, 100))
model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
stopping = callbacks.EarlyStopping(patience=2, restore_best_weights=True)
history = model.fit(x_train, y_train, epochs=2, callbacks=[stopping], validation_data=(x_test, y_test))
best = max(history.history["val_accuracy"])
loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
classes = model.predict(x_test[:5]).argmax(axis=-1)
model.fit(((x_train[i:i + 9], y_train[i:i + 9]) for i in range(9)), steps_per_epoch=3)
model.save("model.safetensors")
top = cnnlite.load_model("model.safetensors").get_layer("top")
top.params["kernel"][...] = 0
layers.Dense(top.compute_output_shape((None, 3))[-1])
losses.MeanSquaredError()([[0.0, 1.0]], [[0.5, 0.5]]) + 1


class Double(layers.Layer):
    """One with annotations."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        super().build(input_shape)

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        return 2 * x

    def backward(self, dy: np.ndarray) -> np.ndarray:
        return 2 * dy


class Halving(schedules.LearningRateSchedule):
    def __call__(self, step: int) -> float:
        return 0.5 ** step


class Note(callbacks.Callback):
    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        print(epoch, logs, self.model.optimizer.learning_rate)


class Scale(layers.Layer):
    """One without them."""

    def build(self, input_shape):
        self.add_weight("scale", (input_shape[-1],), "ones")

    def forward(self, x, training=False):
        if training:
            self.remember(x)
        return x * self.params["scale"]

    def backward(self, dy):
        (x,) = self.recall()
        self.grads["scale"] = (dy * x).sum(axis=0)
        return dy * self.params["scale"]


model.add(Scale(name="scale"))
model.add(Double())
model.add(layers.AveragePool([2, 2]))
model.compile(optimizers.SGD(Halving()), "mse")
model.fit(x_train, [0, 1, 2], callbacks=Note())
report = cnnlite.check_gradients(Scale(), np.ones((2, 3)))

predicted: str = model.predict(x_test)  # not a text but an array
trained: int = history  # not a number but a History
correct: str = report.ok  # not a text but a bool
model.fit(x_train, y_train, epochs="2")  # not a number
model.predict(x_test, batch_sise=32)  # not an argument
layers.Dense("10")  # not a number
layers.Dense()  # not complete
layers.Conv2D(8, (3, 3, 3))  # not a pair
model.add("relu")  # not a layer
layers.Flatten.from_config({}).units  # not what a Flatten has
model.compile("adam", "mse").fit(x_train)  # not a model
'''


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    """{line of SCRIPT: what mypy says}, after a check that mypy finds nothing elsewhere."""
    pytest.importorskip("mypy")
    folder = tmp_path_factory.mktemp("typing")
    script = folder / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--config-file", ROOT / "setup.cfg", "--cache-dir", folder / "cache",
               "--no-error-summary", "--hide-error-context", script]
    run = subprocess.run(
        command, cwd=folder, env={**os.environ, "MYPYPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert not run.stderr
    found = {}
    for line in run.stdout.splitlines():
        path, number, kind, text = line.split(":", 3)
        assert Path(folder, path).name == "script.py", line
        if kind.strip() == "error":
            found[int(number)] = text.strip()
    return found


def test_a_script_with_nothing_wrong_in_it_gets_no_complaint(findings):
    complaints = {
        SCRIPT.splitlines()[number - 1]: text for number, text in findings.items()
        if "# not" not in SCRIPT.splitlines()[number - 1]
    }
    assert not complaints


@pytest.mark.parametrize("wrong", [line for line in SCRIPT.splitlines() if "# not" in line])
def test_a_wrong_call_is_reported(findings, wrong):
    assert SCRIPT.splitlines().index(wrong) + 1 in findings


def test_predictions_are_seen_as_an_array(findings):
    (line,) = (number for number, text in enumerate(SCRIPT.splitlines(), 1) if text.startswith("predicted"))
    assert "ndarray" in findings[line]


def public_functions():
    for module in (callbacks, initializers, layers, losses, metrics, optimizers, regularizers, schedules, cnnlite):
        for name, thing in vars(module).items():
            if name.startswith("_") or not getattr(thing, "__module__", "").startswith(module.__name__):
                continue
            if inspect.isfunction(thing):
                yield f"{module.__name__}.{name}", thing
            elif inspect.isclass(thing):
                for key, member in vars(thing).items():
                    if inspect.isfunction(member) and (key in ("__init__", "__call__") or not key.startswith("_")):
                        yield f"{module.__name__}.{name}.{key}", member


def test_public_functions_say_what_they_return():
    unsaid = {name for name, function in public_functions() if "return" not in function.__annotations__}
    assert not unsaid
