"""A backup of the whole run, from which a run that was killed goes on as if nothing had happened."""

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
    """Keep a backup of the training run while it lasts, and go on from it where there is one.

    A script that was killed is started again, as it is: `fit` finds the backup, takes up the run after the last
    batch or epoch in it, and ends with the same bits as a run that was never stopped: weights, optimizer, history,
    the order of the samples, dropout, and what `EarlyStopping`, `ReduceLROnPlateau`, `ModelCheckpoint` and
    `CSVLogger` remember. (Keras's goes on with a new epoch, new random numbers, and a history of what is left.)
    When `fit` has done all its epochs, the backup is removed.

    The script must make and compile the same model, and call `fit` with the same data and arguments; of `epochs` there
    may be more. Each call of `fit` needs a folder of its own. A generator has to yield the same batches again: those
    that had been read are read and thrown away. A callback or a metric of your own that remembers something says
    what by `get_state` and `set_state`.

    The backup is written into a temporary file, to the disk, and only then takes the place of the one before: whatever
    happens there is a whole one. The first is written before the first step. It comes after all other callbacks,
    wherever it stands in the list.

    Args:
        backup_dir: the folder; it is made where needed, and removed with the backup if nothing else is in it.
        save_freq: "epoch" (default) for a backup after each epoch, or a number of batches, counted through the epochs.
        double_checkpoint: True keeps the backup before the last one too, for a disk that may damage a file; default
            False.
        delete_checkpoint: True (default) removes the backup after the last epoch. False keeps it: another `fit` then
            has nothing to do, or only the epochs that were added.

    Raises:
        ValueError: an argument is none of the above. In `fit`: the backup is damaged, or of another model or data;
            nothing has been changed then.
        OSError: in `fit`: the backup can't be written; the one before is as it was.

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

    comes_last = True  # what it keeps is what the others have come to

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
        self._restored_within = -1  # the epoch that was taken up in its middle

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._batches = 0
        self._restored_within = -1
        make_folder(self.backup_dir, "BackupAndRestore")
        if not self._restore():
            self._write()  # which also finds out whether there is room
        elif self._run.step:
            self._restored_within = self._run.epoch

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        if epoch == self._restored_within:
            self._restored_within = -1
            # Again, as callbacks that change something when an epoch begins did so before, and have now done it twice.
            self._restore()

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.delete_checkpoint:
            for path in (self.previous_path, self.path):  # the newest last, so that at no time there is only an old one
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
        """Go on from the backup, or from the one before if it is missing or damaged; return whether there is one."""
        if os.path.exists(self.path):
            try:
                self._run.restore(self.path, "BackupAndRestore")
                return True
            except TimeoutError:  # an OSError, but of an alarm, and no fault of the backup
                raise
            except (ValueError, OSError) as error:
                if not os.path.exists(self.previous_path):
                    begin_anew = f"{error} To begin anew, remove the folder {self.backup_dir}."
                    raise (ValueError if isinstance(error, ValueError) else OSError)(begin_anew) from error
        elif not os.path.exists(self.previous_path):
            return False
        self._run.restore(self.previous_path, "BackupAndRestore")
        os.replace(self.previous_path, self.path)  # so that the next backup does not put a damaged one in its place
        return True
