"""A callback that saves the model, or its weights, while it trains."""

from __future__ import annotations

import os
import re
import string
from typing import Any

from cnnlite.callbacks.base import LambdaCallback
from cnnlite.callbacks.monitor import Monitor, shape_of_result, threshold
from cnnlite.callbacks.saving import SavingCallback
from cnnlite.files.atomic_write import make_folder
from cnnlite.files.model_files import check_ending, check_path_to_write, file_path
from cnnlite.support.printing import message
from cnnlite.support.schema import COUNT, NUMBER, check_form
from cnnlite.types import Logs

_WRONG_FORMAT = (KeyError, IndexError, ValueError, TypeError, AttributeError, OverflowError, MemoryError)


class ModelCheckpoint(Monitor, SavingCallback):
    """Save the model, or its weights, after each epoch or every so many batches.

    Args:
        filepath: where to save. It may contain `{epoch}` and, with save_freq=n, `{batch}`, which count from 1, and
            names of values in the logs, all with a format: "model-{epoch:02d}-{val_loss:.2f}.safetensors". Folders
            are created as needed.
        monitor: the name of the value that `save_best_only` compares; "val_loss" by default.
        verbose: 1 prints what was saved and why; default 0.
        save_best_only: True saves only when the value is better than ever before; default False.
        save_weights_only: True calls `model.save_weights`, False (default) `model.save`.
        mode: "min", "max" or "auto" (default); see `Monitor`.
        save_freq: "epoch" (default), or a number of batches, counted across epochs.
        initial_value_threshold: a value that even the first save must improve on; None by default.

    Raises:
        TypeError: as for `Monitor`, or an argument has the wrong type.
        ValueError: as for `Monitor` if `save_best_only` is set; `filepath` has the extension of another file format,
            or a format that does not fit its value; when training begins, it names a value that won't exist.
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
        # Whatever can be checked is checked now, not after the first epoch.
        self.filepath = file_path(filepath, "filepath", "ModelCheckpoint")
        check_ending(self.filepath, "ModelCheckpoint")
        if not os.path.basename(self.filepath):
            raise ValueError(
                f"ModelCheckpoint: filepath must be the name of a file. Received: filepath={self.filepath!r}, a folder."
            )
        SavingCallback.__init__(self, save_freq, "ModelCheckpoint")
        self._fields = self._checked_fields()
        self._names = {name for name, _ in self._fields}
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        self.best = threshold(initial_value_threshold, "initial_value_threshold", "ModelCheckpoint")

    def on_train_begin(self, logs: Logs | None = None) -> None:
        if self.save_best_only:
            super().on_train_begin(logs)
        names = self._names_to_come()
        if names is not None and not self._names <= names:
            raise self._error(f"Available: {', '.join(sorted(names))}")
        results = {metric.name: metric.result() for metric in self.model.metrics
                   if _is_of_cnnlite(metric) or shape_of_result(metric)}  # a user's scalar may become a string
        for name, field in self._fields:
            metric = name.removeprefix("val_")
            if metric in results:
                self._check_format(field, name, [results[metric]])
        if not self._names and os.path.isdir(os.path.dirname(self.filepath) or "."):
            check_path_to_write(self.filepath, "ModelCheckpoint", overwrite=True)

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
                before = "" if self.best is None else f" from {self.best:.5g}"
                if not self.improves(value, self.best):
                    if self.verbose:
                        message(f"Epoch {epoch + 1}: {self.monitor} did not improve{before}")
                    return
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
        values = {"batch": self._batch + 1, **logs} if self.save_freq != "epoch" else logs
        try:
            return self.filepath.format(**{**values, "epoch": epoch + 1})
        except _WRONG_FORMAT as error:
            raise self._error(f"Available: {', '.join(['epoch', *values])} ({error})") from None

    def _error(self, reason: str) -> ValueError:
        return ValueError(
            "ModelCheckpoint: filepath may name only the epoch and values of the logs, each with a format that fits "
            f"it. Received: filepath={self.filepath!r}. {reason}."
        )

    def _checked_fields(self) -> list[tuple[str, str]]:
        """Return [(name, "{name:format}"), ...], each with a format that fits the value, as far as it is known."""
        fields = []
        try:
            parts = list(string.Formatter().parse(self.filepath))
        except ValueError as error:
            raise self._error(f"What is wrong: {error}") from None
        for _, field, form, conversion in parts:
            if field is not None:
                name = re.split(r"[.\[]", field)[0]
                values = [1] if name in ("epoch", "batch") else [0.5] if name in ("loss", "val_loss") else [0.5, 1, ""]
                text = f"{{{field}{'!' + conversion if conversion else ''}{':' + form if form else ''}}}"
                self._check_format(text, name, values)
                fields.append((name, text))
        return fields

    def _check_format(self, field: str, name: str, values: list[Any]) -> None:
        """Raise a ValueError unless one of the values can be written into that field."""
        reasons = []
        for value in values:
            try:
                field.format(**{name: value, "epoch": 1})
                return
            except _WRONG_FORMAT as error:
                reason = f"there is no {error}" if isinstance(error, KeyError) else str(error)
                reasons.append(reason or "the result is too long")
        raise self._error(f"What is wrong: {reasons[0]}")

    def _names_to_come(self) -> set[str] | None:
        """Return the names that the logs will have; None if a callback from outside cnnlite may add some."""
        run = getattr(self.model, "training_run", None)
        if run is None or any(
            isinstance(callback, LambdaCallback) or not _is_of_cnnlite(callback)
            for callback in run.callbacks.flat()
        ):
            return None
        names = {"epoch", *self.model.metrics_names}
        if self.save_freq != "epoch":
            return names | {"batch"}
        if run.validation is not None:
            names |= {f"val_{name}" for name in self.model.metrics_names}
        for callback in run.callbacks.flat():
            names.update(getattr(callback, "adds_to_logs", ()))
        return names


def _is_of_cnnlite(thing: Any) -> bool:
    return type(thing).__module__.startswith("cnnlite.")
