"""The loss and the metrics over all samples of an epoch so far."""

from __future__ import annotations

from collections.abc import Sequence

from cnnlite.metrics.base import Metric
from cnnlite.support.schema import COUNT, NUMBER, check_form
from cnnlite.types import Config, Logs


class RunningLoss:
    """The mean of the loss over samples, not over batches: a short last batch gets no extra weight.

    Args:
        metrics: those whose results `logs` includes; they are reset.
    """

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.metrics = metrics
        self.total, self.samples = 0.0, 0
        for metric in metrics:
            metric.reset_state()

    def add(self, loss: float, samples: int) -> None:
        """Add the mean loss of `samples` samples."""
        self.total += loss * samples
        self.samples += samples

    def logs(self) -> Logs:
        """Return {"loss": ..., "accuracy": ...} over all samples so far, as a new dict."""
        logs = {"loss": self.total / self.samples if self.samples else 0.0}
        for metric in self.metrics:
            logs[metric.name] = metric.result()
        return logs

    def get_state(self) -> Config:
        """Return the sums so far, including those of the metrics, for `set_state` in another process."""
        sums = {metric.name: metric.get_state() for metric in self.metrics}
        return {"total": self.total, "samples": self.samples, "metrics": sums}

    def set_state(self, state: Config) -> None:
        """Restore what `get_state` returned; a ValueError if it belongs to other metrics."""
        names = [metric.name for metric in self.metrics]
        form = {"total": NUMBER, "samples": COUNT, "metrics": {name: object for name in names}}
        check_form(state, form, "the sums")
        self.total, self.samples = state["total"], state["samples"]
        for metric in self.metrics:
            metric.set_state(state["metrics"][metric.name])
