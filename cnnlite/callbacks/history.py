"""Callbacks that record what happened: `History` in memory, `CSVLogger` in a file."""

from __future__ import annotations

import csv
import os
import warnings
from typing import Any

from cnnlite.callbacks.base import Callback
from cnnlite.files.model_files import file_path
from cnnlite.support.schema import COUNT, check_form
from cnnlite.types import Logs

LONGEST_HEADER = 2**16  # of a CSV file, in characters
HISTORY_FORM = {"history": {str: [object]}, "epoch": [COUNT]}


class History(Callback):
    """What `fit` returns: the loss and the metrics of each epoch.

    Attributes:
        history: {"loss": [...], "accuracy": [...], "val_loss": [...]}, one entry per epoch.
        epoch: the epoch numbers, from 0.
        params: {"verbose", "epochs", "steps"} of the call.
        model: the model that was trained.
    """

    def __init__(self) -> None:
        self.history: dict[str, list[Any]] = {}
        self.epoch: list[int] = []

    def on_train_begin(self, logs: Logs | None = None) -> None:
        # Set now rather than at the end, so that an interrupted run keeps what it has.
        self.model.history = self

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)

    def get_state(self) -> dict[str, Any]:
        return {"history": self.history, "epoch": self.epoch}

    def set_state(self, state: dict[str, Any]) -> None:
        check_form(state, HISTORY_FORM, "the history")
        self.history, self.epoch = state["history"], state["epoch"]


class CSVLogger(Callback):
    """Write one row per epoch to a CSV file: the epoch from 0, then the loss and the metrics by name.

    Every row is on disk when its epoch ends. A value that an epoch does not have is written as "NA".

    Args:
        filename: the file to write.
        separator: the character between two values; "," by default.
        append: True continues an existing file, under its header, for a resumed run; a value without a column is left
            out, with a warning. Default False.

    Raises:
        TypeError: filename is not a path, or separator not a string.
        ValueError: separator is not a single character, or is one that CSV reserves; when training begins, `append` is
            True and the file is not one that this callback wrote.
    """

    def __init__(self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False) -> None:
        self.filename = file_path(filename, "filename", "CSVLogger")
        if not isinstance(separator, str):
            raise TypeError(f"CSVLogger: separator must be a string. Received: separator={separator!r}.")
        if len(separator) != 1 or separator in '"\r\n\0':
            raise ValueError(
                "CSVLogger: separator must be one character, other than a quotation mark or a line end. "
                f"Received: separator={separator!r}."
            )
        self.separator = separator
        self.append = append
        self._forget()

    def _forget(self) -> None:
        self._columns: list[str] | None = None
        self._line_end = "\r\n"
        self._has_warned = False
        self._size: int | None = None  # the size to truncate the file to before the next write

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._forget()
        if self.append and os.path.exists(self.filename):
            self._columns = self._read_columns()
        # Opened now, so that a missing folder is noticed before an epoch has been spent; emptied only at the first row,
        # since a resumed run continues its file.
        with open(self.filename, "a", encoding="utf-8"):
            pass

    def _read_columns(self) -> list[str] | None:
        """Return the header of the file, or None if it is empty; adopt its line ends."""
        if not os.path.isfile(self.filename):
            raise ValueError(f"CSVLogger: {self.filename} is not a file and can't be appended to.")
        try:
            with open(self.filename, newline="", encoding="utf-8-sig") as file:  # Excel writes a byte order mark
                line = file.readline(LONGEST_HEADER)
            header = next(csv.reader([line], delimiter=self.separator, strict=True), [])
        except (ValueError, csv.Error) as error:
            raise ValueError(f"CSVLogger: {self.filename} is not a CSV file to append to: {error}.") from None
        if line and (len(line) == LONGEST_HEADER or "epoch" not in header):
            between = next((other for other in ",;\t|" if "epoch" in line.rstrip().split(other)), self.separator)
            remedy = "append=False to write a new one" if between == self.separator else f"separator={between!r}"
            raise ValueError(
                f"CSVLogger: {self.filename} does not begin with a header that names the epoch, and can't be appended "
                f"to with separator={self.separator!r}. Pass {remedy}."
            )
        if _ends_within_quotes(self.filename):
            raise ValueError(
                f"CSVLogger: {self.filename} ends within a quoted value, and can't be appended to. Complete its last "
                "line, or pass append=False to write a new one."
            )
        self._line_end = line[len(line.rstrip("\r\n")):] or self._line_end
        return header or None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        logs = logs or {}
        self._cut()
        # A file that has been moved away is started afresh.
        new = self._columns is None or not os.path.exists(self.filename)
        if self._columns is None:
            names = sorted(logs)
            if not any(name.startswith("val_") for name in names):
                # Validation may first run in a later epoch (validation_freq), and a header can't grow.
                names += [f"val_{name}" for name in names]
            self._columns = ["epoch", *names]
        left_out = [name for name in logs if name not in self._columns]
        if left_out and self.append and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"CSVLogger: the header of {self.filename} has no column for {', '.join(left_out)}, which is left out. "
                "Pass append=False, or the name of another file.",
                stacklevel=4,
            )
        # Checked before every row: a killed process may have left half a line, or an editor no final line end.
        torn = not new and not _ends_with_a_line(self.filename)
        with open(self.filename, "a" if self.append or not new else "w", newline="", encoding="utf-8") as file:
            if torn:
                file.write(self._line_end)
            writer = csv.DictWriter(
                file, self._columns, restval="NA", extrasaction="ignore", delimiter=self.separator,
                lineterminator=self._line_end,
            )
            if new:
                writer.writeheader()
            writer.writerow({"epoch": epoch, **logs})

    def on_train_end(self, logs: Logs | None = None) -> None:
        self._cut()

    def get_state(self) -> dict[str, Any]:
        size = self._size
        if size is None:
            size = os.path.getsize(self.filename) if os.path.exists(self.filename) else 0
        return {"columns": self._columns, "size": size}

    def set_state(self, state: dict[str, Any]) -> None:
        check_form(state, {"columns": ([str], None), "size": COUNT}, "the state of CSVLogger")
        # Rows written after the backup will be written again. A file that has been replaced since is left alone.
        if os.path.getsize(self.filename) >= state["size"]:
            self._size, self._columns = state["size"], state["columns"]

    def _cut(self) -> None:
        """Cut off the rows that will be written again; not in `set_state`, since the backup may still be refused."""
        if self._size is not None:
            if os.path.exists(self.filename) and os.path.getsize(self.filename) > self._size:
                os.truncate(self.filename, self._size)
            self._size = None


def _ends_with_a_line(path: str) -> bool:
    """Return whether a file is empty or ends with a line end."""
    with open(path, "rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read() in (b"\n", b"\r")


def _ends_within_quotes(path: str) -> bool:
    """Return whether a quoted value is still open at the end of a CSV file."""
    with open(path, "rb") as file:
        return sum(block.count(b'"') for block in iter(lambda: file.read(2**20), b"")) % 2 == 1
