"""Files are replaced whole or not at all: full disks, read-only folders, kills at each step and at any moment."""

import errno
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time

import pytest

import cnnlite
from cnnlite import callbacks
from cnnlite.files import atomic_write as atomic
from tests.helpers.models import dense_model, fit, make_data, make_model

posix = pytest.mark.skipif(os.name == "nt", reason="signals, limits and locks of POSIX")
LEFTOVER = "cnnlite-0123456789abcdef.tmp"

# A process of its own, with no more of the library than the one file, so that it starts in some 50 ms.
KILLED = f"""
import importlib.util, os, signal, sys
spec = importlib.util.spec_from_file_location("atomic", {atomic.__file__!r})
atomic = importlib.util.module_from_spec(spec)
spec.loader.exec_module(atomic)
"""
KILLED_AT = KILLED + """
path, step, when = sys.argv[1:]
module = atomic.shutil if step == "copymode" else atomic if step == "_open_locked" else os
original = getattr(module, step)
def killed(*arguments):
    if when == "after":
        original(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(module, step, killed)
atomic.replace_file(path, b"new" * 100000, "save")
"""
WRITES_FOREVER = KILLED + """
print("ready", flush=True)
while True:
    for letter in b"ab":
        atomic.replace_file(sys.argv[1], bytes([letter]) * 1000000, "save")
"""


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def python(program, *arguments, **options):
    return subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], **options)


@posix
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["_open_locked", "copymode", "fsync", "replace"])
def test_a_kill_at_any_step_leaves_the_old_file_or_the_new_one(path, step, when):
    path.write_bytes(b"old")
    assert python(KILLED_AT, path, step, when).wait() == -signal.SIGKILL
    done = (step, when) == ("replace", "after")
    assert path.read_bytes() == (b"new" * 100000 if done else b"old")
    # What the dead writer left is taken away by the next one, whatever that writes.
    assert len(names(path.parent)) == (1 if done or (step, when) == ("_open_locked", "before") else 2)
    atomic.replace_file(path.parent / "other", b"", "save")
    assert names(path.parent) == [path.name, "other"]


@posix
def test_a_kill_at_a_random_moment_leaves_a_whole_file_and_no_heap_of_others(path):
    generator = random.Random(0)
    for _ in range(8):
        writer = python(WRITES_FOREVER, path, stdout=subprocess.PIPE)
        writer.stdout.readline()
        time.sleep(generator.uniform(0.005, 0.03))
        writer.kill()
        writer.communicate()
        if path.exists():
            content = path.read_bytes()
            assert len(content) == 1000000
            assert len(set(content)) == 1
        assert len(names(path.parent)) <= 2
    atomic.replace_file(path, b"", "save")
    assert names(path.parent) == [path.name]


@posix
def test_the_temporary_file_of_a_writer_that_lives_is_let_be(tmp_path):
    (tmp_path / LEFTOVER).touch()
    (tmp_path / "cnnlite-mine.tmp").touch()  # not a name that cnnlite gives
    with open(tmp_path / LEFTOVER, "rb") as file:
        atomic.fcntl.flock(file, atomic.fcntl.LOCK_EX)
        atomic.remove_leftovers(tmp_path)
        assert len(names(tmp_path)) == 2
    atomic.remove_leftovers(tmp_path)
    assert names(tmp_path) == ["cnnlite-mine.tmp"]


@posix
def test_a_file_that_was_taken_for_a_leftover_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    lock, taken = atomic.fcntl.flock, []

    def late(file, operation):
        if not taken:
            taken.append(file.name)
            os.remove(file.name)
        return lock(file, operation)

    monkeypatch.setattr(atomic.fcntl, "flock", late)
    atomic.replace_file(tmp_path / "file", b"whole", "save")
    assert taken
    assert (tmp_path / "file").read_bytes() == b"whole"


@posix
def test_several_processes_that_write_to_one_file_do_not_harm_each_other(path):
    writers = [python(WRITES_FOREVER, path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
    try:
        for writer in writers:
            writer.stdout.readline()
        for _ in range(20):
            time.sleep(0.01)
            if path.exists():
                assert len(set(path.read_bytes())) == 1
    finally:
        for writer in writers:
            writer.kill()
        errors = [writer.communicate()[1] for writer in writers]
    assert errors == [b"", b"", b""]


@posix
def test_a_file_that_gets_too_large_leaves_the_old_one(path):
    import resource

    model = dense_model()
    model.save(path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match=r"save: .*can't be written: File too large\. The old file is unchanged"):
            model.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert names(path.parent) == [path.name]


FULL_AND_READ_ONLY = """
import contextlib, os, pathlib, subprocess, sys
import numpy as np
import cnnlite
from cnnlite import callbacks, layers

folder = pathlib.Path(sys.argv[1])
path = folder / "model.safetensors"

def mount(*options):
    subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", folder], check=True)

def attempt(function, *arguments):
    before = {entry: entry.read_bytes() for entry in folder.iterdir()}
    try:
        function(*arguments)
    except OSError as error:
        print(type(error).__name__, error)
    else:
        print("written")
    assert {entry: entry.read_bytes() for entry in folder.iterdir()} == before, os.listdir(folder)

def fit(callback):
    model.fit(np.zeros((2, 5)), np.zeros((2, 5)), verbose=0, callbacks=[callback])

model = cnnlite.Sequential([cnnlite.Input(shape=(5,)), layers.Dense(5)])
large = cnnlite.Sequential([cnnlite.Input(shape=(200,)), layers.Dense(500)])
model.compile("sgd", "mse")
mount("-o", "size=300k")
model.save(path)
attempt(large.save, path)
attempt(large.save_weights, folder / "other.safetensors")
with (folder / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
    while file.write(b"x" * 4096):
        pass
attempt(fit, callbacks.ModelCheckpoint(path))
attempt(fit, callbacks.BackupAndRestore(folder))
subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
attempt(model.save, path)
attempt(model.save_weights, folder / "other.safetensors")
attempt(fit, callbacks.ModelCheckpoint(folder / "deep" / "model.safetensors"))
attempt(fit, callbacks.BackupAndRestore(folder / "backup"))
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs a file system of its own")
def test_a_full_disk_and_a_read_only_one_leave_the_old_file_and_say_so(tmp_path):
    unshare = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*unshare, "mount", "-t", "tmpfs", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("no file system of its own is allowed here")
    done = subprocess.run(
        [*unshare, sys.executable, "-c", FULL_AND_READ_ONLY, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    full, read_only = "No space left on device", "Read-only file system"
    kept = "The old file is unchanged."
    folder = str(tmp_path)
    assert said == [
        f"OSError [Errno 28] save: {folder}/model.safetensors can't be written: {full}. {kept}",
        f"OSError [Errno 28] save_weights: {folder}/other.safetensors can't be written: {full}.",
        f"OSError [Errno 28] save: {folder}/model.safetensors can't be written: {full}. {kept}",
        f"OSError [Errno 28] BackupAndRestore: {folder}/backup.safetensors can't be written: {full}.",
        f"OSError [Errno 30] save: {folder}/model.safetensors can't be written: {read_only}. {kept}",
        f"OSError [Errno 30] save_weights: {folder}/other.safetensors can't be written: {read_only}.",
        f"OSError [Errno 30] ModelCheckpoint: the folder {folder}/deep can't be made: {read_only}.",
        f"OSError [Errno 30] BackupAndRestore: the folder {folder}/backup can't be made: {read_only}.",
    ]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_an_error_keeps_its_number_and_says_what_could_not_be_written(path, monkeypatch, step):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match=r"save_weights: .*model\.safetensors can't be written: No space left") as raised:
        dense_model().save_weights(path)
    assert raised.value.errno == errno.ENOSPC
    assert names(path.parent) == []


@posix
def test_a_file_keeps_its_permissions(path):
    model = dense_model()
    model.save(path)
    path.chmod(0o640)
    model.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@posix
def test_what_is_not_a_file_is_not_replaced_by_one(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for write in (dense_model().save, dense_model().save_weights):
        with pytest.raises(OSError, match="is a device or a pipe, which would be replaced"):
            write(pipe)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_file_that_is_not_to_be_written_to_is_refused(path, monkeypatch):
    model = dense_model()
    model.save(path)
    path.chmod(0o400)
    monkeypatch.setattr(os, "access", lambda name, mode: name != str(path))  # as for anybody but root
    with pytest.raises(PermissionError, match="is read-only"):
        model.save(path)
    path.chmod(0o600)


def test_a_name_as_long_as_names_can_be_is_fine(tmp_path):
    path = tmp_path / ("x" * 243 + ".safetensors")
    dense_model().save(path)
    cnnlite.load_model(path)


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    checkpoint = callbacks.ModelCheckpoint(tmp_path / "file" / "model.safetensors")
    with pytest.raises(OSError, match=r"ModelCheckpoint: the folder .* can't be made: a file of that name exists"):
        fit(make_model(), *make_data(), callbacks=[checkpoint])
