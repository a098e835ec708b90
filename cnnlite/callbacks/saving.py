"""What callbacks that write model files have in common: when they write."""

from __future__ import annotations

from cnnlite.callbacks.base import Callback
from cnnlite.support.arguments import integer
from cnnlite.types import Logs


class SavingCallback(Callback):
    """The base class of callbacks that save after each epoch or every so many batches; a subclass defines `_save`.

    Args:
        save_freq: "epoch", or a number of batches, counted across epochs.
        owner: the name of the callback, for errors.
    """

    def __init__(self, save_freq: str | int, owner: str) -> None:
        self.save_freq = save_freq if save_freq == "epoch" else integer(save_freq, "save_freq", owner)
        self._epoch = self._batch = 0
        self._batches = 0  # since the last save

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if isinstance(self.save_freq, str):
            return
        self._batch = batch
        self._batches += 1
        # Not ==: the count may come from an earlier run, which saved less often.
        if self._batches >= self.save_freq:
            self._batches = 0
            self._save(self._epoch, logs or {})

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.save_freq == "epoch":
            self._save(epoch, logs or {})

    def _save(self, epoch: int, logs: Logs) -> None:
        """Save the model as it is now, in that epoch, with these values of the loss and the metrics."""
        raise NotImplementedError(f"{type(self).__name__} must define _save(epoch, logs).")
