"""A backup of the whole run, from which a killed run resumes as if nothing had happened."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from cnnlite.callbacks.saving import SavingCallback
from cnnlite.files.atomic_write import make_folder, remove_leftovers
from cnnlite.files.model_files import file_path
from cnnlite.support.arguments import boolean
from cnnlite.types import Logs


class BackupAndRestore(SavingCallback):
    """Back up a training run while it lasts, and resume from the backup if there is one.

    If a script was killed, just start it again: `fit` finds the backup, resumes after the last batch or epoch in
    it, and ends with the same bits as a run that was never stopped: weights, optimizer, history, the order of the
    samples, dropout, and what `EarlyStopping`, `ReduceLROnPlateau`, `ModelCheckpoint` and `CSVLogger` remember.
    (Keras's resumes with a new epoch, new random numbers, and a history of the remaining epochs.) When `fit` has
    done all its epochs, the backup is removed.

    The script must make and compile the same model, and call `fit` with the same data and arguments; only `epochs`
    may be larger. Every call of `fit` needs its own folder. A generator must yield the same batches again: those
    already read are read again and discarded. A callback or a metric of your own that remembers something saves it
    through `get_state` and `set_state`.

    The backup is written to a temporary file, flushed to disk, and only then replaces the previous one, so there is
    always a complete one. The first is written before the first step. This callback runs after all others, wherever
    it is in the list.

    Args:
        backup_dir: the folder; it is created if needed, and removed with the backup if nothing else is in it.
        save_freq: "epoch" (default) for a backup after each epoch, or a number of batches, counted across epochs.
        double_checkpoint: True keeps the previous backup too, in case the disk damages the last one; default False.
        delete_checkpoint: True (default) removes the backup after the last epoch. False keeps it: another `fit` then
            has nothing to do, or only the added epochs.

    Raises:
        ValueError: an argument is invalid. In `fit`: the backup is damaged, or belongs to another model or data;
            nothing has been changed then.
        OSError: in `fit`: the backup can't be written; the previous one is intact.

    Example:

    >>> import tempfile
    >>> import numpy as np
    >>> import cnnlite
    >>> folder = tempfile.mkdtemp()
    >>> x, y = np.arange(12.0).reshape(6, 2), np.ones((6, 1))
    >>> def train(*callbacks):
    ...     cnnlite.utils.set_random_seed(0)
    ...     model = cnnlite.Sequential([cnnlite.Input(shape=(2,)), cnnlite.layers.Dense(1)])
    ...     model.compile(cnnlite.optimizers.SGD(0.001), "mse")
    ...     backup = cnnlite.callbacks.BackupAndRestore(folder)
    ...     return model.fit(x, y, epochs=5, verbose=0, callbacks=[backup, *callbacks])
    >>> class Crash(cnnlite.callbacks.Callback):
    ...     def on_epoch_begin(self, epoch, logs=None):
    ...         if epoch == 3:
    ...             raise RuntimeError
    >>> try:
    ...     train(Crash())
    ... except RuntimeError:
    ...     history = train()  # makes the epochs 3 and 4
    >>> history.epoch
    [0, 1, 2, 3, 4]
    """

    comes_last = True  # so that it saves the others in their final state

    def __init__(
        self,
        backup_dir: str | os.PathLike[str],
        save_freq: str | int = "epoch",
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
    ) -> None:
        self.backup_dir = file_path(backup_dir, "backup_dir", "BackupAndRestore", kind="folder")
        super().__init__(save_freq, "BackupAndRestore")
        self.double_checkpoint = boolean(double_checkpoint, "double_checkpoint", "BackupAndRestore")
        self.delete_checkpoint = boolean(delete_checkpoint, "delete_checkpoint", "BackupAndRestore")
        self.path = os.path.join(self.backup_dir, "backup.safetensors")
        self.previous_path = os.path.join(self.backup_dir, "backup.previous.safetensors")
        self._restored_within = -1  # the epoch that was resumed midway

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._batches = 0
        self._restored_within = -1
        make_folder(self.backup_dir, "BackupAndRestore")
        if not self._restore():
            self._write()  # which also checks that there is room
        elif self._run.step:
            self._restored_within = self._run.epoch

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        if epoch == self._restored_within:
            self._restored_within = -1
            # Again, since callbacks that change something when an epoch begins have now done so twice.
            self._restore()

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.delete_checkpoint:
            for path in (self.previous_path, self.path):  # the newest last, so that an old one is never alone
                with contextlib.suppress(FileNotFoundError):
                    os.remove(path)
            with contextlib.suppress(OSError):
                remove_leftovers(self.backup_dir)
                os.rmdir(self.backup_dir)

    @property
    def _run(self) -> Any:
        return self.model.training_run

    def _save(self, epoch: int, logs: Logs) -> None:
        self._write()

    def _write(self) -> None:
        if self.double_checkpoint and os.path.exists(self.path):
            os.replace(self.path, self.previous_path)
        self._run.save(self.path, "BackupAndRestore")

    def _restore(self) -> bool:
        """Resume from the backup, or from the previous one if it is missing or damaged; return whether there is one."""
        if os.path.exists(self.path):
            try:
                self._run.restore(self.path, "BackupAndRestore")
                return True
            except TimeoutError:  # an OSError, but raised by an alarm, not by the backup
                raise
            except (ValueError, OSError) as error:
                if not os.path.exists(self.previous_path):
                    begin_anew = f"{error} To start over, remove the folder {self.backup_dir}."
                    raise (ValueError if isinstance(error, ValueError) else OSError)(begin_anew) from error
        elif not os.path.exists(self.previous_path):
            return False
        self._run.restore(self.previous_path, "BackupAndRestore")
        os.replace(self.previous_path, self.path)  # so that the next backup doesn't replace it with a damaged one
        return True
