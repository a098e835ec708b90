"""Kernels that are compiled beforehand, and processes that compile beside another one."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import cnnlite
from cnnlite import layers, warmup
from cnnlite.engine import helpers, jit
from tests.kernels.drawn import compiled_kernels_needed
from tests.kernels.rooms import ROOT
from tests.kernels.test_cache import KEPT

pytestmark = compiled_kernels_needed

# What a first step compiles is what it asks the disk for in vain.
STEP = """
import numpy as np
import cnnlite
from cnnlite.engine import cache

missed = []
read = cache.Store.read

def watched(self, name):
    content = read(self, name)
    if content is None:
        missed.append(name)
    return content

cache.Store.read = watched
model = cnnlite.load_model("model.cnn")
model.train_on_batch(np.zeros((4, 6)), np.zeros(4, int))
model.predict(np.zeros((4, 6)), verbose=0)
print(len(missed))
"""


def program(folder, *arguments, **environment):
    """Run Python in a folder, with compiled kernels in a folder of its own; return what it printed and said."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "NUMBA_CACHE_DIR": str(folder / "cache"), **environment}
    done = subprocess.run([sys.executable, *arguments], env=environment, cwd=folder, capture_output=True, text=True,
                          timeout=600)
    return done.returncode, done.stdout, done.stderr


def small_model():
    model = cnnlite.Sequential([layers.Dense(5, activation="relu", input_shape=(6,)), layers.Dense(3)])
    model.compile("sgd", cnnlite.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def test_after_a_warm_up_for_a_model_its_first_step_compiles_nothing(tmp_path):
    small_model().save(tmp_path / "model.cnn")
    status, printed, said = program(tmp_path, "-m", "cnnlite.warmup", "model.cnn")
    assert (status, said) == (0, KEPT)
    assert printed.startswith(f"cnnlite: compiled kernels are kept in {tmp_path / 'cache'}")
    assert program(tmp_path, "-c", STEP) == (0, "0\n", "")
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_warm_up_takes_every_kernel_of_the_library_for_the_dtype(monkeypatch):
    done = []
    own = {name: jit.Task(lambda dtype, name=name: done.append((name, dtype)), bool) for name in jit.tasks}
    monkeypatch.setattr(jit, "tasks", own)
    warmup.warm_up("float64", verbose=0)
    names = {name for name, _ in done}
    assert {dtype for _, dtype in done} == {np.dtype("float64")}
    assert len(done) == len(names)
    assert names == {name for name in own if name.startswith("cnnlite.")}
    assert "cnnlite.kernels.product.microkernel:block" in names
    assert len(names) > 80


def test_a_file_that_is_no_model_is_named(tmp_path, capsys):
    assert warmup.main([str(tmp_path / "none.cnn")]) == 1
    assert "none.cnn" in capsys.readouterr().err


def test_a_warm_up_says_why_kernels_are_not_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(warmup, "warm_up", lambda dtype: None)
    monkeypatch.setattr(jit._store, "folders", [])
    assert warmup.main([]) == 1
    assert "NUMBA_CACHE_DIR" in capsys.readouterr().err


# Helpers.


@pytest.fixture
def started(monkeypatch):
    """The shares of helpers, which are not started."""
    shares = []
    monkeypatch.setattr(helpers, "_start", lambda names, dtype, _: shares.append(names))
    monkeypatch.setattr(helpers, "cores", lambda: 3)
    return shares


@pytest.fixture
def names(monkeypatch):
    made = [f"cnnlite.made_up:{i}" for i in range(9)]
    kept = {"cnnlite.made_up:8"}
    for name in made:
        monkeypatch.setitem(jit.tasks, name, jit.Task(print, lambda dtype, name=name: name in kept))
    return made


def test_helpers_come_from_the_other_end_and_take_turns(started, names):
    with helpers.beside(names, "float32"):
        pass
    numbers = [[int(name[-1]) for name in share] for share in started]
    assert numbers == [[7, 5, 3, 1], [6, 4, 2, 0]]


def test_a_helper_has_three_kernels_at_least(started, names, monkeypatch):
    monkeypatch.setattr(helpers, "cores", lambda: 128)
    with helpers.beside(names, "float32", most=127):
        pass
    assert [len(share) for share in started] == [4, 4]


@pytest.mark.parametrize("why", ["few", "one core", "frozen", "embedded", "no folder", "one of many"])
def test_there_are_no_helpers_where_they_do_not_pay_or_might_start_something_else(why, started, names, monkeypatch):
    if why == "few":
        names = names[:helpers.WORTH_IT - 1]
    elif why == "one core":
        monkeypatch.setattr(helpers, "cores", lambda: 1)
    elif why == "frozen":
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    elif why == "embedded":
        monkeypatch.setattr(sys, "executable", "/opt/editor")
    elif why == "no folder":
        monkeypatch.setattr(jit._store, "folders", [])
    else:
        monkeypatch.setattr(helpers.multiprocessing, "parent_process", object)
    with helpers.beside(names, "float32"):
        pass
    assert not started


def test_where_no_process_may_be_started_all_goes_on_without(names, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError

    monkeypatch.setattr(helpers.subprocess, "Popen", refuse)
    monkeypatch.setattr(helpers, "cores", lambda: 2)
    with helpers.beside(names, "float32"):
        pass


def test_a_helper_compiles_what_it_is_told_and_runs_nothing_of_the_folder_it_is_in(tmp_path):
    (tmp_path / "json.py").write_text("raise SystemExit('this is not the json of Python')")
    relu = next(name for name in jit.tasks if name.startswith("cnnlite.kernels.rectifiers:_relu:"))
    code = (f"from cnnlite.engine import helpers, jit; print(jit.is_kept({relu!r}, 'float32'));"
            f"started = []; helpers._start([{relu!r}], 'float32', started); status = started[0].wait(300);"
            f"print(status, jit.is_kept({relu!r}, 'float32'))")
    paths = {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(ROOT)}
    if sys.version_info < (3, 11):
        code = "import sys; del sys.path[0];" + code
    status, printed, said = program(tmp_path, "-c", code, **paths)
    assert (status, printed.split()) == (0, ["False", "0", "True"]), said


def test_a_helper_is_told_what_not_to_run(monkeypatch):
    commands = []

    def refuse(command, **kwargs):
        commands.append(command)
        raise RuntimeError("can't start a process at interpreter shutdown")

    monkeypatch.setattr(helpers.subprocess, "Popen", refuse)
    for flags in ({}, {"isolated": 1, "ignore_environment": 1, "no_user_site": 1}):
        set_flags = {"isolated": 0, "ignore_environment": 0, "no_user_site": 0, **flags}
        monkeypatch.setattr(helpers.sys, "flags", SimpleNamespace(**set_flags))
        helpers._start([], "float32", [])
    assert [command[1:-1] for command in commands] == [["-c"], ["-I", "-E", "-s", "-c"]]


def test_a_helper_of_another_version_compiles_nothing(monkeypatch):
    monkeypatch.setattr(jit, "tasks", {})
    helpers.help_with({"same": "another", "names": ["cnnlite.kernels.rectifiers:_relu"], "dtype": "float32"})


def test_a_helper_ends_when_nobody_needs_it_any_more(monkeypatch):
    class Closed:
        def read(self):
            return ""

    class AtOnce:
        def __init__(self, target, daemon):
            self.start = target

    compiled = []
    monkeypatch.setattr(sys, "stdin", Closed())
    monkeypatch.setattr(helpers.threading, "Thread", AtOnce)
    monkeypatch.setitem(jit.tasks, "cnnlite.kernels.rectifiers:made_up", jit.Task(compiled.append, bool))
    helpers.help_with({"same": jit.versions(), "names": ["cnnlite.kernels.rectifiers:made_up"], "dtype": "float32"})
    assert not compiled
