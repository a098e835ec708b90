"""The example trains, leaves what it promises, and loses nothing to Ctrl-C."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import cnnlite

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "train_mnist.py"


def command(*arguments):
    """Return the command and the environment with which the example runs on this source."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONIOENCODING": "utf-8"}
    return [sys.executable, "-u", str(EXAMPLE), *map(str, arguments)], environment


def run(*arguments, **environment):
    arguments, inherited = command(*arguments)
    return subprocess.run(
        arguments, env={**inherited, **environment}, capture_output=True, text=True, encoding="utf-8", timeout=300
    )


def size_of_png(path):
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


def test_quick_training_leaves_a_model_a_history_and_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    done = run("--quick", "--out", tmp_path / "out", "--seed", 3)
    assert done.returncode == 0, done.stderr
    assert "Total params: 225,322" in done.stdout
    assert len(re.findall(r"^ +\d +[\d.]+% +[\d.]+% +\d+$", done.stdout, re.MULTILINE)) == 10
    said = float(re.search(r"Test accuracy: ([\d.]+)% of 1,000 images", done.stdout).group(1))
    assert said > 80

    model = cnnlite.load_model(tmp_path / "out" / "model.safetensors")
    _, (x_test, y_test) = cnnlite.datasets.mnist.load_data()
    predicted = model.predict(x_test[:1000, ..., np.newaxis], verbose=0).argmax(axis=1)
    assert (predicted == y_test[:1000]).mean() == pytest.approx(said / 100, abs=1e-4)

    with open(tmp_path / "out" / "history.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["val_accuracy"]) == pytest.approx(said / 100, abs=1e-4)
    width, height = size_of_png(tmp_path / "out" / "report.png")
    assert width > 1000
    assert height > 1000
    for name in ("model.safetensors", "history.csv", "report.png"):
        assert str(tmp_path / "out" / name) in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="a process can't be sent a Ctrl-C of its own there")
@pytest.mark.parametrize(
    ("rows", "kept"),
    [(2, "Interrupted. The best model so far, from epoch 1,"), (0, "Interrupted in the first epoch.")],
    ids=["after the first epoch", "before it"],
)
def test_interrupted_training_keeps_the_best_model(tmp_path, rows, kept):
    arguments, environment = command("--quick", "--epochs", 100, "--out", tmp_path)
    with open(tmp_path / "shown", "w", encoding="utf-8") as output:
        process = subprocess.Popen(arguments, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_for_rows(tmp_path / "history.csv", rows)
        process.send_signal(signal.SIGINT)  # once: an interrupt must not be lost while kernels load
        process.wait(timeout=300)
    finally:
        process.kill()
    shown = (tmp_path / "shown").read_text(encoding="utf-8")
    assert process.returncode == 0, shown
    assert kept in shown
    assert "Test accuracy" in shown
    model = cnnlite.load_model(tmp_path / "model.safetensors")
    assert model.predict(np.zeros((2, 28, 28, 1), "uint8"), verbose=0).shape == (2, 10)


def wait_for_rows(path, rows, seconds=240):
    """Wait for history.csv, which is there from the beginning of training and gets a row for each epoch."""
    for _ in range(seconds * 20):
        if path.exists() and len(path.read_text().splitlines()) >= rows:
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not come to have {rows} rows")


def test_without_matplotlib_the_picture_is_left_out_and_the_extra_is_named_whatever_the_terminal_can_show(tmp_path):
    # A package of that name which is not there: find_spec finds none where sys.modules says None.
    blocker = tmp_path / "sitecustomize.py"
    blocker.write_text("import sys\nsys.modules['matplotlib'] = None\n")
    arguments, environment = command("--quick", "--epochs", 1, "--out", tmp_path / "out 漢")
    environment["PYTHONIOENCODING"] = "ascii"
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), environment["PYTHONPATH"]])
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    assert 'pip install -e ".[plot]"' in done.stdout.split("Model:")[0]
    assert "| conv2d (Conv2D) " in done.stdout
    assert "out \\u6f22" in done.stdout
    assert sorted(file.name for file in (tmp_path / "out 漢").iterdir()) == ["history.csv", "model.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "--epochs: must be an integer of at least 1. Received: 0."),
        (["--batch-size", "many"], "--batch-size: must be an integer of at least 1. Received: many."),
        (["--learning-rate", "-1"], "--learning-rate: must be a number above 0. Received: -1."),
        (["--learning-rate", "nan"], "--learning-rate: must be a number above 0. Received: nan."),
        (["--seed", "1.5"], "--seed: must be an integer of at least 0. Received: 1.5."),
        (["--out", __file__], "--out: must be a folder."),
        (["--speed"], "unrecognized arguments: --speed"),
    ],
)
def test_options_that_make_no_sense_are_named(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_picture_can_be_drawn_of_any_result(tmp_path):
    pytest.importorskip("matplotlib")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ANY_RESULT, tmp_path], cwd=EXAMPLE.parent, capture_output=True, text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert size_of_png(tmp_path / "perfect.png") == size_of_png(tmp_path / "random.png")


# Nothing wrong and no epoch complete; everything wrong, and losses that are not numbers.
ANY_RESULT = """
import sys
from pathlib import Path
import numpy as np
import report
folder = Path(sys.argv[1])
images, labels = np.zeros((40, 28, 28), np.uint8), np.arange(40) % 10
report.draw({}, images, labels, np.eye(10)[labels], folder / "perfect.png", "perfect")
history = {name: [float("nan")] for name in ("loss", "accuracy", "val_loss", "val_accuracy")}
report.draw(history, images, labels, np.full((40, 10), 0.1), folder / "random.png", "random")
"""
