"""The examples in the README and in docs/ run, and give what is shown beside them."""

import re
from pathlib import Path

import pytest

import cnnlite

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("cnnlite/**/*.md"), ROOT / "benchmarks" / "README.md"]


def examples(page):
    """Return the text of a page, and the Python in it."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return text, *re.findall(r"```python\n(.*?)```", text, re.DOTALL)


README, TEN_LINES, PLAN = examples("README.md")
_, BACKUP = examples("docs/long-runs.md")
YOUR_OWN_LAYER, GRADIENT_CHECK, ACTIVATION = examples("docs/your-own-layer.md")
MOST_LINES = 150


def test_the_readme_is_short():
    assert len(README.splitlines()) <= MOST_LINES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_that_are_there(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), target


def test_the_ten_lines_train_and_save_a_model(capsys, monkeypatch, tmp_path):
    (x_train, y_train), (x_test, y_test) = cnnlite.datasets.mnist.load_data()
    few = (x_train[:256], y_train[:256]), (x_test[:64], y_test[:64])
    monkeypatch.setattr(cnnlite.datasets.mnist, "load_data", lambda: few)
    monkeypatch.chdir(tmp_path)
    exec(TEN_LINES, {})
    assert "'accuracy': " in capsys.readouterr().out
    assert cnnlite.load_model("mnist.safetensors").output_shape == (None, 10)


def test_the_plan_of_the_ten_lines_is_a_table_of_all_their_layers(capsys):
    names = {}
    exec(TEN_LINES.split("model.fit")[0] + PLAN, names)
    shown = capsys.readouterr().out
    assert all(layer.name in shown for layer in names["model"].layers if layer.name != "flatten")  # which is no work
    assert "adam" in shown


def test_the_run_with_a_backup_goes_on_where_it_was(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    class Killed(cnnlite.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 7:
                raise RuntimeError

    def names():
        """Return what the ten lines have made before they train, with fewer images."""
        cnnlite.utils.set_random_seed(0)
        names = {}
        exec(TEN_LINES.split("model.fit")[0], names)
        return names | {"x_train": names["x_train"][:40], "y_train": names["y_train"][:40]}

    def run(*callbacks):
        names_here = names() | {"more": callbacks}
        exec(BACKUP.replace("[cnnlite", "[*more, cnnlite").replace("y_train,", "y_train, verbose=0,"), names_here)
        return names_here["model"].history

    with pytest.raises(RuntimeError):
        run(Killed())
    history = run()
    undisturbed = names()
    expected = undisturbed["model"].fit(undisturbed["x_train"][..., None], undisturbed["y_train"], epochs=50, verbose=0)
    assert history.history == expected.history
    assert len(history.epoch) == 50


def test_the_gradient_check_of_a_layer_of_ones_own_prints_the_table(capsys):
    names = {"__name__": "readme"}
    exec(GRADIENT_CHECK, names)
    shown = re.search(r"^```\n(Gradients of .*?)```", YOUR_OWN_LAYER, re.DOTALL | re.MULTILINE).group(1)
    # The errors are rounding, which differs from one processor to another.
    without_errors = [re.sub(r"\d\.\de-\d\d", "", text).split() for text in (shown, capsys.readouterr().out)]
    assert without_errors[0] == without_errors[1]
    exec(ACTIVATION, names)
    assert capsys.readouterr().out == "True\n"
