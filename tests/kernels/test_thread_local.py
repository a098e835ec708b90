"""What a stage keeps in thread-local memory between calls within a chunk."""

import numpy as np
import pytest

from cnnlite.engine.stages import BEGIN, CHUNKS, END, UNIT, array, array_as, stage, word
from cnnlite.kernels.sums import add_chunks, chunk_sums
from tests.kernels.drawn import compiled_kernels_needed
from tests.kernels.stages import results

pytestmark = compiled_kernels_needed


@stage(reads="x", writes="kept calls", adds="sums", sizes="size")
def _add_up_in_thread_local_memory(r, run, first, last):
    kept, calls = array_as(run, r.kept, (r.size,), np.float64), array_as(run, r.calls, (1,), np.int64)
    if first == word(run, BEGIN):
        calls[0] = 0
        for i in range(r.size):
            kept[i] = 0
    x = array(run, r.x, (last, r.size))
    for n in range(first, last):
        for i in range(r.size):
            kept[i] += x[n, i]
    calls[0] += 1
    if last == word(run, END):
        sums = array(run, r.sums, (word(run, CHUNKS), r.size + 1))[word(run, UNIT)]
        for i in range(r.size):
            sums[i] = kept[i]
        sums[r.size] = calls[0]


def total(x):
    """Return the sums of x and the number of calls, from two such stages side by side."""
    graph, size, results = x.graph, x.shape[1], []
    for _ in range(2):
        sums, out = chunk_sums(graph, (size + 1,)), graph.work((size + 1,))
        kept, calls = graph.thread_local((size,), np.float64), graph.thread_local((1,), np.int64)
        graph.add(_add_up_in_thread_local_memory, x=x, kept=kept, calls=calls, sums=sums, size=size, together=1)
        add_chunks(sums, out)
        results.append(out)
    return results


@pytest.mark.parametrize("how", [{}, {"joined": False}, {"threads": 2}, {"threads": 2, "joined": False}])
@pytest.mark.parametrize("n", [1, 3, 50])
def test_it_is_there_until_the_chunk_is_done_and_each_stage_has_its_own(n, how):
    x = np.random.default_rng(0).integers(0, 100, (n, 9)).astype(np.float32)
    for out in results(total, {"x": x}, "x", **how):
        np.testing.assert_array_equal(out, [*x.sum(axis=0), n])
