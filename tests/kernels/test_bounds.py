"""With numba's bounds checking, a stage that reads or writes outside an array fails the run with an error."""

import numba
import numpy as np
import pytest

from cnnlite.engine import program
from cnnlite.engine.buffers import N
from cnnlite.engine.graph import Graph
from cnnlite.engine.jit import jit
from cnnlite.engine.plan import Plan
from cnnlite.engine.stages import PIXEL, array, stage
from tests.kernels.drawn import compiled_kernels_needed

pytestmark = compiled_kernels_needed


@jit
def _write(y, i, shift):
    y[i + shift] = 1


@stage(reads="x", writes="y", sizes="size shift", footprint=PIXEL)
def _ones(r, run, first, last):
    y = array(run, r.y, (last * r.size,))
    for i in range(first * r.size, last * r.size):
        _write(y, i, r.shift)


@pytest.mark.parametrize("threads", [1, 2])
def test_an_index_beyond_an_array_is_an_error_in_every_thread(threads, monkeypatch):
    monkeypatch.setattr(numba.config, "BOUNDSCHECK", 1)
    monkeypatch.setattr(program.thread_pool, "take", lambda: threads)
    monkeypatch.setattr(program.thread_pool, "give_back", lambda: None)
    for shift in (0, 1):
        graph = Graph(np.float32)
        x, y = graph.given((N, 4)), graph.work((N, 4))
        graph.add(_ones, x=x, y=y, size=4, shift=shift, work=program.SMALL_WORK)
        plan, arrays = Plan(graph, [y]), {x.number: np.zeros((16, 4), np.float32)}
        if shift:
            with pytest.raises(RuntimeError, match="16 units of the plan failed: a stage read out of bounds"):
                plan.run(16, arrays)
        else:
            np.testing.assert_array_equal(plan.run(16, arrays)[0], 1)
