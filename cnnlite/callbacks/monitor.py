"""Callbacks that watch the values in the logs, to stop training early or abort it."""

from __future__ import annotations

import contextlib
import math
import numbers
import warnings
from typing import Any

import numpy as np

from cnnlite import metrics
from cnnlite.callbacks.base import Callback
from cnnlite.nonfinite import find_nonfinite, passing_state, put_back
from cnnlite.support.arguments import integer, number, one_of, text
from cnnlite.support.printing import message
from cnnlite.support.schema import COUNT, NUMBER, check_form
from cnnlite.types import Array, Logs, Shape


class Monitor(Callback):
    """The base class of callbacks that watch whether a value improves.

    Args:
        monitor: the name of the value in the logs; "val_loss" by default.
        mode: "min" if lower is better, "max" if higher is, "auto" (default) to infer it from the loss or metric.
        min_delta: how much better a value must be to count as an improvement; default 0.

    If the logs don't have the value, a warning says so at every epoch. A NaN is never an improvement, and neither is
    an infinity of the wrong sign, not even as the first value.

    Raises:
        TypeError: monitor is not a string, or min_delta not a number.
        ValueError: mode is not one of the three; when training begins, "auto" can't tell which way the value
            improves, or the value is an array; after an epoch, the value is not a number.
    """

    def __init__(self, monitor: str = "val_loss", mode: str = "auto", min_delta: float = 0) -> None:
        self.monitor = text(monitor, "monitor", type(self).__name__)
        self.mode = one_of(mode, ("auto", "min", "max"), "mode", type(self).__name__)
        self.min_delta = abs(number(min_delta, "min_delta", type(self).__name__))

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Check before training, not after an epoch, that the value can be monitored."""
        self._more_is_better()
        metric = next((metric for metric in self.model.metrics if metric.name == self._name), None)
        shape = () if metric is None else shape_of_result(metric)
        if shape:
            raise ValueError(
                f"{type(self).__name__}: the monitored value must be a number in every epoch. Received: "
                f"monitor={self.monitor!r}, an array of shape {shape}. Monitor a metric with one value."
            )

    @property
    def _name(self) -> str:
        return self.monitor.removeprefix("val_")

    def value(self, logs: Logs | None, consequence: str) -> float | None:
        """Return the monitored value as a float; warn and return None if the logs don't have it."""
        logs = logs or {}
        value = logs.get(self.monitor)
        if value is None:
            warnings.warn(
                f"{type(self).__name__}: {self.monitor!r} is not among the values of this epoch, so {consequence}. "
                f"Available: {', '.join(logs) or 'none'}.",
                stacklevel=5,
            )
            return None
        array = np.asarray(value)
        if array.ndim or array.dtype.kind not in "fiub":
            raise ValueError(
                f"{type(self).__name__}: the monitored value must be a number in every epoch. Received: "
                f"{self.monitor}={value!r:.200}."
            )
        return float(array)

    def improves(self, value: float, best: float | None) -> bool:
        """Return whether `value` is better than `best` by more than `min_delta`; a NaN never is.

        If there is no best yet, anything but the worst infinity is better.
        """
        more_is_better = self._more_is_better()
        if best is None or math.isnan(best):
            return not math.isnan(value) and value != (-math.inf if more_is_better else math.inf)
        if more_is_better:
            return value - self.min_delta > best
        return value + self.min_delta < best

    def _more_is_better(self) -> bool:
        if self.mode != "auto":
            return self.mode == "max"
        direction = direction_of(self._name, self.model)
        if direction is None:
            available = ", ".join(["loss", *(metric.name for metric in self.model.metrics)])
            raise ValueError(
                f"{type(self).__name__}: mode='auto' can't tell whether a higher or lower {self.monitor!r} is better. "
                f"Pass mode='max' or mode='min', or monitor one of {available}, with or without val_ before it."
            )
        return direction == "up"


def threshold(value: Any, name: str, owner: str) -> float | None:
    """Return a value to compare with as a float, which may be infinite; TypeError or ValueError otherwise."""
    if value is None:
        return None
    if isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isinf(value):
        return float(value)
    return number(value, name, owner)


def shape_of_result(metric: Any) -> Shape:
    """Return the shape of a metric's result before its first batch; () if that is not known."""
    with contextlib.suppress(Exception), np.errstate(all="ignore"):  # a user's metric may need a batch first
        return np.shape(metric.result())
    return ()


def direction_of(name: str, model: Any) -> str | None:
    """Return which way the loss or metric of that name improves, "up" or "down"; None if not known."""
    if name == "loss":
        return "down"
    for metric in model.metrics:
        if metric.name == name:
            kinds = (("down", _LESS_IS_BETTER), ("up", _MORE_IS_BETTER))
            counted = metric.metric if isinstance(metric, metrics.OfLogits) else metric
            found = [direction for direction, classes in kinds if isinstance(counted, classes)]
            return getattr(metric, "direction", None) or (found[0] if found else None)
    return None


_LESS_IS_BETTER = (metrics.LossMetric, metrics.CrossentropyByForm)
_MORE_IS_BETTER = (
    metrics.AccuracyByForm, metrics.BinaryAccuracy, metrics.CategoricalAccuracy, metrics.SparseCategoricalAccuracy,
    metrics.TopKCategoricalAccuracy, metrics.Precision, metrics.Recall,
)


class EarlyStopping(Monitor):
    """Stop training when a value has not improved for some epochs.

    Args:
        monitor: the name of the value; "val_loss" by default.
        min_delta: how much better it must be to count as an improvement; default 0.
        patience: how many epochs in a row without improvement end the training; 0 (default) is taken as 1.
        verbose: 1 prints what is done; default 0.
        mode: "min", "max" or "auto" (default); see `Monitor`.
        baseline: the value must also be better than this for an epoch to count as an improvement; None (default)
            for no such condition.
        restore_best_weights: True restores the weights of the best epoch at the end of training, or of the first one
            considered if no value was an improvement (all were NaN, say); default False.
        start_from_epoch: the first epoch to consider, counted from 0 (default).

    Raises:
        TypeError: as for `Monitor`, or something other than a number where one is needed.
        ValueError: as for `Monitor`, or patience or start_from_epoch is negative, or baseline is NaN.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience = integer(patience, "patience", "EarlyStopping", minimum=0)
        self.verbose = verbose
        self.baseline = threshold(baseline, "baseline", "EarlyStopping")
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = integer(start_from_epoch, "start_from_epoch", "EarlyStopping", minimum=0)
        self._forget()

    def _forget(self) -> None:
        self.wait = 0
        self.stopped_epoch = 0
        self.best: float | None = None
        self.best_epoch = 0
        self.best_weights: list[Array] | None = None

    def get_state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("wait", "stopped_epoch", "best", "best_epoch", "best_weights")}

    def set_state(self, state: dict[str, Any]) -> None:
        form = {"wait": COUNT, "stopped_epoch": COUNT, "best": (NUMBER, None), "best_epoch": COUNT,
                "best_weights": ([np.ndarray], None)}
        check_form(state, form, "the state of EarlyStopping")
        best_weights = state["best_weights"]
        if best_weights is not None and [array.shape for array in best_weights] != [
            array.shape for array in self.model.weights
        ]:
            raise ValueError("the best weights of EarlyStopping must have the shapes of the model's weights")
        self.wait, self.stopped_epoch = state["wait"], state["stopped_epoch"]
        self.best, self.best_epoch, self.best_weights = state["best"], state["best_epoch"], state["best_weights"]

    def on_train_begin(self, logs: Logs | None = None) -> None:
        super().on_train_begin(logs)
        self._forget()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        value = self.value(logs, "training won't stop early")
        if value is None or epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self.best_weights, self.best_epoch = self.model.get_weights(), epoch
        self.wait += 1
        if self.improves(value, self.best):
            self.best, self.best_epoch = value, epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
            if self.baseline is None or self.improves(value, self.baseline):
                self.wait = 0
            return
        if self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.stopped_epoch > 0 and self.verbose:
            message(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.best_weights is not None:
            if self.verbose:
                which = "first epoch, as none was better" if self.best is None else "best epoch"
                message(f"Restoring the weights of the {which}: {self.best_epoch + 1}.")
            self.model.set_weights(self.best_weights)


class TerminateOnNaN(Callback):
    """Stop training as soon as the loss or a gradient is NaN or infinite, and say which layer it comes from.

    The step in which that happens is not taken: the weights, the moving averages and the random states stay as they
    were before it. (Keras takes the step, which ruins the weights.) The message names the first layer with a weight,
    an output or a gradient that was not finite; see `cnnlite.utils.find_nonfinite`.

    Args:
        raise_error: True raises a RuntimeError, so that no `on_train_end` is called; default False.
    """

    def __init__(self, raise_error: bool = False) -> None:
        self.raise_error = raise_error
        self._before: list[Any] = []

    def on_train_begin(self, logs: Logs | None = None) -> None:
        if self._run is not None:
            self._run.refuses_nonfinite = True

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        self._before = passing_state(self.model) if self._run is not None else []

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        loss, refused = (logs or {}).get("loss"), self._run is not None and self._run.refused
        if not refused and (loss is None or math.isfinite(loss)):
            return
        what = "a gradient is not finite" if loss is None or math.isfinite(loss) else f"the loss is {loss}"
        put_back(self._before)
        found = None
        if self._run is not None and self._run.batch is not None:
            found = find_nonfinite(self.model, *self._run.batch)
        where = "" if found is None else f" First non-finite: {found}."
        if self.raise_error:
            raise RuntimeError(f"TerminateOnNaN: {what} after batch {batch}. Training stops here.{where}")
        message(f"Batch {batch}: {what}, training stops.{where}")
        self.model.stop_training = True

    @property
    def _run(self) -> Any:
        return getattr(self.model, "training_run", None)
