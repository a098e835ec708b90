"""How compiled kernels are cached on disk, and what can go wrong: mostly in separate processes, as for users."""

import compileall
import hashlib
import os
import sys
import zipfile
from pathlib import Path

import pytest

from cnnlite.engine import cache as _cache
from cnnlite.engine import jit as _jit
from cnnlite.engine.cache import Store
from tests.kernels.drawn import compiled_kernels_needed
from tests.kernels.rooms import CALL, make, run, run_both, start, write_helper

KEPT = "cnnlite: compiling kernels for this processor; each is compiled once and kept on disk.\n"


@pytest.fixture
def folder(tmp_path):
    make(tmp_path)
    return tmp_path


def cache_in(folder):
    return {"NUMBA_CACHE_DIR": str(folder / "cache")}


@compiled_kernels_needed
def test_a_kernel_is_compiled_once_and_again_when_a_helper_in_another_file_has_changed(folder):
    assert run_both(CALL, folder, **cache_in(folder)) == ("4.0 0\n", KEPT)
    assert run_both(CALL, folder, **cache_in(folder)) == ("4.0 1\n", "")
    write_helper(folder, 2)
    assert run_both(CALL, folder, **cache_in(folder)) == ("6.0 0\n", KEPT)


@compiled_kernels_needed
def test_what_compiled_code_calls_python_may_call_as_well(folder):
    # A kernel compiled only for other compiled code has no entry point for Python, and lies in the same folder.
    program = CALL + "from rooms.helper import helper; print(helper(1.0))"
    assert run(program, folder, **cache_in(folder)) == ["4.0", "0", "2.0"]
    assert run(program, folder, **cache_in(folder)) == ["4.0", "1", "2.0"]


def test_the_fingerprint_is_the_same_in_every_process_and_another_for_other_sources(folder):
    # The order of strings in a set depends on the hash seed.
    program = "from rooms.jit import _store; print(_store.fingerprint)"
    fingerprints = {run(program, folder, PYTHONHASHSEED=seed)[0] for seed in ("3", "4")}
    assert len(fingerprints) == 1
    write_helper(folder, 2)
    assert run(program, folder)[0] not in fingerprints


# No file can be written.

FULL = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({bytes}, resource.RLIM_INFINITY))
"""


@compiled_kernels_needed
def test_without_a_folder_to_write_to_a_kernel_is_compiled_all_the_same_and_a_sentence_says_what_to_do(folder):
    # Root may write anywhere, except below a file.
    blocked = folder / "file"
    blocked.touch()
    (folder / "rooms" / "__pycache__").touch()
    homes = dict.fromkeys(("NUMBA_CACHE_DIR", "HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"), str(blocked / "below"))
    output, said = run_both(CALL, folder, **homes)
    assert output == "4.0 0\n"
    # It doesn't promise that the kernels are kept.
    assert said.startswith("cnnlite: compiling kernels for this processor. They can't be kept for the next process")
    assert f"{blocked / 'below'}" in said
    assert "(Not a directory)" in said
    assert said.endswith("Set the environment variable NUMBA_CACHE_DIR to a writable folder.\n")
    assert said.count("NUMBA_CACHE_DIR") == 1


@compiled_kernels_needed
def test_a_folder_that_vanishes_costs_no_result(folder):
    vanish = """
import os, shutil
from rooms.user import double
print(double(1))
shutil.rmtree(os.environ["NUMBA_CACHE_DIR"])
open(os.environ["NUMBA_CACHE_DIR"], "w").close()
print(double(1.0))
"""
    assert run(vanish, folder, **cache_in(folder)) == ["4", "4.0"]


@compiled_kernels_needed
@pytest.mark.skipif(os.name == "nt", reason="Windows has no file size limit")
@pytest.mark.parametrize("room", [0, 2000])
def test_a_disk_that_fills_up_while_a_new_version_is_compiled_leaves_no_code_of_the_old_one(folder, room):
    # numba's index takes less than 2,000 bytes, the code of a kernel more.
    assert run(CALL, folder, **cache_in(folder)) == ["4.0", "0"]
    write_helper(folder, 2)
    output, said = run_both(FULL.format(bytes=room) + CALL, folder, **cache_in(folder))
    assert output == "6.0 0\n"
    assert "(File too large)" in said
    assert run(CALL, folder, **cache_in(folder)) == ["6.0", "0"]
    assert run(CALL, folder, **cache_in(folder)) == ["6.0", "1"]
    assert not list(folder.rglob("*.tmp"))


@compiled_kernels_needed
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_log_on_a_full_disk_costs_no_result(folder):
    program = "import sys; sys.stderr = open('/dev/full', 'w')" + CALL + "sys.stderr = sys.__stderr__"
    assert run(program, folder, **cache_in(folder)) == ["4.0", "0"]


@compiled_kernels_needed
@pytest.mark.skipif(os.name == "nt", reason="Windows has no file size limit")
def test_kernels_that_somebody_else_has_compiled_beside_the_sources_are_used_by_who_may_not_write_there(folder):
    own = {"NUMBA_CACHE_DIR": None, "HOME": str(folder), "XDG_CACHE_HOME": None, "LOCALAPPDATA": str(folder)}
    assert run_both(CALL, folder, **own) == ("4.0 0\n", KEPT)
    assert list(folder.glob("rooms/__pycache__/*.nbc"))
    assert run_both(FULL.format(bytes=0) + CALL, folder, **own, PYTHONDONTWRITEBYTECODE="1") == ("4.0 1\n", "")


def test_the_folders_are_the_one_that_was_named_that_of_the_sources_and_that_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setattr(_jit.numba.config, "CACHE_DIR", str(tmp_path / "named"))
    monkeypatch.setattr(_cache, "AppDirs", lambda *_, **__: UserFolder(tmp_path / "user"))
    named, sources, of_user = Store(tmp_path).folders
    assert named.parent == tmp_path / "named"
    assert sources == tmp_path / "__pycache__"
    assert of_user.parent == tmp_path / "user"
    assert named.name == of_user.name
    # Other sources get another folder.
    assert Store(tmp_path / "..").folders[0] not in (named, sources, of_user)


class UserFolder:
    def __init__(self, folder):
        self.user_cache_dir = str(folder)


def test_who_has_no_home_gets_no_folder_in_the_one_where_they_stand(tmp_path, monkeypatch):
    monkeypatch.setattr(_jit.numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(_cache, "AppDirs", lambda *_, **__: UserFolder("~/.cache/numba"))
    assert Store(tmp_path).folders == [tmp_path / "__pycache__"]


def test_a_folder_that_is_named_by_a_relative_path_stays_where_it_is_when_the_process_goes_elsewhere(
        tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_jit.numba.config, "CACHE_DIR", "named")
    store = Store(tmp_path)
    store.write("kernel-1-2.nbc", b"code")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert store.read("kernel-1-2.nbc") == b"code"
    assert store.read("kernel-1-3.nbc") is None


# Damage, and concurrent processes.


@pytest.mark.parametrize("damage", [lambda file: file[:40], lambda file: b"", lambda file: bytes(len(file)),
                                    lambda file: file[:50] + bytes([file[50] ^ 1]) + file[51:]],
                         ids=["cut", "empty", "zeros", "one bit"])
def test_a_file_that_was_damaged_counts_as_none(tmp_path, damage):
    store = Store(tmp_path)
    store.folders = [tmp_path / "damaged", tmp_path / "sound"]
    store.write("kernel-1-2.nbc", bytes(range(100)))
    file = tmp_path / "damaged" / "kernel-1-2.nbc"
    file.write_bytes(damage(file.read_bytes()))
    assert store.read("kernel-1-2.nbc") is None
    (tmp_path / "sound").mkdir()
    (tmp_path / "sound" / "kernel-1-2.nbc").write_bytes(hashlib.sha256(b"code").digest() + b"code")
    assert store.read("kernel-1-2.nbc") == b"code"


@compiled_kernels_needed
def test_a_kernel_that_was_damaged_on_the_disk_is_compiled_again(folder):
    assert run(CALL, folder, **cache_in(folder)) == ["4.0", "0"]
    files = list(folder.glob("cache/*/*"))
    assert len(files) == 1
    for file in files:
        file.write_bytes(file.read_bytes()[:-100])
    assert run(CALL, folder, **cache_in(folder)) == ["4.0", "0"]
    assert run(CALL, folder, **cache_in(folder)) == ["4.0", "1"]


@compiled_kernels_needed
def test_processes_that_start_at_once_on_an_empty_cache_leave_no_code_for_other_arguments(folder):
    program = "import sys; from rooms.user import double; x = [1, 1.0, 1j]; print(*(double(x[i]) for i in ({})))"
    started = [start(program.format(which), folder, **cache_in(folder)) for which in ("0,", "1,", "0, 1", "1, 2")]
    printed = [process.communicate(timeout=300)[0].split() for process in started]
    assert printed == [["4"], ["4.0"], ["4", "4.0"], ["4.0", "(2+2j)"]]
    assert run_both(program.format("0, 1, 2"), folder, **cache_in(folder)) == ("4 4.0 (2+2j)\n", "")
    assert not list(folder.rglob("*.tmp"))


# Without source files.


def only_bytecode(folder):
    """Reduce the package to what a frozen program contains."""
    assert compileall.compile_dir(folder / "rooms", quiet=1, legacy=True, force=True, stripdir=str(folder))
    for source in (folder / "rooms").glob("*.py"):
        source.rename(folder / source.name)


def back_to_source(folder):
    for source in folder.glob("*.py"):
        source.rename(folder / "rooms" / source.name)


@compiled_kernels_needed
@pytest.mark.parametrize("freeze", ["", "import sys; sys.frozen = True\n"], ids=["library", "program"])
def test_kernels_without_source_files_are_kept_and_compiled_anew_for_other_bytecode(folder, freeze):
    only_bytecode(folder)
    assert run(freeze + CALL, folder, **cache_in(folder)) == ["4.0", "0"]
    assert run(freeze + CALL, folder, **cache_in(folder)) == ["4.0", "1"]
    back_to_source(folder)
    write_helper(folder, 2)
    only_bytecode(folder)
    assert run(freeze + CALL, folder, **cache_in(folder)) == ["6.0", "0"]


@compiled_kernels_needed
def test_kernels_in_an_archive_are_kept(folder):
    archive = folder / "rooms.zip"
    for number, expected in ((1, "4.0"), (2, "6.0")):
        write_helper(folder, number)
        with zipfile.ZipFile(archive, "w") as file:
            for source in (folder / "rooms").glob("*.py"):
                file.write(source, f"rooms/{source.name}")
        program = f"import sys; sys.path.insert(0, {str(archive)!r})" + CALL
        assert run(program, folder, **cache_in(folder)) == [expected, "0"]
        assert run(program, folder, **cache_in(folder)) == [expected, "1"]


def test_a_program_without_files_of_its_own_is_known_by_the_program(tmp_path, monkeypatch):
    program = tmp_path / "program"
    monkeypatch.setattr(sys, "executable", str(program))
    fingerprints = set()
    for content in (b"1", b"2", b"1"):
        program.write_bytes(content)
        fingerprints.add(Store(tmp_path / "not" / "there").fingerprint)
    assert len(fingerprints) == 2


def test_a_frozen_program_keeps_its_kernels_by_where_it_lies_and_not_by_where_it_unpacks_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    one, other = (Store(tmp_path / name).folders for name in "ab")
    assert one == other
    assert not any(folder.is_relative_to(tmp_path) for folder in one)


def test_a_folder_that_cannot_be_looked_into_holds_nothing(tmp_path):
    store = Store(Path(_jit.__file__).parent)
    store.folders = [tmp_path]
    (tmp_path / "there").touch()
    # A name that is too long simulates a folder without permission, which wouldn't stop root.
    assert [store.has(name) for name in ("there", "missing", "x" * 5000)] == [True, False, False]
