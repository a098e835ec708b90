"""The file of a backup: damaged, cut short by a full disk, of another model or other data, or asked for in vain."""

import os

import numpy as np
import pytest

from cnnlite.callbacks import BackupAndRestore, Callback
from tests.helpers.models import fit, make_data, make_model
from tests.helpers.runs import Crash, CrashAt, endless, everything


def crashed(folder, **arguments):
    model = make_model(optimizer="adam", batchnorm=True)
    crash = CrashAt("on_epoch_begin", 2)
    with pytest.raises(Crash):
        fit(model, *make_data(), epochs=4, callbacks=[BackupAndRestore(folder, **arguments), crash])


def resumed(folder, **arguments):
    model = make_model(optimizer="adam", batchnorm=True)
    fit(model, *make_data(), epochs=4, callbacks=[BackupAndRestore(folder, **arguments)])
    return everything(model)


@pytest.mark.parametrize("damage", [
    lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x55"),
    lambda path: path.write_bytes(path.read_bytes()[:1000]),
    lambda path: path.write_bytes(b""),
    lambda path: path.unlink(),
])
def test_the_backup_before_the_last_one_helps_out(tmp_path, damage):
    expected = resumed(tmp_path / "none")
    crashed(tmp_path, double_checkpoint=True)
    assert {path.name for path in tmp_path.iterdir()} == {"backup.safetensors", "backup.previous.safetensors"}
    damage(tmp_path / "backup.safetensors")
    assert resumed(tmp_path, double_checkpoint=True) == expected
    assert not tmp_path.exists()


@pytest.mark.parametrize("double_checkpoint", [False, True])
def test_a_disk_that_gets_full_ends_the_run_and_not_its_backup(tmp_path, monkeypatch, double_checkpoint):
    expected = resumed(tmp_path / "none")
    fsync, left = os.fsync, [0]

    def full(descriptor):
        left[0] -= 1
        if left[0] == 0:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    for number in range(1, 12, 2):  # of the fsyncs of files and folders in turns, those of files
        left[0] = number
        folder = tmp_path / str(number)
        if number == 11:  # the fifth backup is the last
            assert resumed(folder, double_checkpoint=double_checkpoint) == expected
            break
        with pytest.raises(OSError, match=r"BackupAndRestore: .* can't be written: No space left on device"):
            resumed(folder, double_checkpoint=double_checkpoint)
        left[0] = 0
        assert resumed(folder, double_checkpoint=double_checkpoint) == expected
        assert not folder.exists()


def test_a_damaged_backup_is_said_to_be_one_and_the_model_is_as_it_was(tmp_path):
    crashed(tmp_path)
    path = tmp_path / "backup.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    model = make_model(optimizer="adam", batchnorm=True)
    before = [array.copy() for array in model.get_weights()]
    with pytest.raises(ValueError, match=r"BackupAndRestore: .*is damaged.* To start over, remove the folder"):
        fit(model, *make_data(), callbacks=[BackupAndRestore(tmp_path)])
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert model.training_run is None


@pytest.mark.parametrize(("change", "message"), [
    (lambda: make_model(optimizer="adam"), "has batch_norm"),
    (lambda: make_model(optimizer="sgd", batchnorm=True), "another model, optimizer or data: SGD: the state must hold"),
    (lambda: make_model(optimizer="adam", batchnorm=True, metrics=["crossentropy"]), "sums of the metrics accuracy"),
])
def test_the_backup_of_another_model_is_refused_and_changes_nothing(tmp_path, change, message):
    model = make_model(optimizer="adam", batchnorm=True)
    with pytest.raises(Crash):
        fit(model, *make_data(), callbacks=[BackupAndRestore(tmp_path, 1), CrashAt("on_train_batch_begin", 1)])
    other = change()
    before = other.get_weights(), other.optimizer.iterations
    with pytest.raises(ValueError, match=message):
        fit(other, *make_data(), callbacks=[BackupAndRestore(tmp_path, 1)])
    assert all(np.array_equal(a, b) for a, b in zip(before[0], other.get_weights(), strict=True))
    assert other.optimizer.iterations == before[1]


@pytest.mark.parametrize(("arguments", "message"), [
    ({"batch_size": 7}, "batch_size=7, samples=50, but had batch_size=10, samples=50"),
    ({"batch_size": 10, "shuffle": False}, "the data are not shuffled, unlike before"),
])
def test_other_data_are_refused_in_the_middle_of_an_epoch_alone(tmp_path, arguments, message):
    def crash(folder, save_freq):
        with pytest.raises(Crash):
            fit(make_model(), *make_data(), batch_size=10, epochs=3, callbacks=[
                BackupAndRestore(folder, save_freq), CrashAt("on_train_batch_begin", 8)
            ])

    crash(tmp_path / "within", 1)
    with pytest.raises(ValueError, match=message):
        fit(make_model(), *make_data(), epochs=3, callbacks=[BackupAndRestore(tmp_path / "within", 1)], **arguments)
    crash(tmp_path / "between", "epoch")
    model = make_model()
    fit(model, *make_data(), epochs=3, callbacks=[BackupAndRestore(tmp_path / "between")], **arguments)
    assert model.history.epoch == [0, 1, 2]


def test_a_generator_that_is_too_short_is_said_to_be(tmp_path):
    x, y = make_data()
    with pytest.raises(Crash):
        make_model().fit(endless(x, y), steps_per_epoch=5, verbose=0, callbacks=[
            BackupAndRestore(tmp_path, 1), CrashAt("on_train_batch_begin", 4)
        ])
    with pytest.raises(ValueError, match="x ends before the 4 batches"):
        make_model().fit(iter([(x, y)] * 2), steps_per_epoch=5, callbacks=[BackupAndRestore(tmp_path, 1)], verbose=0)


def test_the_file_of_a_model_is_no_backup(tmp_path):
    make_model().save(tmp_path / "backup.safetensors")
    with pytest.raises(ValueError, match="is not the backup of a run"):
        fit(make_model(), *make_data(), callbacks=[BackupAndRestore(tmp_path)])


def test_what_can_not_be_written_is_named(tmp_path):
    class Odd(Callback):
        def get_state(self):
            return {"lock": object()}

    with pytest.raises(ValueError, match=r"run/callbacks/Odd 1/lock is of type object.*get_state"):
        fit(make_model(), *make_data(), callbacks=[BackupAndRestore(tmp_path), Odd()])


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({"backup_dir": ""}, ValueError, "backup_dir must be the name of a folder"),
    ({"backup_dir": None}, TypeError, "backup_dir must be a string or a path. Received: backup_dir=None"),
    ({"backup_dir": "a\0b"}, ValueError, "backup_dir must be the name of a folder"),
    ({"backup_dir": "a", "save_freq": 0}, ValueError, "save_freq must be at least 1"),
    ({"backup_dir": "a", "save_freq": "batch"}, TypeError, "save_freq must be an integer"),
    ({"backup_dir": "a", "double_checkpoint": 2}, TypeError, "double_checkpoint"),
])
def test_arguments_that_are_wrong_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        BackupAndRestore(**arguments)
