"""How kernels are compiled and kept: each case in a process of its own, as a user would meet it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cnnlite
from cnnlite import layers
from cnnlite.kernels import _jit
from tests.kernels.drawn import compiled_kernels_needed

HELPER = """
from rooms._jit import kernel

@kernel
def helper(x):
    return x + {number}
"""
USER = """
from rooms._jit import kernel
from rooms.helper import helper

@kernel
def double(x):
    return 2 * helper(x)
"""
CALL = """
from rooms.user import double
print(double(1.0), sum(double.stats.cache_hits.values()))
"""
TRAIN = """
import numpy as np
import cnnlite
from cnnlite import kernels, layers, reference
assert all(getattr(kernels, name) is getattr(reference, name) for name in kernels.__all__)
from tests.kernels.test_jit import train
print(repr(train()))
"""


def run(program, folder, **environment):
    """Run a program in a new process, with `folder` first on its path, and return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(folder), **environment}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture
def folder(tmp_path):
    """A package with the library's `kernel`, a helper, and a kernel in another file that calls it."""
    rooms = tmp_path / "rooms"
    rooms.mkdir()
    shutil.copy(_jit.__file__, rooms)
    (rooms / "__init__.py").touch()
    (rooms / "helper.py").write_text(HELPER.format(number=1))
    (rooms / "user.py").write_text(USER)
    return tmp_path


@compiled_kernels_needed
def test_a_kernel_is_compiled_once_and_again_when_a_helper_in_another_file_has_changed(folder):
    cache = {"NUMBA_CACHE_DIR": str(folder / "cache")}
    assert run(CALL, folder, **cache) == ["4.0", "0"]
    assert run(CALL, folder, **cache) == ["4.0", "1"]
    (folder / "rooms" / "helper.py").write_text(HELPER.format(number=2))
    assert run(CALL, folder, **cache) == ["6.0", "0"]


@compiled_kernels_needed
def test_what_compiled_code_calls_python_may_call_as_well(folder):
    # What is compiled for compiled code alone has nothing that Python could call, and lies in the same folder.
    program = CALL + "from rooms.helper import helper; print(helper(1.0))"
    cache = {"NUMBA_CACHE_DIR": str(folder / "cache")}
    assert run(program, folder, **cache) == ["4.0", "0", "2.0"]
    assert run(program, folder, **cache) == ["4.0", "1", "2.0"]


@compiled_kernels_needed
def test_code_that_two_processes_saved_under_one_name_is_not_taken_for_what_it_is_not(folder):
    # Both read the same index, called what they had compiled number 1, and wrote: the index of one, the code of the
    # other.
    program = """
import sys
import numpy as np
from rooms._jit import c_callback, kernel
from numba import types

def itemsize(x):
    return x.itemsize

@kernel
def of_kernel(x):
    return x.itemsize

def two(x):
    return x[0] * 2

item = {"f": types.float32, "d": types.float64}[sys.stdin.read(1)]
callback = c_callback(two, types.float64(types.CPointer(item)))
x = np.full(4, 1.5, "f4" if item == types.float32 else "f8")
print(callback.ctypes(x.ctypes.data_as(callback.ctypes.argtypes[0])), of_kernel(x))
"""
    (folder / "rooms" / "program.py").write_text(program)
    caches = [folder / "first", folder / "second"]
    for cache, letter in zip(caches, "fd"):
        assert run_module(folder, letter, cache)[0] == "3.0"
    for old in caches[0].rglob("*.nbc"):
        shutil.copy(next(caches[1].rglob(old.name)), old)
    assert run_module(folder, "f", caches[0]) == ["3.0", "4"]


def run_module(folder, letter, cache):
    environment = {**os.environ, "PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, "-m", "rooms.program"], input=letter, env=environment, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_fingerprint_is_the_same_in_every_process(folder):
    # The texts of a set come in another order with another seed of the hashes.
    program = "from rooms._jit import _FINGERPRINT; print(_FINGERPRINT)"
    assert len({run(program, folder, PYTHONHASHSEED=seed)[0] for seed in ("3", "4")}) == 1


@compiled_kernels_needed
def test_without_a_folder_to_write_to_a_kernel_is_compiled_all_the_same(folder):
    # Root may write everywhere, but not below a file.
    blocked = folder / "file"
    blocked.touch()
    (folder / "rooms" / "__pycache__").touch()
    homes = dict.fromkeys(("NUMBA_CACHE_DIR", "HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"), str(blocked / "below"))
    assert run(CALL, folder, **homes)[0] == "4.0"


@compiled_kernels_needed
def test_a_folder_that_vanishes_costs_no_result(folder):
    vanish = """
import os, shutil
from rooms.user import double
shutil.rmtree(os.environ["NUMBA_CACHE_DIR"])
open(os.environ["NUMBA_CACHE_DIR"], "w").close()
print(double(1.0))
"""
    assert run(vanish, folder, NUMBA_CACHE_DIR=str(folder / "cache")) == ["4.0"]


def train():
    """Return the losses of two steps of a small model."""
    rng = np.random.default_rng(0)
    cnnlite.utils.set_random_seed(0)
    model = cnnlite.Sequential([
        layers.Conv2D(4, 3, padding="same", activation="relu", input_shape=(6, 6, 1)),
        layers.DepthwiseConv2D(3, strides=2),
        layers.BatchNorm(),
        layers.MaxPool(),
        layers.Flatten(),
        layers.Dense(3, activation="softmax"),
    ])
    model.compile("adam", "sparse_categorical_crossentropy")
    x, y = rng.normal(size=(8, 6, 6, 1)), rng.integers(3, size=8)
    return [float(model.train_on_batch(x, y)) for _ in range(2)]


@pytest.mark.parametrize("environment", [{"CNNLITE_KERNELS": "reference"}, {"NUMBA_DISABLE_JIT": "1"}], ids=str)
def test_the_definitions_in_the_place_of_all_kernels_train_the_same_model(environment):
    root = Path(__file__).parents[2]
    printed = run(TRAIN, root, **environment)
    losses = [float(text.strip("[],")) for text in printed]
    assert losses == pytest.approx(train(), rel=1e-5)


# The interrupt comes inside the callback by which LLVM asks for cached code; what is raised there goes nowhere.
INTERRUPTED = """
import os, signal, sys
import numpy as np
from cnnlite import kernels

sent = []

def watch(frame, event, argument):
    if event == "call" and frame.f_code.co_name in ("_object_compiled_hook", "_object_getbuffer_hook") and not sent:
        sent.append(frame.f_code.co_name)
        os.kill(os.getpid(), signal.SIGINT)

sys.setprofile(watch)
try:
    kernels.column_sums(np.ones((4, 4), np.float32))
except KeyboardInterrupt:
    print("interrupted", len(sent))
else:
    print("lost", len(sent))
"""


@compiled_kernels_needed
@pytest.mark.skipif(os.name == "nt", reason="a process can't be sent a Ctrl-C of its own there")
def test_an_interrupt_while_a_kernel_is_compiled_or_loaded_is_not_lost(tmp_path):
    paths = os.pathsep.join([str(Path(cnnlite.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": paths}
    for _ in ("compiled", "loaded"):
        done = subprocess.run(
            [sys.executable, "-c", INTERRUPTED], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.stdout.strip() == "interrupted 1", done.stderr
