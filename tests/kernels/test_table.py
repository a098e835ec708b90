"""Kernels that are compiled when they are first called."""

import threading

import numpy as np
import pytest
from numba import types

from cnnlite.engine.jit import kernel
from cnnlite.kernels.table import Table, call
from tests.kernels.drawn import compiled_kernels_needed

pytestmark = compiled_kernels_needed
ARRAY = types.float64[::1]


@kernel
def _one(kernels, x):
    x[0] = 1
    call(kernels, 1, (x,))


@kernel
def _two(x):
    x[1] = 2


@kernel
def _never(x):
    x[2] = 3


@kernel
def _work(kernels, x):
    call(kernels, 0, (kernels, x))


@kernel
def _call_with_other_types(kernels, x):
    call(kernels, 1, (x, 1))


@pytest.fixture
def table():
    return Table([(_one, (types.UniTuple(types.int64, 1), ARRAY)), (_two, (ARRAY,)), (_never, (ARRAY,))])


def compiled(table):
    return [table._compiled >> number & 1 for number in range(3)]


def test_a_kernel_is_compiled_when_it_is_called_and_those_that_it_calls_too(table):
    x = np.zeros(3)
    table.complete(lambda: _work((table.address,), x))
    assert x.tolist() == [1, 2, 0]
    assert compiled(table) == [1, 1, 0]


def test_work_that_began_before_another_thread_had_compiled_what_it_calls_is_done_again(table):
    x, turns = np.zeros(3), []

    def other():
        mine = np.zeros(3)
        table.complete(lambda: _work((table.address,), mine))

    def work():
        _work((table.address,), x)
        if not turns:  # between the call in vain and the look at whether one was
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
        turns.append(x.tolist())

    table.complete(work)
    assert turns == [[0, 0, 0], [1, 2, 0]]


def test_a_call_with_other_types_than_those_of_the_kernel_is_an_error(table):
    x = np.zeros(3)
    table.complete(lambda: _work((table.address,), x))
    with pytest.raises(TypeError, match="does not take these types"):
        _call_with_other_types((table.address,), x)
