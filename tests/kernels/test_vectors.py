"""Guarantees of the vector code emitter: a single rounding, masks, and calls by name with pairs and booleans."""

import numba
import numpy as np
import pytest

from cnnlite.engine.target import FUSED_MULTIPLY_ADD, VECTOR_BYTES
from cnnlite.kernels.llvm.vectors import vector_function
from tests.kernels.drawn import between_canaries, compiled_kernels_needed
from tests.kernels.vector_calls import CHANNELS, DTYPES, compiled

pytestmark = compiled_kernels_needed


@vector_function
def multiply_add(emit, a, b, c, y):
    """Write a * b + c, where each is one vector."""
    emit.store(emit.multiply_add(*(emit.load(address) for address in (a, b, c))), y)


@vector_function
def count_groups(emit, channels, counts):
    """Add to each channel 1 plus 100 times the size of its group."""
    def count(group):
        seen = emit.load_group(counts, group)
        one = emit.constant(1 + 100 * len(group))
        emit.store_group([emit.builder.fadd(numbers, one) for numbers in seen], counts, group)

    emit.channel_groups(channels, count, together=4)


@vector_function
def add_range(emit, counts, negative, y):
    """Add sum(range(counts[0])) + sum(range(3)), the latter a compile-time loop, to y, or subtract it if negative."""
    def add(k, carried):
        return [emit.builder.add(carried[0], k)]

    run, _ = counts
    carried = emit.loop(3, emit.loop(run, [emit.number(0)], add), add)
    total = emit.builder.sitofp(carried[0], emit.item)
    before = emit.load(y, kind=emit.item)
    emit.either(negative, lambda negative: emit.store(
        (emit.builder.fsub if negative else emit.builder.fadd)(before, total), y))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_multiply_add_rounds_once_where_the_machine_has_the_instruction(dtype):
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    h = 0.5 ** (np.finfo(dtype).nmant // 2 + 2)
    a, c, y = np.full(lanes, 1 + h, dtype), np.full(lanes, -(1 + 2 * h), dtype), np.empty(lanes, dtype)
    compiled(multiply_add)(dtype, a, a, c, y)
    # (1 + h)² is 1 + 2h + h², where h² is lost if the product is rounded before the addition.
    assert (y == (h**2 if FUSED_MULTIPLY_ADD else 0)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_groups_hold_each_channel_once_and_are_as_large_as_they_can_be(dtype):
    call, lanes = compiled(count_groups), VECTOR_BYTES // np.dtype(dtype).itemsize
    for channels in CHANNELS:
        counts, intact = between_canaries((channels,), dtype)
        counts[:] = 0
        call(dtype, channels, counts)
        assert intact()
        vectors = -(-channels // lanes)
        sizes = [4] * (vectors // 4) + [2] * (vectors % 4 // 2) + [1] * (vectors % 2)
        expected = np.repeat([1 + 100 * size for size in sizes for _ in range(size)], lanes)[:channels]
        np.testing.assert_array_equal(counts, expected)


def test_loops_carry_values_and_arguments_may_be_pairs_booleans_arrays_and_named():
    @numba.njit
    def call(run, negative, y):
        add_range(y, (run, 0), y=y[1:], negative=negative)
        add_range(y.dtype, (1, run), negative, y.ctypes.data)

    for run, negative, expected in ((5, False, 13), (5, True, -13), (0, False, 3), (-3, False, 3)):
        y = np.zeros(3, "f4")
        call(run, negative, y)
        np.testing.assert_array_equal(y, [-3 if negative else 3, expected, 0])
