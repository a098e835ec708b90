"""The executor calls each unit once, on whichever thread, with the right samples, rows and chunk."""

import itertools

import numba
import numpy as np
import pytest

from cnnlite.engine import executor
from cnnlite.engine.buffers import chunk_count
from cnnlite.engine.plan import INPUT, WEIGHTS
from cnnlite.engine.program import Program, Workspace, shape_of
from cnnlite.engine.schedule import Schedule
from cnnlite.engine.stages import FIXED_WORDS
from tests.engine.made_up import batch, count, double, fail_at_three, in_order, mark_rows, new_graph, run
from tests.kernels.drawn import compiled_kernels_needed, two_threads_needed

pytestmark = compiled_kernels_needed
THREADS = [1, pytest.param(2, marks=two_threads_needed)]
SAMPLES = [0, 1, 17, 33]


def prepared(graph, samples, threads, arrays, purposes=None, **how):
    """Return the workspace of all stages of a graph, with some buffers bound to arrays: [(buffer, array), ...]."""
    kept = [buffer for buffer, _ in arrays]
    workspace = Workspace(Program(Schedule(graph, graph.steps, kept, **how), purposes))
    workspace.prepare(samples, threads)
    for buffer, array in arrays:
        workspace.table[FIXED_WORDS + buffer.number] = array.ctypes.data
    return workspace


def numbers(*shape):
    return np.random.default_rng(0).integers(0, 100, shape).astype("float32")


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("units", [1, 2, 100])
def test_each_unit_of_a_batch_is_computed_once(units, threads):
    graph, x = new_graph(1)
    outs = [(batch(x, units, units=units), np.zeros(units, "float32")) for _ in range(3)]  # independent of one another
    run(prepared(graph, 5, threads, [(x, numbers(5, 1)), *outs]), threads)
    for _, out in outs:
        np.testing.assert_array_equal(out, 1000 + np.arange(units))


@numba.njit
def run_alone(address, job, thread, threads):
    """Run a job on one of several threads while the others never arrive; return how many units failed."""
    executor._clear(job, threads)
    executor._call_execute(address, job, thread)
    return executor._failures(job)


@pytest.mark.parametrize("units", [1, 2, 7, 100])
@pytest.mark.parametrize(("thread", "threads"), [(0, 1), (0, 2), (1, 2), (2, 5), (4, 5)])
def test_a_thread_does_its_own_share_first_and_then_that_of_others_who_never_come(thread, threads, units):
    graph, x = new_graph(1)
    (order, calls), found, count = in_order(x, units), np.zeros(units, "float32"), np.zeros(1, "float32")
    workspace = prepared(graph, 1, threads, [(x, numbers(1, 1)), (order, found), (calls, count)])
    _, address, job, _ = workspace.call(threads)
    assert run_alone(address, job, thread, threads) == 0
    assert count == units
    shares = [range(-(-k * units // threads), -(-(k + 1) * units // threads)) for k in range(threads)]
    expected = [unit for k in range(threads) for unit in shares[(thread + k) % threads]]
    np.testing.assert_array_equal(np.argsort(found), expected)
    assert sorted(expected) == list(range(units))


@pytest.mark.parametrize("threads", THREADS)
def test_into_how_many_units_may_follow_from_the_number_of_samples(threads):
    graph, x = new_graph(1)
    y, out = batch(x, 50, units=lambda samples: 2 * samples), np.zeros(50, "float32")
    run(prepared(graph, 7, threads, [(x, numbers(7, 1)), (y, out)]), threads)
    np.testing.assert_array_equal(out, [*(1000 + np.arange(14)), *np.zeros(36)])


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("together", [1, 4, 100])
@pytest.mark.parametrize("n", SAMPLES)
def test_each_chunk_has_its_samples_once_and_an_empty_one_zeros(n, together, threads):
    graph, x = new_graph(3)
    sums = count(double(x, together=together))
    array, found = numbers(n, 3), np.full((chunk_count(n), 2), np.nan, "float32")
    run(prepared(graph, n, threads, [(x, array), (sums, found)]), threads)
    bounds = [i * n // len(found) for i in range(len(found) + 1)]
    expected = [(end - begin, 2 * array[begin:end].sum()) for begin, end in itertools.pairwise(bounds)]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize(("rows", "grain"), [(1, 1), (8, 1), (40, 1), (40, 4), (41, 6), (7, 16)])
@pytest.mark.parametrize("n", [0, 1, 2])
def test_bands_have_each_row_once_and_begin_at_multiples_of_the_grain(n, rows, grain, threads):
    graph, x = new_graph(rows)
    y, out = mark_rows(x, grain=grain), np.zeros((n, rows), "float32")
    workspace = prepared(graph, n, threads, [(x, numbers(n, rows)), (y, out)], banded=True)
    run(workspace, threads)
    tops = out - 1000
    assert ((tops >= 0) & (tops <= np.arange(rows)) & (tops % grain == 0)).all()
    assert (np.diff(tops) >= 0).all()
    for sample in tops:
        pieces = -(-rows // grain)
        assert len(set(sample)) == min(pieces, workspace.layout.bands)


@pytest.mark.parametrize("threads", THREADS)
def test_a_stage_that_fails_is_an_error_in_whichever_thread_and_the_next_run_is_none(threads):
    graph, x = new_graph(1)
    y, out = fail_at_three(x, 8), np.zeros(8, "float32")
    workspace = prepared(graph, 1, threads, [(x, numbers(1, 1)), (y, out)])
    for _ in range(2):
        out[:] = 0
        with pytest.raises(RuntimeError, match=r"^1 units of the plan failed"):
            run(workspace, threads)
        np.testing.assert_array_equal(out, [1, 1, 1, 0, 1, 1, 1, 1])
    graph, x = new_graph(1)
    y, out = fail_at_three(x, 3), np.zeros(3, "float32")
    run(prepared(graph, 1, threads, [(x, numbers(1, 1)), (y, out)]), threads)
    assert out.tolist() == [1, 1, 1]


@pytest.mark.parametrize("threads", THREADS)
def test_a_stage_runs_only_for_its_purposes(threads):
    graph, x = new_graph(1)
    outs = [(batch(x), np.zeros(1, "float32")) for _ in range(3)]
    purposes = {0: WEIGHTS, 1: INPUT, 2: WEIGHTS | INPUT}
    workspace = prepared(graph, 1, threads, [(x, numbers(1, 1)), *outs], purposes)
    for wanted, expected in ((WEIGHTS, [1, 0, 1]), (INPUT, [0, 1, 1]), (WEIGHTS | INPUT, [1, 1, 1])):
        for _, out in outs:
            out[:] = 0
        run(workspace, threads, purposes=wanted)
        assert [out[0] != 0 for _, out in outs] == expected


@pytest.mark.parametrize("threads", THREADS)
def test_sections_run_one_by_one(threads):
    graph, x = new_graph(1)
    outs = []
    for graph.section in (0, 1, 3):
        outs.append((batch(x), np.zeros(1, "float32")))
    workspace = prepared(graph, 1, threads, [(x, numbers(1, 1)), *outs])
    for section, expected in ((1, [0, 1, 0]), (2, [0, 1, 0]), (0, [1, 1, 0]), (3, [1, 1, 1]), (None, [2, 2, 2])):
        run(workspace, threads, section)
        assert [out[0] // 1000 for _, out in outs] == expected


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("how", [{}, {"joined": False}, {"banded": True}])
def test_one_workspace_serves_any_number_of_samples(how, threads):
    graph, x = new_graph(2, 8, 3)
    y = double(double(double(x)), together=3)
    workspace = None
    for n in (*SAMPLES, 1, 33):
        array, out = numbers(n, 2, 8, 3), np.zeros((n, 2, 8, 3), "float32")
        workspace = workspace or prepared(graph, n, threads, [(x, array), (y, out)], **how)
        workspace.prepare(n, threads)
        for buffer, given in ((x, array), (y, out)):
            workspace.table[FIXED_WORDS + buffer.number] = given.ctypes.data
        run(workspace, threads)
        assert shape_of(y, n) == out.shape
        np.testing.assert_array_equal(out, 8 * array)
