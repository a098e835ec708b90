"""How kernels are compiled: each case in a process of its own, as for a user."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cnnlite
from cnnlite import layers
from tests.kernels.drawn import compiled_kernels_needed
from tests.kernels.rooms import run

TRAIN = """
import numpy as np
import cnnlite
from cnnlite.eager import is_eager
from cnnlite.engine import executor
from tests.kernels.test_jit import train
assert is_eager()
executor._start = None  # the entry point of compiled code
print(repr(train()))
"""


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


# The interrupt arrives inside the callback in which LLVM asks for cached code; exceptions raised there are lost.
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
@pytest.mark.skipif(os.name == "nt", reason="Windows can't send Ctrl-C to a single process")
def test_an_interrupt_while_a_kernel_is_compiled_or_loaded_is_not_lost(tmp_path):
    paths = os.pathsep.join([str(Path(cnnlite.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": paths}
    for _ in ("compiled", "loaded"):
        done = subprocess.run(
            [sys.executable, "-c", INTERRUPTED], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.stdout.strip() == "interrupted 1", done.stderr
