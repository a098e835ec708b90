"""The one place that emits vector code: loads, multiply-adds and loops, in LLVM IR.

A vector instruction works on 8 or 16 numbers at once. Compilers vectorise simple loops, and most of cnnlite relies on
that. In three cases numba's compiler does not, and the loops are written by hand:

- Sums that must stay in registers. A tile of the matrix product has 16 vectors of them (`microkernel.py`); numba would
  keep an array of sums in memory.
- Many places read and written in turn, such as the 36 of a Winograd tile (`winograd_transforms.py`). The compiler can't
  know that they don't overlap.
- Short loops over the channels of a pixel (`rows.py`, `windows.py`). Before each, compiled code would test whether the
  arrays overlap, and process what doesn't fill a vector one number at a time: 10 µs for a pooling that now takes 2.

LLVM IR is the same for all processors. A vector here is as wide as the machine's registers, and LLVM chooses the
instructions, the registers and the addressing.

**How it is written.** A `vector_function` is Python that runs once, when numba compiles its caller. Each method of the
`Emitter` then appends an instruction and returns its result, a value that will exist only when the code runs. Channels
are the outer loop, a group of vectors at a time, so that coefficients and sums stay in registers; pixels are the inner
one. This multiplies each channel of the rows x (rows, channels) by its own factor:

    @vector_function
    def scale_rows(emit, x, rows, channels, scale, y):
        def write(group):                                     # a group of vectors of channels
            scales = emit.load_group(scale, group)            # stays in registers
            def row(k, _):
                place = emit.builder.mul(k, channels)
                numbers = emit.load_group(emit.address(x, place), group)
                products = [emit.builder.fmul(number, factor) for number, factor in zip(numbers, scales)]
                emit.store_group(products, emit.address(y, place), group)
            emit.loop(rows, [], row)
        emit.channel_groups(channels, write)

A compiled function calls it as `scale_rows(scale, x, rows, channels, scale, y)`, with arrays or addresses. The inner
loop becomes, for one vector (LLVM unrolls it eight times):

    loop: vmovups  (%r12), %zmm3 {%k1} {z}     ; only the lanes in the mask k1 are read, the others are 0
          vmulps   %zmm3, %zmm2, %zmm3
          vmovups  %zmm3, (%r13) {%k1}         ; and only these are written
          addq     %r10, %r13                  ; on to the next row
          addq     %r10, %r12
          decq     %rbp
          jne      loop

Nothing is reordered. The flags of `engine/jit.py` apply to this code too, so LLVM may fuse a product with the addition
that uses it; `multiply_add` makes it do so wherever the machine can. Nothing is checked.
"""

import inspect

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from cnnlite.engine.target import FUSED_MULTIPLY_ADD, VECTOR_BYTES

int8, int32, int64 = (ir.IntType(bits) for bits in (8, 32, 64))

VECTORS_TOGETHER = 4  # in a group of channels; their sums and coefficients, up to 16 vectors, stay in registers


class Emitter:
    """Appends instructions on vectors of one element type to a function that is being compiled.

    Attributes:
        builder: llvmlite's, for instructions that need no help: `add` and `mul` of integers, `fadd`, `fmul`, ...
        item: the element type, `float` or `double`; `itemsize` is its size in bytes.
        lanes: how many elements a vector has.
        vector, wide: the type of a vector, and of one with as many lanes in float64.
    """

    def __init__(self, builder, item):
        self.builder, self.item = builder, item
        self.itemsize = _bytes(item)
        self.dtype = np.float32 if self.itemsize == 4 else np.float64
        self.lanes = VECTOR_BYTES // self.itemsize
        self.vector = self.vector_of(item)
        self.wide = self.vector_of(ir.DoubleType())

    # Values

    def vector_of(self, item):
        return ir.VectorType(item, self.lanes)

    def number(self, value):
        """Return an integer constant, for addresses and counts."""
        return ir.Constant(int64, value)

    def constant(self, value):
        """Return a constant vector with one number in all lanes."""
        return ir.Constant(self.vector, [float(self.dtype(value))] * self.lanes)

    def zeros(self, kind=None):
        return ir.Constant(kind or self.vector, None)

    def steps(self, item):
        """Return the integers 0, 1, 2, ..., one per lane."""
        return ir.Constant(self.vector_of(item), list(range(self.lanes)))

    def splat(self, value):
        """Return a vector with one value in all lanes."""
        undefined = ir.Constant(self.vector_of(value.type), ir.Undefined)
        one = self.builder.insert_element(undefined, value, ir.Constant(int32, 0))
        return self.builder.shuffle_vector(one, undefined, self.zeros(self.vector_of(int32)))

    def mask(self, count):
        """Return a mask of the first `count` lanes; the wider its integer type, the longer it takes to compute."""
        return self.builder.icmp_signed("<", self.steps(count.type), self.splat(count))

    # Arithmetic

    def multiply_add(self, a, b, c):
        """Return a * b + c, with one rounding wherever the machine has the instruction."""
        if not FUSED_MULTIPLY_ADD:
            return self.builder.fadd(self.builder.fmul(a, b), c)
        return self._call(f"llvm.fma.{self._suffix(a.type)}", a.type, [a, b, c])

    def zero_unless(self, holds, value):
        """Return the value with 0 in the lanes where a condition doesn't hold, whatever they contain, even NaN."""
        return self.builder.select(holds, value, self.zeros(value.type))

    def widen(self, value):
        """Return a vector converted to float64."""
        return value if self.vector == self.wide else self.builder.fpext(value, self.wide)

    def narrow(self, value):
        """Return a wide vector rounded to the element type."""
        return value if self.vector == self.wide else self.builder.fptrunc(value, self.vector)

    # Memory

    def address(self, base, elements, itemsize=None):
        """Return the address `elements` elements after `base`."""
        return self.builder.add(base, self.builder.mul(elements, self.number(itemsize or self.itemsize)))

    def broadcast(self, address):
        """Return a vector with the number at an address in all lanes."""
        return self.splat(self.load(address, kind=self.item))

    def load(self, address, mask=None, kind=None):
        """Return the vector at an address of any alignment; the lanes that a mask leaves out are 0, and not read."""
        kind = kind or self.vector
        pointer = self.builder.inttoptr(address, kind.as_pointer())
        if mask is None:
            return self.builder.load(pointer, align=_bytes(kind))
        arguments = [pointer, ir.Constant(int32, _bytes(kind)), mask, self.zeros(kind)]
        return self._call(f"llvm.masked.load.{self._suffix(kind, pointer=True)}", kind, arguments)

    def store(self, value, address, mask=None):
        """Write a vector to an address; the memory of the lanes that a mask leaves out is not touched."""
        pointer = self.builder.inttoptr(address, value.type.as_pointer())
        if mask is None:
            self.builder.store(value, pointer, align=_bytes(value.type))
            return
        arguments = [value, pointer, ir.Constant(int32, _bytes(value.type)), mask]
        self._call(f"llvm.masked.store.{self._suffix(value.type, pointer=True)}", ir.VoidType(), arguments)

    def load_group(self, address, group):
        """Return the vectors of a group (see `channel_groups`) of the channels at an address."""
        return [self.load(self.address(address, first), mask) for first, mask in group]

    def store_group(self, values, address, group):
        for value, (first, mask) in zip(values, group):
            self.store(value, self.address(address, first), mask)

    # Control

    def loop(self, count, carried, body):
        """Emit `for k in range(count)`, and return the values that it carries from iteration to iteration.

        `body(k, carried)` emits an iteration and returns the new values, or None if it carries none. If the count is a
        Python integer, the loop is fully unrolled.
        """
        if isinstance(count, int):
            for k in range(count):
                carried = body(self.number(k), carried) or []
            return carried
        builder, before = self.builder, self.builder.block
        head, inside, after = (builder.append_basic_block(name) for name in ("head", "inside", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        # A phi is a value that depends on where control came from: from before the loop, or from its end.
        values = [self.number(0), *carried]
        phis = [builder.phi(value.type) for value in values]
        for phi, value in zip(phis, values):
            phi.add_incoming(value, before)
        builder.cbranch(builder.icmp_signed("<", phis[0], count), inside, after)
        builder.position_at_end(inside)
        new = body(phis[0], phis[1:]) or []
        new = [builder.add(phis[0], self.number(1)), *new]
        for phi, value in zip(phis, new):
            phi.add_incoming(value, builder.block)
        builder.branch(head)
        builder.position_at_end(after)
        return phis[1:]

    def either(self, condition, body):
        """Emit two versions, `body(True)` for where the condition holds and `body(False)` for where it does not."""
        with self.builder.if_else(condition) as (holds, fails):
            with holds:
                body(True)
            with fails:
                body(False)

    def channel_groups(self, channels, body, together=VECTORS_TOGETHER):
        """Emit the loop over the vectors of channels; `body(group)` emits the code for a group of them.

        A group is a list of (first channel, mask). Groups have `together` vectors, a power of 2, then half as many, and
        so on: a pass over every second or fourth vector would leave most of the first-level cache unused.
        """
        builder, lanes = self.builder, self.number(self.lanes)
        vectors = builder.sdiv(builder.add(channels, self.number(self.lanes - 1)), lanes)
        done = self.number(0)
        while together:
            count = builder.sdiv(builder.sub(vectors, done), self.number(together))

            def emit_group(k, _, done=done, together=together):
                begin = builder.add(done, builder.mul(k, self.number(together)))
                firsts = [builder.mul(builder.add(begin, self.number(i)), lanes) for i in range(together)]
                # The last vector may overhang: the mask keeps it from touching what follows the channels.
                body([(first, self.mask(builder.sub(channels, first))) for first in firsts])

            self.loop(count, [], emit_group)
            done = builder.add(done, builder.mul(count, self.number(together)))
            together //= 2

    def _suffix(self, kind, pointer=False):
        """Return the suffix in LLVM's names of functions for a vector type."""
        name = f"v{kind.count}" + {"float": "f32", "double": "f64", "i8": "i8"}[str(kind.element)]
        return f"{name}.p0{name}" if pointer else name

    def _call(self, name, result, arguments):
        module = self.builder.module
        function_type = ir.FunctionType(result, [argument.type for argument in arguments])
        function = module.globals.get(name) or ir.Function(module, function_type, name)
        return self.builder.call(function, arguments)


def _bytes(kind):
    """Return the bytes of a number, or of an element of a vector."""
    kind = getattr(kind, "element", kind)
    return {"float": 4, "double": 8, "i8": 1}[str(kind)]


def item_of(kind):
    """Return LLVM's type for a numba type of numbers, or for the elements of an array, a pointer or a dtype."""
    return {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}[getattr(kind, "dtype", kind)]


def vector_function(write):
    """Turn `write(emit, *arguments)`, which emits code, into a function f(of, *arguments) for compiled code to call.

    `of` gives the element type: a number, an array, a pointer or a dtype. The arguments are integers (addresses,
    counts, distances in elements), possibly in tuples; booleans; and arrays and pointers, whose addresses `write`
    gets. The function returns nothing.
    """
    _, *parameters = inspect.signature(write).parameters.values()
    own = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("typingctx", "of")]
    signature = inspect.Signature([*own, *parameters])

    def definition(*args, **kwargs):
        _, of, *given = signature.bind(*args, **kwargs).args
        kinds = [_passed_as(types.unliteral(kind)) for kind in given]

        def codegen(context, builder, signature, args):
            emit = Emitter(builder, item_of(signature.args[0]))
            write(emit, *(_unpacked(context, builder, kind, value) for kind, value in zip(kinds, args[1:])))
            return context.get_dummy_value()

        return types.void(of, *kinds), codegen

    definition.__signature__ = signature  # numba looks at its parameters
    for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(definition, attribute, getattr(write, attribute))
    return intrinsic(definition)


def _passed_as(kind):
    if isinstance(kind, types.BaseTuple):
        return types.UniTuple(types.int64, len(kind))
    return kind if isinstance(kind, (types.Boolean, types.CPointer, types.Array)) else types.int64


def _unpacked(context, builder, kind, value):
    if isinstance(kind, types.BaseTuple):
        return cgutils.unpack_tuple(builder, value)
    if isinstance(kind, types.Array):
        value = context.make_array(kind)(context, builder, value).data
    return builder.ptrtoint(value, int64) if isinstance(kind, (types.CPointer, types.Array)) else value
