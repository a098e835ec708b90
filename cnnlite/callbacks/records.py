"""Callbacks that write down what happened: `History` in memory, `CSVLogger` in a file."""

from __future__ import annotations

import csv
import os
from typing import Any

from cnnlite.callbacks.base import Callback
from cnnlite.forms import COUNT, check_form
from cnnlite.types import Logs

LONGEST_HEADER = 2**16  # of a CSV file, in characters


class History(Callback):
    """What `fit` returns: the loss and the metrics of each epoch.

    Attributes:
        history: {"loss": [...], "accuracy": [...], "val_loss": [...]}, one entry an epoch.
        epoch: the numbers of the epochs, from 0.
        params: {"verbose", "epochs", "steps"} of the call.
        model: the model that was trained.
    """

    def __init__(self) -> None:
        self.history: dict[str, list[Any]] = {}
        self.epoch: list[int] = []

    def on_train_begin(self, logs: Logs | None = None) -> None:
        # Set at once and not at the end, so that an interrupted run leaves what it has.
        self.model.history = self

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)

    def get_state(self) -> dict[str, Any]:
        return {"history": self.history, "epoch": self.epoch}

    def set_state(self, state: dict[str, Any]) -> None:
        check_form(state, {"history": {str: [object]}, "epoch": [COUNT]}, "the history")
        self.history, self.epoch = state["history"], state["epoch"]


class CSVLogger(Callback):
    """Write one row an epoch to a CSV file: the epoch from 0, then the loss and the metrics by name.

    Each row is on the disk when its epoch ends. A value that an epoch does not have is "NA".

    Args:
        filename: where to.
        separator: what stands between two values; "," by default.
        append: True goes on at the end of a file that exists, under its header, for a run that is resumed; default
            False.

    Raises:
        ValueError: when training begins, `append` is True and the file is none that this callback wrote.
    """

    def __init__(self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False) -> None:
        self.filename = os.fspath(filename)
        self.separator = separator
        self.append = append
        self._columns: list[str] | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._columns = None
        if self.append and os.path.exists(self.filename):
            self._columns = self._read_columns()
        # Opened now, so that a folder that does not exist is found before an epoch has been paid for; emptied at the
        # first row, as a run that is resumed goes on in its file.
        with open(self.filename, "a", encoding="utf-8"):
            pass

    def _read_columns(self) -> list[str] | None:
        """Return the header of the file, or None if it is empty."""
        if not os.path.isfile(self.filename):
            raise ValueError(f"CSVLogger: {self.filename} is no file, and can't be appended to.")
        try:
            with open(self.filename, newline="", encoding="utf-8") as file:
                line = file.readline(LONGEST_HEADER)
            header = next(csv.reader([line], delimiter=self.separator, strict=True), [])
        except (ValueError, csv.Error) as error:
            raise ValueError(f"CSVLogger: {self.filename} is no CSV file to append to: {error}.") from None
        if line and (len(line) == LONGEST_HEADER or "epoch" not in header):
            raise ValueError(
                f"CSVLogger: {self.filename} does not begin with a header that names the epoch, and can't be appended "
                "to. Pass append=False to write a new one."
            )
        return header or None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        logs = logs or {}
        new = self._columns is None
        if self._columns is None:
            names = sorted(logs)
            if not any(name.startswith("val_") for name in names):
                # Validation may come in a later epoch only (validation_freq), and a header can't grow.
                names += [f"val_{name}" for name in names]
            self._columns = ["epoch", *names]
        with open(self.filename, "a" if self.append or not new else "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(
                file, self._columns, restval="NA", extrasaction="ignore", delimiter=self.separator
            )
            if new:
                writer.writeheader()
            writer.writerow({"epoch": epoch, **logs})

    def get_state(self) -> dict[str, Any]:
        size = os.path.getsize(self.filename) if os.path.exists(self.filename) else 0
        return {"columns": self._columns, "size": size}

    def set_state(self, state: dict[str, Any]) -> None:
        check_form(state, {"columns": ([str], None), "size": COUNT}, "the state of CSVLogger")
        # What was written after the backup comes again. A file that has been replaced meanwhile stays as it is.
        if os.path.getsize(self.filename) >= state["size"]:
            os.truncate(self.filename, state["size"])
            self._columns = state["columns"]
