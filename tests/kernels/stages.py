"""Check that a kernel gives the same bits however its stages are scheduled."""

import numpy as np

from cnnlite.engine.buffers import N, is_buffer
from cnnlite.engine.graph import Graph
from cnnlite.engine.plan import Plan
from cnnlite.engine.program import Program, Workspace, shape_of
from cnnlite.engine.schedule import ALIGNMENT, Schedule
from cnnlite.engine.stages import FIXED_WORDS
from tests.engine.made_up import run
from tests.kernels.drawn import MARGIN, guarded


def results(function, arrays, samples="", threads=1, together=None, **how):
    """Return the arrays that a kernel computes from arrays, in the order of its results.

    Args:
        function: called with buffers in place of the arrays; returns one buffer or several.
        arrays: the arguments, by name.
        samples: the names of the arrays whose first axis is the batch axis, separated by spaces.
        threads: how many threads run it, at most as many as numba has.
        together: how many samples to compute at a time, overriding the preference of the stages.
        how: `joined` and `banded`, passed to `Schedule`.
    """
    names = samples.split()
    graph = Graph(next(iter(arrays.values())).dtype)
    count = len(arrays[names[0]]) if names else 0
    given = {name: graph.given((N, *array.shape[1:]) if name in names else array.shape, array.dtype)
             for name, array in arrays.items()}
    made = function(**given)
    made = [made] if is_buffer(made) else list(made)
    for step in graph.steps:
        step.together = together or step.together
    Plan(graph, made)
    workspace = Workspace(Program(Schedule(graph, graph.steps, (), **how)))
    workspace.prepare(count, threads)
    behind = _guard(workspace)
    outputs, around = [], []
    for buffer in made:
        output = np.full(shape_of(buffer, count), 77, buffer.dtype)
        if output.dtype.kind == "f":
            output, whole = guarded(output)
            around.append((whole, whole.copy()))
        outputs.append(output)
    for buffer, array in (*zip(given.values(), arrays.values()), *zip(made, outputs)):
        workspace.table[FIXED_WORDS + buffer.number] = array.ctypes.data
    for storage in graph.buffers:
        if storage.kind == "constant":
            workspace.table[FIXED_WORDS + storage.buffer.number] = storage.owner.ctypes.data
    run(workspace, threads)
    assert (behind == 171).all(), "written past the end of a stage's memory"
    for whole, before in around:
        for margin in (slice(MARGIN), slice(-MARGIN, None)):
            np.testing.assert_array_equal(whole[margin], before[margin], err_msg="written outside a result")
    return outputs


def _guard(workspace):
    """Give the threads of a workspace new memory; return the bytes after it, which must not be written to."""
    size = workspace.own.size
    memory = np.full(size + ALIGNMENT + (1 << 12), 171, np.uint8)
    memory = memory[-memory.ctypes.data % ALIGNMENT :]
    workspace.job["own"] = memory.ctypes.data
    return memory[size:]


def assert_same_bits(function, arrays, samples):
    """Assert the same bits joined or not, in bands or not, on one thread or two, with any samples at a time."""
    expected = results(function, arrays, samples)
    ways = [{"together": 1}, {"together": 7}, {"joined": False}, {"banded": True}, {"threads": 2},
            {"banded": True, "threads": 2}]
    for way in ways:
        for one, other in zip(expected, results(function, arrays, samples, **way)):
            np.testing.assert_array_equal(one.view(np.uint8), other.view(np.uint8), err_msg=str(way))
    return expected


def assert_same_bits_alone(function, arrays, samples):
    """Assert that a sample gets the same bits alone and in a batch, for kernels that compute each sample separately."""
    expected = results(function, arrays, samples)
    names = samples.split()
    for i in range(len(arrays[names[0]])):
        alone = {name: array[i : i + 1].copy() if name in names else array for name, array in arrays.items()}
        for one, other in zip(expected, results(function, alone, samples)):
            np.testing.assert_array_equal(one[i : i + 1].view(np.uint8), other.view(np.uint8))
