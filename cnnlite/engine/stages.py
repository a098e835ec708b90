"""A stage: a compiled function with a fixed signature, its inputs and outputs, and its footprint.

    @stage(reads="x", writes="y", sizes="rows numbers", footprint=PIXEL)
    def relu(r, run, first, last):
        ...

    r               the record of the stage's arguments: the place of each buffer in the run's table, and numbers
    run             the table of the run: a few words about it (SAMPLES, UNIT, ...), and the address of each buffer
    first, last     the part to compute: the samples from `first` up to but not including `last`; or units, for BATCH

So every stage has these four arguments, whatever it computes; the fields of a record have names; and since a record
holds places instead of addresses, it serves all runs, concurrent ones too. `array(run, r.x, shape)` is the array of a
buffer.

The footprint says what a stage needs to compute a part of its result; the schedule follows from it (`schedule.py`):

    PIXEL   the same rows of the same samples: an activation
    HALO    also neighbouring rows of the same samples: a convolution, a pooling
    IMAGE   all of the same samples: a softmax over all pixels
    BATCH   anything: it is split into units of its own, and all of its inputs must be complete

A stage that `adds` up over samples does so for each chunk of a batch, in a buffer with one slot per chunk.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

from cnnlite.engine.jit import Task, jit, stage_address, stage_is_kept, tasks

PIXEL, HALO, IMAGE, BATCH = "pixel", "halo", "image", "batch"

# The first words of a run's table. The address of a buffer is at FIXED_WORDS + its number.
SAMPLES = 0  # the number of samples
UNIT = 1  # the number of the unit, or chunk, that is being computed
BEGIN, END = 2, 3  # its samples
BAND, BANDS = 4, 5  # which band of rows, of how many
GRAIN = 6  # each band but the last has this many rows, or a multiple
CHUNKS = 7  # how many chunks the batch is split into
SCRATCH = 8  # the address of the stage's scratch memory
NONE = 9  # the place of an absent buffer: its address is 0
FIXED_WORDS = 10

_int64 = ir.IntType(64)


class Stage:
    """A stage's function, and its description as passed to `stage`.

    Attributes:
        name: the name of the function.
        function: the function, not compiled.
        reads, writes, adds: the names of its buffers.
        record: the dtype of its records.
        footprint, spreads: as passed to `stage`.
        addresses: the function's addresses, by the dtypes that this process has compiled or loaded it for.
        task: its name in `jit.tasks`.
    """

    def __init__(self, function: Any, reads: str, writes: str, adds: str, sizes: str, floats: str,
                 footprint: str, spreads: bool) -> None:
        self.name = function.__name__.strip("_")
        self.function = function
        self.reads, self.writes, self.adds = reads.split(), writes.split(), adds.split()
        self.buffers = tuple(dict.fromkeys([*self.reads, *self.writes, *self.adds]))
        self.sizes, self.floats = sizes.split(), floats.split()
        names = [*self.buffers, *self.sizes]
        self.record = np.dtype([(name, np.int64) for name in names] + [(name, np.float64) for name in self.floats])
        self.footprint, self.spreads = footprint, spreads
        self.addresses: dict[np.dtype[Any], int] = {}
        # The line number distinguishes functions of the same name.
        self.task = f"{function.__module__}:{function.__qualname__}:{function.__code__.co_firstlineno}"
        tasks[self.task] = Task(self.address, lambda dtype: stage_is_kept(function, self._kinds(dtype)))

    def address(self, dtype: np.dtype[Any]) -> int:
        """Return the address of the function, compiled for arrays of a dtype on the first call."""
        if dtype not in self.addresses:
            self.addresses[dtype] = stage_address(self.function, self._kinds(dtype))
        return self.addresses[dtype]

    def _kinds(self, dtype: np.dtype[Any]) -> Any:
        return numba.from_dtype(self.record), types.CPointer(numba.from_dtype(dtype)), types.int64, types.int64

    def __repr__(self) -> str:
        return f"<Stage {self.name}>"


def stage(*, reads: str = "", writes: str = "", adds: str = "", sizes: str = "", floats: str = "",
          footprint: str = IMAGE, spreads: bool = False) -> Any:
    """Make a `Stage` of a function (r, run, first, last).

    Args:
        reads, writes, adds: the names of the buffers that it reads; those that it writes; and those in which it sums
            over samples, with one slot per chunk.
        sizes, floats: the names of the integers and floats in its record.
        footprint: PIXEL, HALO, IMAGE or BATCH.
        spreads: whether its output may be recomputed where it is needed, instead of being kept.
    """
    return lambda function: Stage(function, reads, writes, adds, sizes, floats, footprint, spreads)


# Functions for use in stages.


@intrinsic
def word(typingctx, run, index):
    """Return a word of the table of a run."""

    def codegen(context, builder, signature, args):
        table = builder.bitcast(args[0], _int64.as_pointer())
        return builder.load(builder.gep(table, [args[1]]))

    return types.int64(run, types.int64), codegen


def _array(context, builder, kind, address, shape):
    array = make_array(kind)(context, builder)
    itemsize = context.get_abi_sizeof(context.get_data_type(kind.dtype))
    strides: list[Any] = []
    step = ir.Constant(_int64, itemsize)
    for size in reversed(shape):
        strides.insert(0, step)
        step = builder.mul(step, size)
    data = builder.inttoptr(address, context.get_data_type(kind.dtype).as_pointer())
    populate_array(array, data=data, shape=shape, strides=strides, itemsize=itemsize, meminfo=None)
    return array._getvalue()


def _item_of(kind):
    return kind.instance_type if isinstance(kind, types.NumberClass) else kind.dtype


@intrinsic
def array_at(typingctx, address, shape, dtype):
    """Return a C-contiguous array of that shape and dtype at an address."""
    kind = types.Array(_item_of(dtype), len(shape), "C")

    def codegen(context, builder, signature, args):
        return _array(context, builder, kind, args[0], cgutils.unpack_tuple(builder, args[1], len(shape)))

    return kind(types.int64, types.UniTuple(types.int64, len(shape)), dtype), codegen


@intrinsic
def array(typingctx, run, place, shape):
    """Return the array of a buffer, of the dtype of the run: float32 or float64."""
    kind = types.Array(run.dtype, len(shape), "C")

    def codegen(context, builder, signature, args):
        table = builder.bitcast(args[0], _int64.as_pointer())
        address = builder.load(builder.gep(table, [args[1]]))
        return _array(context, builder, kind, address, cgutils.unpack_tuple(builder, args[2], len(shape)))

    return kind(run, types.int64, types.UniTuple(types.int64, len(shape))), codegen


@intrinsic
def array_as(typingctx, run, place, shape, dtype):
    """Return the array of a buffer whose dtype is not that of the run."""
    kind = types.Array(_item_of(dtype), len(shape), "C")

    def codegen(context, builder, signature, args):
        table = builder.bitcast(args[0], _int64.as_pointer())
        address = builder.load(builder.gep(table, [args[1]]))
        return _array(context, builder, kind, address, cgutils.unpack_tuple(builder, args[2], len(shape)))

    return kind(run, types.int64, types.UniTuple(types.int64, len(shape)), dtype), codegen


@intrinsic
def scratch(typingctx, run, offset, shape):
    """Return an array of the run's dtype, at an offset in bytes into the stage's scratch memory."""
    kind = types.Array(run.dtype, len(shape), "C")

    def codegen(context, builder, signature, args):
        table = builder.bitcast(args[0], _int64.as_pointer())
        address = builder.load(builder.gep(table, [ir.Constant(_int64, SCRATCH)]))
        address = builder.add(address, args[1])
        return _array(context, builder, kind, address, cgutils.unpack_tuple(builder, args[2], len(shape)))

    return kind(run, types.int64, types.UniTuple(types.int64, len(shape))), codegen


@intrinsic
def call_stage(typingctx, address, r, run, first, last):
    """Call the function of another stage by its address, with this stage's record and table.

    So a fallback that only some inputs need is compiled once, and not into every stage that uses it.
    """

    def codegen(context, builder, signature, args):
        address, r, run, first, last = args
        kinds = (types.voidptr, types.voidptr, types.int64, types.int64)
        pointer = ir.IntType(8).as_pointer()
        function = builder.inttoptr(address, context.call_conv.get_function_type(types.none, kinds).as_pointer())
        arguments = [builder.bitcast(r, pointer), builder.bitcast(run, pointer), first, last]
        status, _ = context.call_conv.call_function(builder, function, types.none, kinds, arguments)
        with cgutils.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return context.get_dummy_value()

    return types.void(types.int64, r, run, types.int64, types.int64), codegen


@jit
def band_rows(run, rows):
    """Return (first, last) of the rows of an image that are in this unit's band."""
    band, bands, grain = word(run, BAND), word(run, BANDS), word(run, GRAIN)
    pieces = (rows + grain - 1) // grain
    return band * pieces // bands * grain, min(rows, (band + 1) * pieces // bands * grain)


@jit
def span(run, first, last, rows, numbers):
    """Return (start, stop) of the elements to compute, if each sample has `numbers` of them in `rows` rows."""
    if word(run, BANDS) == 1:
        return first * numbers, last * numbers
    top, bottom = band_rows(run, rows)
    return first * numbers + top * (numbers // rows), first * numbers + bottom * (numbers // rows)
