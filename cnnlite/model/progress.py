"""How a long computation shows its progress: a bar in a terminal or a notebook, clean lines in a log file.

verbose=0 is silent, 1 draws a bar and leaves one line, 2 writes only that line, "auto" means 1. Output that is
neither a terminal nor a notebook (a log file, a pipe) never gets a bar, as every redraw would end up in the file.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from typing import Any

from cnnlite.engine.program import watcher
from cnnlite.support.printing import for_stdout, message
from cnnlite.types import Logs

REDRAW_SECONDS = 0.1  # often enough for a person; a step may take a thousandth of that


class Progress:
    """The progress of one epoch, of an evaluation or of a prediction.

    Args:
        label: what the bar and the line begin with ("Epoch 1/5").
        steps: how many steps there will be, or None if unknown.
        verbose: 0, 1 or 2.
        line: whether a line is written at the end.
    """

    def __init__(self, label: str, steps: int | None = None, verbose: int = 1, line: bool = True) -> None:
        self.label, self.samples, self.steps_done = label, 0, 0
        self._total, self._steps = steps, 0  # _steps: those of this process; a resumed epoch begins with some done
        self.seconds: float | None = None  # how long the steps took, without what follows them
        self._line = line and verbose > 0
        self._bar = _make_bar(label, steps) if verbose == 1 else None
        self._start = time.perf_counter()
        self._first = 0.0, 0  # the seconds and samples of the first step
        self._next_redraw = self._start + REDRAW_SECONDS if self._bar is not None else float("inf")
        self._watcher = watcher.get()
        if self._bar is not None:
            watcher.set(self._show_kernels)

    def step(self, samples: int) -> bool:
        """Count a step; return whether it is time to `show` the progress."""
        now = time.perf_counter()
        if not self.samples:
            self._first = now - self._start, samples
        self.samples += samples
        self.steps_done += 1
        self._steps += 1
        return now >= self._next_redraw

    def show(self, logs: Logs) -> None:
        """Redraw the bar with these values beside it."""
        if self._bar is None:
            return
        seconds = time.perf_counter() - self._start
        self._bar.n = self.steps_done
        values = _values(logs)
        if self.samples > self._first[1]:
            values = [*self._left(seconds), self._rate(seconds), *values]
        self._draw(", ".join(values))

    def _show_kernels(self, done: int, total: int) -> None:
        """Show how many of the kernels that a model needs are ready."""
        if time.perf_counter() >= self._next_redraw:
            self._draw(f"preparing kernels, {done} of {total}")

    def _draw(self, beside: str) -> None:
        if self._bar is None:
            return
        self._bar.set_postfix_str(for_stdout(beside), refresh=False)
        self._bar.refresh()
        self._next_redraw = time.perf_counter() + REDRAW_SECONDS

    def steps_end(self, logs: Logs, then: str = "") -> None:
        """Show that the steps are over, and what comes `then` ("validating")."""
        self.seconds = time.perf_counter() - self._start
        if self._bar is not None:
            self._bar.set_description_str(f"{self.label} {then}".strip(), refresh=False)
            self.show(logs)

    def close(self) -> None:
        """Remove the bar; a second call is harmless."""
        if self._bar is not None:
            watcher.set(self._watcher)
            self._bar.close()
            self._bar = None
            self._next_redraw = float("inf")

    def finish(self, logs: Logs) -> None:
        """Remove the bar and write the line: time, images per second, and these values."""
        seconds = time.perf_counter() - self._start
        self.close()
        if self._line:
            steps_took = seconds if self.seconds is None else self.seconds
            parts = [self.label, format_seconds(seconds), self._rate(steps_took), *_values(logs)]
            message("  ".join(parts))  # above the bar of an outer fit, if its callback runs this one

    def _rate(self, seconds: float) -> str:
        seconds, samples = self._after_first(seconds)
        return f"{format_rate(samples / max(seconds, 1e-9))} img/s"

    def _left(self, seconds: float) -> list[str]:
        """Return how long the remaining steps will take, if their number is known."""
        if not self._total or self.seconds is not None:
            return []
        seconds, samples = self._after_first(seconds)
        to_come = (self._total - self.steps_done) * self.samples / self._steps
        return [f"{format_seconds(seconds * to_come / samples)} left"]

    def _after_first(self, seconds: float) -> tuple[float, int]:
        """Return the seconds and samples of all steps but the first, which may include compiling kernels."""
        first_seconds, first_samples = self._first
        if self.samples == first_samples:
            return seconds, self.samples
        return seconds - first_seconds, self.samples - first_samples


def verbosity(verbose: Any, owner: str) -> int:
    """Return `verbose` ("auto", 0, 1, 2, True or False) as 0, 1 or 2; a ValueError for anything else."""
    if isinstance(verbose, str) and verbose == "auto":
        return 1
    if verbose in (0, 1, 2):
        return int(verbose)
    raise ValueError(f"{owner}: verbose must be 'auto', 0, 1 or 2. Received: verbose={verbose!r}.")


def format_seconds(seconds: float) -> str:
    """Return "850 ms", "12.3 s", "3 min 05 s" or "1 h 02 min"."""
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


def format_rate(rate: float) -> str:
    """Return a rate with three significant digits, or with all its integer digits: "0.52", "48.7", "4,870"."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def format_value(value: Any) -> str:
    """Return a loss or a metric with four decimals, or in scientific notation where those would not show it."""
    try:
        value = float(value)
    except (TypeError, ValueError):  # several numbers, such as one precision per threshold
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:.4f}"
    return f"{value:.2e}"


def _values(logs: Logs) -> list[str]:
    return [f"{name} {format_value(value)}" for name, value in logs.items()]


def _make_bar(label: str, steps: int | None) -> Any:
    """Return a tqdm bar for the current environment, or None where only lines make sense."""
    in_notebook = _in_notebook()
    if not in_notebook and not _is_terminal(sys.stdout):
        return None
    # Imported here because importing it takes as long as building a small model.
    if in_notebook and importlib.util.find_spec("ipywidgets") is not None:
        # The notebook's own bar is chosen here, as tqdm.auto would warn where it is unavailable.
        from tqdm.notebook import tqdm
    else:
        from tqdm.std import tqdm
    known = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
    unknown = "{desc} {n_fmt} batches [{elapsed}{postfix}]"
    return tqdm(
        total=steps, desc=label, file=sys.stdout, leave=False, dynamic_ncols=True,
        bar_format=known if steps else unknown,
    )


def _is_terminal(stream: Any) -> bool:
    return bool(getattr(stream, "isatty", lambda: False)())


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"
