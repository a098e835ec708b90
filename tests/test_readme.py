"""The examples in the README run, and give what it says."""

import re
from pathlib import Path

import cnnlite

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
TEN_LINES, GRADIENT_CHECK = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_ten_lines_train_and_save_a_model(capsys, monkeypatch, tmp_path):
    (x_train, y_train), (x_test, y_test) = cnnlite.datasets.mnist.load_data()
    few = (x_train[:256], y_train[:256]), (x_test[:64], y_test[:64])
    monkeypatch.setattr(cnnlite.datasets.mnist, "load_data", lambda: few)
    monkeypatch.chdir(tmp_path)
    exec(TEN_LINES, {})
    assert "'accuracy': " in capsys.readouterr().out
    assert cnnlite.load_model("mnist.safetensors").output_shape == (None, 10)


def test_the_gradient_check_of_a_layer_of_ones_own_prints_the_table(capsys):
    exec(GRADIENT_CHECK, {"__name__": "readme"})
    shown = re.search(r"^```\n(Gradients of .*?)```", README, re.DOTALL | re.MULTILINE).group(1)
    # The errors are rounding, which differs from one processor to another.
    without_errors = [re.sub(r"\d\.\de-\d\d", "", text).split() for text in (shown, capsys.readouterr().out)]
    assert without_errors[0] == without_errors[1]
