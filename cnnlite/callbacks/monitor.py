"""Callbacks that watch one of the values in the logs: to stop in time, to keep the best, to give up."""

from __future__ import annotations

import math
import os
import warnings
from typing import Any

import numpy as np

from cnnlite import metrics
from cnnlite.arguments import integer, number, one_of
from cnnlite.atomic import make_folder
from cnnlite.callbacks.base import Callback
from cnnlite.callbacks.saving import SavingCallback
from cnnlite.forms import COUNT, NUMBER, check_form
from cnnlite.model_files import check_ending
from cnnlite.nonfinite import find_nonfinite, passing_state, put_back
from cnnlite.progress import message
from cnnlite.types import Array, Logs


class Monitor(Callback):
    """The base of callbacks that watch whether one value improves.

    Args:
        monitor: the name of the value in the logs; "val_loss" by default.
        mode: "min" where less is better, "max" where more is, "auto" (default) to go by what the value is.
        min_delta: how much better a value must be to count as better; default 0.

    Raises:
        ValueError: mode is none of the three; in `fit`, "auto" does not know which way the value improves.
    """

    def __init__(self, monitor: str = "val_loss", mode: str = "auto", min_delta: float = 0) -> None:
        self.monitor = monitor
        self.mode = one_of(mode, ("auto", "min", "max"), "mode", type(self).__name__)
        self.min_delta = abs(number(min_delta, "min_delta", type(self).__name__))

    def value(self, logs: Logs | None, consequence: str) -> float | None:
        """Return the value that is watched as a float; warn and return None where the logs don't have it."""
        logs = logs or {}
        if self.monitor in logs:
            return float(logs[self.monitor])
        warnings.warn(
            f"{type(self).__name__}: {self.monitor!r} is not among the values of this epoch, and {consequence}. "
            f"Available: {', '.join(logs) or 'none'}.",
            stacklevel=4,
        )
        return None

    def improves(self, value: float, best: float | None) -> bool:
        """Return whether `value` is better than `best` by more than `min_delta`; a NaN never is."""
        if math.isnan(value):
            return False
        if best is None:
            return True
        if self._more_is_better():
            return value - self.min_delta > best
        return value + self.min_delta < best

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        if any(metric.name == self.monitor.removeprefix("val_") for metric in model.metrics):
            self._more_is_better()  # a direction that is not known is found before training, not after an epoch

    def _more_is_better(self) -> bool:
        if self.mode != "auto":
            return self.mode == "max"
        direction = direction_of(self.monitor.removeprefix("val_"), self.model)
        if direction is None:
            raise ValueError(
                f"{type(self).__name__}: it must be known whether more or less of {self.monitor!r} is better. "
                "Pass mode='max' or mode='min'."
            )
        return direction == "up"


def direction_of(name: str, model: Any) -> str | None:
    """Return "up" or "down", which way the loss or the metric of that name improves, or None."""
    if name == "loss":
        return "down"
    for metric in model.metrics:
        if metric.name == name:
            kinds = (("down", _LESS_IS_BETTER), ("up", _MORE_IS_BETTER))
            found = [direction for direction, classes in kinds if isinstance(metric, classes)]
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
        min_delta: how much better it must be to count as better; default 0.
        patience: how many epochs in a row without improvement end the training; 0 (default) is taken as 1.
        verbose: 1 says so; default 0.
        mode: "min", "max" or "auto" (default); see `Monitor`.
        baseline: the value must also be better than this for an epoch to count as an improvement; None (default)
            asks for nothing more.
        restore_best_weights: True puts back the weights of the best epoch at the end of training; default False.
        start_from_epoch: the first epoch that is looked at, from 0 (default).

    Raises:
        ValueError: as for `Monitor`, or patience is negative.
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
        self.baseline = baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = start_from_epoch
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
            raise ValueError("the best weights of EarlyStopping must have the shapes of the model's")
        self.wait, self.stopped_epoch = state["wait"], state["stopped_epoch"]
        self.best, self.best_epoch, self.best_weights = state["best"], state["best_epoch"], state["best_weights"]

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._forget()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        value = self.value(logs, "training won't stop early")
        if value is None or epoch < self.start_from_epoch:
            return
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
                message(f"Restoring the weights of the best epoch, {self.best_epoch + 1}.")
            self.model.set_weights(self.best_weights)


class ModelCheckpoint(Monitor, SavingCallback):
    """Save the model, or its weights, after each epoch or after so many batches.

    Args:
        filepath: where to. It may contain `{epoch}`, which counts from 1, and the names of values in the logs,
            each with a format: "model-{epoch:02d}-{val_loss:.2f}.safetensors". Folders are made where needed.
        monitor: the name of the value that `save_best_only` goes by; "val_loss" by default.
        verbose: 1 says what was saved and why; default 0.
        save_best_only: True saves only when the value is better than all before; default False.
        save_weights_only: True calls `model.save_weights`, False (default) `model.save`.
        mode: "min", "max" or "auto" (default); see `Monitor`.
        save_freq: "epoch" (default), or a number of batches, counted through the epochs.
        initial_value_threshold: a value that the first to be saved must be better than; None by default.

    Raises:
        ValueError: `filepath` ends like a file of another format, or names a value that there is not.
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        Monitor.__init__(self, monitor, mode)
        self.filepath = os.fspath(filepath)
        check_ending(self.filepath, "ModelCheckpoint")  # now, not after the first epoch
        SavingCallback.__init__(self, save_freq, "ModelCheckpoint")
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        self.best = initial_value_threshold

    def get_state(self) -> dict[str, Any]:
        return {"best": self.best, "batches": self._batches}

    def set_state(self, state: dict[str, Any]) -> None:
        check_form(state, {"best": (NUMBER, None), "batches": COUNT}, "the state of ModelCheckpoint")
        self.best, self._batches = state["best"], state["batches"]

    def _save(self, epoch: int, logs: Logs) -> None:
        path = self._path(epoch, logs)
        reason = ""
        if self.save_best_only:
            value = self.value(logs, "the model is saved whether it is the best or not")
            if value is not None:
                if not self.improves(value, self.best):
                    if self.verbose:
                        message(f"Epoch {epoch + 1}: {self.monitor} did not improve from {self.best:.5g}")
                    return
                before = "" if self.best is None else f" from {self.best:.5g}"
                reason = f"{self.monitor} improved{before} to {value:.5g}, "
                self.best = value
        if self.verbose:
            message(f"Epoch {epoch + 1}: {reason}saving to {path}")
        make_folder(os.path.dirname(path) or ".", "ModelCheckpoint")
        if self.save_weights_only:
            self.model.save_weights(path)
        else:
            self.model.save(path)

    def _path(self, epoch: int, logs: Logs) -> str:
        try:
            return self.filepath.format(epoch=epoch + 1, **logs)
        except (KeyError, IndexError):
            raise ValueError(
                "ModelCheckpoint: filepath may name the epoch and values of the logs only. Received: "
                f"filepath={self.filepath!r}. Available: {', '.join(['epoch', *logs])}."
            ) from None


class TerminateOnNaN(Callback):
    """Stop training as soon as the loss or a gradient is a NaN or infinite, and say which layer it comes from.

    The step in which that happens is not made: the weights, the moving averages and the random states are those
    before it. (Keras makes the step, which leaves no weight of use.) The message names the first layer of which a
    weight, the output or a gradient was not finite; see `cnnlite.utils.find_nonfinite`.

    Args:
        raise_error: True raises a RuntimeError, and nothing else is done at the end of training; default False.
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
        where = "" if found is None else f" First of all, {found}."
        if self.raise_error:
            raise RuntimeError(f"TerminateOnNaN: {what} after batch {batch}. Training stops here.{where}")
        message(f"Batch {batch}: {what}, training stops.{where}")
        self.model.stop_training = True

    @property
    def _run(self) -> Any:
        return getattr(self.model, "training_run", None)
