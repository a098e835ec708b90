"""The same seed gives the same bits, in every run and for every number of threads."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cnnlite
from cnnlite import layers

SHAPE, CLASSES = (14, 12, 2), 5
THREADS = (1, 2, 3)

# Between them everything that sums or draws. The batches of 64 are more images than the pieces that a kernel cuts
# its work into, and their activations longer than the chunks of the elementwise kernels.
NETS = {
    "3x3 with many channels, BatchNorm, MaxPool, Dropout": lambda: [
        layers.Conv2D(16, 3, padding="same"), layers.BatchNorm(), layers.ReLU(),
        layers.Conv2D(20, 3, activation="relu"), layers.MaxPool(),
        layers.Conv2D(16, 3, padding="same", activation="relu"),
        layers.Flatten(), layers.Dropout(0.2), layers.Dense(CLASSES, activation="softmax"),
    ],
    "5x5, strides, AveragePool, DepthwiseConv2D": lambda: [
        layers.Conv2D(18, 5, activation="relu"), layers.AveragePool(2, strides=1, padding="same"),
        layers.Conv2D(17, 3, strides=2, padding="same", activation="gelu"),
        layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"), layers.SpatialDropout2D(0.1),
        layers.GlobalAveragePool(), layers.Dense(40, activation="tanh"), layers.Dense(CLASSES),
    ],
    "groups, dilation, overlapping windows, no bias": lambda: [
        layers.ZeroPadding2D(1), layers.Conv2D(12, 3, groups=2, dilation_rate=2, use_bias=False),
        layers.MaxPool(3, strides=2, padding="same"), layers.BatchNorm(),
        layers.DepthwiseConv2D(2, strides=2, activation="elu"), layers.GlobalMaxPool(keepdims=True),
        layers.Flatten(), layers.Dense(CLASSES, activation="softmax"),
    ],
}


def data():
    generator = np.random.default_rng(0)
    return generator.normal(size=(160, *SHAPE)).astype("float32"), generator.integers(0, CLASSES, 160)


def trained(stack):
    """Return a model after 30 steps of Adam, of which every third takes a batch of 32, the others of 64."""
    cnnlite.utils.set_random_seed(3)
    model = cnnlite.Sequential([cnnlite.Input(shape=SHAPE), *stack()])
    logits = model.output_activation == "linear"
    model.compile("adam", cnnlite.losses.SparseCategoricalCrossentropy(from_logits=logits), metrics=["accuracy"])
    history = model.fit(*data(), batch_size=64, epochs=10, verbose=0)
    losses = history.history["loss"]
    assert losses[-1] < losses[0]  # bits of NaN, or of weights that never moved, would be the same whatever happens
    return model, losses


def fingerprints(stack):
    """Return a digest of each weight and output, and the losses, of a model that was trained."""
    model, losses = trained(stack)
    arrays = {f"weight {i} {array.shape}": array for i, array in enumerate(model.get_weights())}
    for batch in (1, 7, 64):
        arrays[f"predict {batch}"] = model.predict(data()[0][:batch], batch_size=batch, verbose=0)
    assert all(np.isfinite(array).all() for array in arrays.values())
    return {**{name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}, "losses": losses}


def long_sums():
    """Return a digest of the weights after a step whose sums over inputs, pixels and images are all cut."""
    cnnlite.utils.set_random_seed(3)
    model = cnnlite.Sequential([
        cnnlite.Input(shape=(72, 72, 2)), layers.Conv2D(5, 3), layers.DepthwiseConv2D(3),
        layers.AveragePool(9, strides=2), layers.Conv2D(6, 1), layers.Flatten(), layers.Dense(3),
    ])
    model.compile("sgd", "mse")
    generator = np.random.default_rng(0)
    model.train_on_batch(generator.normal(size=(32, 72, 72, 2)), generator.normal(size=(32, 3)))
    return hashlib.sha256(b"".join(array.tobytes() for array in model.get_weights())).hexdigest()


PROGRAM = """
import json, numba
from tests.test_determinism import NETS, fingerprints, long_sums
prints = {name: fingerprints(stack) for name, stack in NETS.items()}
print(json.dumps({"threads": numba.get_num_threads(), "long sums": long_sums(), **prints}))
"""


@pytest.fixture(scope="module")
def by_threads():
    """What a process of its own gets with each number of threads."""
    root = Path(__file__).parents[1]
    paths = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    results = {}
    for threads in THREADS:
        environment = {**os.environ, "NUMBA_NUM_THREADS": str(threads), "PYTHONPATH": paths}
        done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=root, env=environment, capture_output=True,
                              text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        results[threads] = json.loads(done.stdout)
    return results


def test_the_processes_had_the_threads_that_they_were_to_have(by_threads):
    assert [result["threads"] for result in by_threads.values()] == list(THREADS)


@pytest.mark.parametrize("threads", THREADS[1:])
@pytest.mark.parametrize("net", NETS)
def test_the_number_of_threads_shows_in_no_bit_of_weights_outputs_and_losses(by_threads, net, threads):
    assert by_threads[threads][net] == by_threads[1][net]


@pytest.mark.parametrize("threads", THREADS[1:])
def test_the_number_of_threads_shows_in_no_bit_of_long_sums(by_threads, threads):
    assert by_threads[threads]["long sums"] == by_threads[1]["long sums"]


def test_two_runs_in_one_process_give_the_same_bits():
    stack = next(iter(NETS.values()))
    assert fingerprints(stack) == fingerprints(stack)


def test_numpys_global_random_state_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - it is the global state that is looked at
    trained(next(iter(NETS.values())))
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002 - likewise
