"""Progress: bars on a terminal, clean lines in a file."""

import io
import sys
import types
import warnings

import numba
import numpy as np
import pytest

import cnnlite
from cnnlite.engine.cache import _say
from cnnlite.engine.program import watcher
from cnnlite.model import progress
from cnnlite.model.progress import Progress, format_rate, format_seconds, format_value, verbosity
from cnnlite.support import printing


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(verbose, steps=3, slow=True):
    shown = Progress("Epoch 1/5", steps, verbose)
    for _ in range(3):
        if slow:
            shown._next_redraw = min(shown._next_redraw, 0)  # as if a tenth of a second had passed
        if shown.step(32):
            shown.show({"loss": 0.21341})
    shown.steps_end({"loss": 0.21341}, then="validating")
    shown.finish({"loss": 0.21341, "val_loss": 3e-5})


@pytest.mark.parametrize("verbose", [1, 2])
def test_a_log_file_gets_one_clean_line(verbose, monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(sys, "stdout", file)
    run(verbose)
    text = file.getvalue()
    assert text.count("\n") == 1
    assert "\r" not in text
    assert "\x1b" not in text
    assert text.startswith("Epoch 1/5  ")
    assert text.endswith("img/s  loss 0.2134  val_loss 3.00e-05\n")


def test_silence_is_silent(monkeypatch):
    file = Terminal()
    monkeypatch.setattr(sys, "stdout", file)
    run(0)
    assert file.getvalue() == ""


@pytest.mark.parametrize("steps", [3, None])
def test_a_terminal_shows_a_bar_and_keeps_the_line(steps, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    run(1, steps)
    *states, line, end = terminal.getvalue().replace("\n", "\r\n").split("\r")
    assert any("img/s" in state and "loss 0.2134" in state for state in states)
    assert any("validating" in state for state in states)
    assert ("100%" in terminal.getvalue()) == (steps is not None)
    assert ("3 batches" in terminal.getvalue()) == (steps is None)
    assert line.startswith("Epoch 1/5  ")
    assert "val_loss" in line
    assert end == "\n"


def test_a_bar_is_not_redrawn_at_every_step(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    shown = Progress("Epoch 1/1", 1000, 1)
    assert sum(shown.step(1) for _ in range(1000)) < 100
    shown.close()
    shown.close()


def test_a_notebook_without_widgets_gets_a_plain_bar_and_no_warning(monkeypatch):
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr(progress.importlib.util, "find_spec", lambda name: None)
    file = io.StringIO()
    monkeypatch.setattr(sys, "stdout", file)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(1)
    assert "100%" in file.getvalue()


def test_a_message_does_not_tear_the_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    shown = Progress("Epoch 1/1", 10, 1)
    printing.message("saving")
    shown.close()
    assert "\rsaving\n" in terminal.getvalue() or "saving\n" in terminal.getvalue().replace(" ", "")


def test_what_is_said_on_stderr_while_a_bar_is_on_the_screen_stands_above_it(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    shown = Progress("Epoch 1/1", 10, 1)
    _say("compiling")
    shown.close()
    before, after = screen.getvalue().split("cnnlite: compiling\n")
    assert before.endswith("\r")  # the bar has been cleared from the line
    assert "Epoch 1/1" in after


def test_the_line_of_a_fit_within_a_fit_does_not_tear_the_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    outer = Progress("Epoch 1/1", 10, 1)
    Progress("Evaluate", 1, verbose=2).finish({})
    outer.close()
    before, _ = terminal.getvalue().split("Evaluate  ")
    assert before.endswith("\r")


def test_times_rates_and_values_are_in_sensible_units():
    seconds = (0.0312, 0.9996, 12.34, 59.96, 185, 3600, 3725)
    assert [format_seconds(s) for s in seconds] == [
        "31 ms", "1.0 s", "12.3 s", "1 min 00 s", "3 min 05 s", "1 h 00 min", "1 h 02 min"
    ]
    assert [format_rate(r) for r in (0.52, 48.71, 4870.4)] == ["0.52", "48.7", "4,870"]
    assert [format_value(v) for v in (0, 0.21341, 1e-5, 2e7, float("nan"), "text")] == [
        "0.0000", "0.2134", "1.00e-05", "2.00e+07", "nan", "text"
    ]


def test_verbose_must_be_known():
    assert [verbosity(v, "fit") for v in ("auto", 0, 1, 2, True, False)] == [1, 0, 1, 2, 1, 0]
    with pytest.raises(ValueError, match=r"fit: verbose must be 'auto', 0, 1 or 2. Received: verbose=3"):
        verbosity(3, "fit")


def test_the_first_step_counts_neither_in_the_rate_nor_in_what_is_left(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: clock[0])
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    shown = Progress("Epoch 1/1", 10, 1)
    for now in (20, 20.1, 20.3):  # 20 seconds to compile, then steps of 0.1 and 0.2 s
        clock[0] = now
        assert shown.step(30)
        shown.show({})
    clock[0] = 20.4
    shown.finish({})
    _, first, second, third, line = [state for state in terminal.getvalue().split("\r") if "Epoch" in state]
    assert "left" not in first
    assert "img/s" not in first
    assert "800 ms left, 300 img/s" in second
    assert "1.1 s left, 200 img/s" in third  # 7 steps of 0.15 s each
    assert "20.4 s  150 img/s" in line  # at the end of the epoch


def test_the_bar_says_how_many_kernels_there_are(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(progress, "REDRAW_SECONDS", 0)
    assert watcher.get() is None
    outer = Progress("Epoch 1/1", 10, 1)
    inner = Progress("Predict", 10, 1)
    cnnlite.kernels.relu(np.ones((2, 3, 5, 7, 1), np.float32))
    inner.close()
    assert "Predict   0%" in terminal.getvalue()
    assert ("preparing kernels, 0 of 1" in terminal.getvalue()) is not bool(numba.config.DISABLE_JIT)
    assert watcher.get() == outer._show_kernels
    outer.close()
    assert watcher.get() is None
