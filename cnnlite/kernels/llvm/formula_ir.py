"""Formulas in Python that become LLVM instructions; `elementary.py` is written in them.

    @formula
    def square_plus_one(x):
        return fma(x, x, 1.0)

makes a function that kernels can call. While numba compiles such a kernel, the body runs once with a `Number` standing
for x, and each operation appends an instruction to the kernel. It differs from code that numba compiles:

- Everything has the dtype of x. A Python number becomes a constant of that dtype, where numba would continue in
  float64, and would widen 32-bit integers to 64 bits.
- Nothing is contracted. Elsewhere LLVM may fuse a product and a sum in the body of a vector loop, and not fuse them in
  its remainder. Here only `fma` fuses: a product that ends a formula is not fused with a sum in its caller either.
- It contains no branches, and no calls that might not be inlined. So a loop around it can be vectorised.

A Number may also stand for a vector, in hand-written vector code: `softmax_rows.py`.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cnnlite.engine.target import FUSED_MULTIPLY_ADD, VECTOR_BYTES

# An instruction without any flag would get those of the kernels, "contract" among them.
_FLAGS = ("nsz",)

# On most processors with AVX-512, LLVM uses only half of the register width, to avoid a lower clock rate. These loops
# have some 20 operations for each number that is read, and take two thirds of the time at full width. llvmlite does not
# know this function attribute.
_FULL_WIDTH = f'"prefer-vector-width"="{8 * VECTOR_BYTES}"'


class Number:
    """A floating-point number, or a vector of them, in the code being emitted."""

    def __init__(self, builder, value):
        self.builder, self.value = builder, value
        self.type = value.type
        self.item = getattr(value.type, "element", value.type)
        self.is_single = isinstance(self.item, ir.FloatType)
        word = ir.IntType(32 if self.is_single else 64)
        self.word_type = ir.VectorType(word, value.type.count) if isinstance(value.type, ir.VectorType) else word

    def like(self, value):
        """Return a Python number as a constant of this type; a Number as it is."""
        return value if isinstance(value, Number) else Number(self.builder, _constant(self.type, value))

    def _binary(self, instruction, a, b):
        a, b = self.like(a), self.like(b)
        return Number(self.builder, getattr(self.builder, instruction)(a.value, b.value, flags=_FLAGS))

    def __add__(self, other):
        return self._binary("fadd", self, other)

    def __radd__(self, other):
        return self._binary("fadd", other, self)

    def __sub__(self, other):
        return self._binary("fsub", self, other)

    def __rsub__(self, other):
        return self._binary("fsub", other, self)

    def __mul__(self, other):
        return self._binary("fmul", self, other)

    def __rmul__(self, other):
        return self._binary("fmul", other, self)

    def __truediv__(self, other):
        return self._binary("fdiv", self, other)

    def __rtruediv__(self, other):
        return self._binary("fdiv", other, self)

    def __neg__(self):
        return Number(self.builder, self.builder.fneg(self.value, flags=_FLAGS))

    def _compare(self, sign, other):
        return self.builder.fcmp_ordered(sign, self.value, self.like(other).value)

    def __lt__(self, other):
        return self._compare("<", other)

    def __gt__(self, other):
        return self._compare(">", other)

    def equals(self, other):
        return self._compare("==", other)

    @property
    def bits(self):
        """The number as it is stored: sign, exponent and fraction, as an integer of the same size."""
        return Word(self, self.builder.bitcast(self.value, self.word_type))


class Word:
    """The bits of a Number, with the arithmetic of unsigned integers."""

    def __init__(self, number, value):
        self.number_like, self.builder, self.value = number, number.builder, value

    def _binary(self, instruction, other):
        other = other.value if isinstance(other, Word) else _constant(self.value.type, other)
        return Word(self.number_like, getattr(self.builder, instruction)(self.value, other))

    def __add__(self, other):
        return self._binary("add", other)

    def __sub__(self, other):
        return self._binary("sub", other)

    def __and__(self, other):
        return self._binary("and_", other)

    def __or__(self, other):
        return self._binary("or_", other)

    def __lshift__(self, other):
        return self._binary("shl", other)

    def __rshift__(self, other):
        return self._binary("lshr", other)

    @property
    def number(self):
        """The number that has these bits."""
        return Number(self.builder, self.builder.bitcast(self.value, self.number_like.type))


def fma(a, b, c):
    """Return a * b + c: rounded once if the processor has an instruction for that, else after each operation.

    Without one, LLVM's own fma would call the C library for each number.
    """
    model = next(number for number in (a, b, c) if isinstance(number, Number))
    a, b, c = map(model.like, (a, b, c))
    if not FUSED_MULTIPLY_ADD:
        return a * b + c
    kind, item = model.type, "f32" if model.is_single else "f64"
    name = f"llvm.fma.{f'v{kind.count}' if isinstance(kind, ir.VectorType) else ''}{item}"
    module = model.builder.module
    function = module.globals.get(name) or ir.Function(module, ir.FunctionType(kind, [kind] * 3), name)
    return Number(model.builder, model.builder.call(function, [a.value, b.value, c.value]))


def where(condition, a, b):
    """Return a where the condition holds, else b; both are computed."""
    model = a if isinstance(a, Number) else b
    a, b = model.like(a), model.like(b)
    return Number(model.builder, model.builder.select(condition, a.value, b.value))


def horner(x, coefficients):
    """Return c0 + c1 x + c2 x² + ..., as c0 + x (c1 + x (c2 + ...))."""
    total = x.like(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = fma(total, x, coefficient)
    return total


def formula(function):
    """Turn a function from Number to Number into one that kernels can call with a float32 or a float64.

    The function itself remains available as `formula`, for other formulas.
    """

    def intrinsic_of(typingctx, x):
        if x not in (types.float32, types.float64):
            return None  # numba then reports that there is no such function

        def codegen(context, builder, signature, args):
            set.add(builder.function.attributes, _FULL_WIDTH)
            return function(Number(builder, args[0])).value

        return x(x), codegen

    intrinsic_of.__name__, intrinsic_of.__doc__ = function.__name__, function.__doc__
    made = intrinsic(intrinsic_of)
    made.formula = function
    return made


def _constant(kind, value):
    return ir.Constant(kind, [value] * kind.count if isinstance(kind, ir.VectorType) else value)
