"""The elementary functions in vector loops: accuracy, ends of the range, and the same bits at every position."""

import hashlib
import math
import re

import hypothesis.strategies as st
import numba
import numpy as np
import pytest
from hypothesis import given

from cnnlite.engine import target as _target
from cnnlite.engine.jit import FASTMATH
from cnnlite.kernels.llvm.elementary import erfc, exp, expm1, log, log1p, sigmoid, tanh
from tests.kernels.drawn import compiled_kernels_needed
from tests.kernels.rooms import ROOT, run

pytestmark = compiled_kernels_needed

DTYPES = ["float32", "float64"]
NAMES = ["exp", "expm1", "log", "log1p", "sigmoid", "tanh", "erfc"]
x86_needed = pytest.mark.skipif("x86" not in _target._machine[0], reason="needs an x86 processor")


@numba.njit(fastmath=FASTMATH, error_model="numpy")  # as the kernels are
def compute(x, y):
    """Write each function's values to a row of y."""
    for i in range(x.size):
        y[0, i] = exp(x[i])
    for i in range(x.size):
        y[1, i] = expm1(x[i])
    for i in range(x.size):
        y[2, i] = log(x[i])
    for i in range(x.size):
        y[3, i] = log1p(x[i])
    for i in range(x.size):
        y[4, i] = sigmoid(x[i])
    for i in range(x.size):
        y[5, i] = tanh(x[i])
    for i in range(x.size):
        y[6, i] = erfc(x[i])


def computed(x):
    """Return {name: values} of every function."""
    y = np.empty((len(NAMES), x.size), x.dtype)
    compute(x, y)
    return dict(zip(NAMES, y))


def exact(name, x):
    """Return the values of a function in higher precision."""
    with np.errstate(all="ignore"):
        x = x.astype(np.longdouble)
        if name == "erfc":  # not in NumPy; only in float64
            return np.array([math.erfc(number) for number in x], np.longdouble)
        if name == "sigmoid":
            z = np.exp(-np.abs(x))
            return np.where(x < 0, z, 1) / (1 + z)
        return getattr(np, name)(x)


def ulps(y, expected):
    """Return the error of y in units in the last place; infinite where only one of the two is NaN."""
    with np.errstate(all="ignore"):
        nearest = expected.astype(y.dtype)
        distance = np.abs(y - expected) / np.spacing(np.abs(nearest))
    same = (y == nearest) | (np.isnan(y) & np.isnan(nearest))
    return np.where(np.isfinite(distance), distance, np.where(same, 0, np.inf))


def allowed(name, dtype):
    """Return the allowed error of a function in units in the last place."""
    if name == "erfc":
        return 5 if dtype == "float32" else 6  # one of them for the error of `math.erfc`
    return 2.5 if dtype == "float64" else 2 if _target.FUSED_MULTIPLY_ADD else 2.25


def numbers(dtype, count=40_000):
    """Return numbers of all magnitudes, with subnormals, NaN and infinities, and more where formulas change."""
    rng = np.random.default_rng(0)
    words = np.uint32 if dtype == "float32" else np.uint64
    of_all_sizes = rng.integers(np.iinfo(words).max, size=count, dtype=words, endpoint=True).view(dtype)
    scales = 760.0, 100.0, 10.0, 1.0, 1e-3
    spread = [rng.uniform(-scale, scale, count) for scale in scales]
    # Where exp is subnormal, log changes its exponent, and tanh changes its formula.
    edges = [rng.uniform(-104, -87, count), rng.uniform(-746, -707, count), rng.uniform(0.68, 1.45, count),
             rng.uniform(0.5, 0.6, count)]
    smallest = np.arange(1, 200).astype(words).view(dtype)
    return np.concatenate([of_all_sizes, *(part.astype(dtype) for part in spread + edges), smallest, -smallest])


@pytest.fixture(scope="module", params=DTYPES)
def drawn(request):
    x = numbers(request.param)
    return x, computed(x)


def bits(x):
    return x.view(np.uint32 if x.dtype == np.float32 else np.uint64)


@pytest.mark.parametrize("name", NAMES)
def test_all_digits_are_right_but_the_last(drawn, name):
    x, values = drawn
    if np.finfo(np.longdouble).eps >= np.finfo(x.dtype).eps / 100:
        pytest.skip("there is no wider floating-point type to compare with")
    error = ulps(values[name], exact(name, x))
    worst = np.argmax(error)
    assert error[worst] <= allowed(name, x.dtype), (x[worst], values[name][worst])


@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_infinities_and_nan(dtype):
    inf, nan = np.inf, np.nan
    largest, least = np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal
    x = np.array([0.0, -0.0, inf, -inf, nan, largest, -largest, least, -least, 1.0, -1.0], dtype)
    expected = {
        "exp": [1, 1, inf, 0.0, nan, inf, 0.0, 1, 1, None, None],
        "expm1": [0.0, -0.0, inf, -1, nan, inf, -1, least, -least, None, None],
        "log": [-inf, -inf, inf, nan, nan, None, nan, None, nan, 0.0, nan],
        "log1p": [0.0, -0.0, inf, nan, nan, None, nan, least, -least, None, -inf],
        "sigmoid": [0.5, 0.5, 1, 0.0, nan, 1, 0.0, 0.5, 0.5, None, None],
        "tanh": [0.0, -0.0, 1, -1, nan, 1, -1, least, -least, None, None],
        "erfc": [1, 1, 0.0, 2, nan, 0.0, 2, 1, 1, None, None],
    }
    values = computed(x)
    for name in NAMES:
        for number, value, wanted in zip(x, values[name], expected[name]):
            if wanted is None:
                continue
            assert value == wanted or (math.isnan(value) and math.isnan(wanted)), (name, number)
            assert wanted != 0 or np.signbit(value) == np.signbit(wanted), (name, number)


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_overflow_and_vanish_where_the_exact_ones_do(dtype):
    """Check the numbers next to those where exp becomes infinite, subnormal and 0."""
    largest, normal, least = (np.longdouble(getattr(np.finfo(dtype), name)) for name in (
        "max", "smallest_normal", "smallest_subnormal"))
    for bound in np.log(largest), np.log(normal), np.log(least), np.log(least / 2):
        x = np.full(9, bound, dtype)
        for i in range(9):
            for _ in range(abs(i - 4)):
                x[i] = np.nextafter(x[i], x.dtype.type(np.inf if i > 4 else -np.inf))
        values = computed(x)
        for name in NAMES:
            assert (ulps(values[name], exact(name, x)) <= allowed(name, dtype) + 0.1).all(), (name, x)


def test_tanh_is_odd_bit_for_bit(drawn):
    x, _ = drawn
    positive = np.where(np.isnan(x), 0, np.abs(x))
    np.testing.assert_array_equal(bits(computed(-positive)["tanh"]), bits(-computed(positive)["tanh"]))


def test_a_number_has_the_same_bits_wherever_it_lies_in_an_array(drawn):
    x, _ = drawn
    x = np.random.default_rng(1).choice(x[~np.isnan(x)], 150)
    alone = {name: np.empty_like(x) for name in NAMES}
    for i in range(x.size):
        for name, value in computed(x[i : i + 1]).items():
            alone[name][i] = value[0]
    for size in [*range(70), 127, 128, 129]:
        for start in (0, 1, 2, 3, 7, 16, 21):
            for name, values in computed(x[start : start + size]).items():
                np.testing.assert_array_equal(bits(values), bits(alone[name][start : start + size]))


def test_code_for_numbers_one_by_one_gives_the_same_bits():
    x = numbers("float32", 2000)
    values = computed(x)
    apart = np.empty(3 * x.size, x.dtype)[::3]  # strided, so it can't be loaded as vectors
    apart[:] = x
    for name, found in computed(apart).items():
        kept = ~np.isnan(found)
        np.testing.assert_array_equal(bits(found)[kept], bits(values[name])[kept])


def test_nothing_may_be_contracted(drawn):
    """Otherwise LLVM could fuse a product with a sum in one loop and not in another."""
    found = [line for text in compute.inspect_llvm().values() for line in text.splitlines()
             if re.search(r"= f(add|sub|mul|div) ", line)]
    assert found
    assert not [line for line in found if "contract" in line]


def test_other_numbers_are_refused_when_a_kernel_is_compiled():
    with pytest.raises(numba.core.errors.TypingError):
        compute(np.arange(3), np.empty((len(NAMES), 3)))


finite = st.floats(-800, 800) | st.floats(-2, 2) | st.floats(allow_nan=False, allow_infinity=False)


@given(finite, st.sampled_from(NAMES))
def test_python_finds_the_same(number, name):
    value = computed(np.array([number]))[name][0]
    try:
        expected = 1 / (1 + math.exp(-number)) if name == "sigmoid" else getattr(math, name)(number)
    except OverflowError:
        expected = 0.0 if name == "sigmoid" else math.inf
    except ValueError:
        expected = -math.inf if number == {"log": 0, "log1p": -1}[name] else math.nan
    if name == "sigmoid" and number < -700:
        assert value == pytest.approx(expected, abs=1e-300)
    else:
        assert ulps(np.array([value]), np.array([expected]))[0] <= allowed(name, "float64") + 1


@x86_needed
@pytest.mark.skipif(bool(numba.config.BOUNDSCHECK), reason="a loop with bounds checks is not vectorised")
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_loops_are_vectors_and_call_nothing(dtype):
    computed(np.ones(3, dtype))
    (assembly,) = [text for signature, text in compute.inspect_asm().items() if dtype in str(signature)
                   and "Array" in str(signature) and signature[0].layout == "C"]
    assert not re.search(r"\b(exp|expm1|log|log1p|tanh|erfc|fma)f?\b", assembly)
    register = {64: "zmm", 32: "ymm", 16: "xmm"}[_target.VECTOR_BYTES]
    suffix = "ps" if dtype == "float32" else "pd"
    divisions = re.findall(rf"v?div{suffix}\b.*{register}", assembly)
    assert len(divisions) >= 7  # one in log, sigmoid and tanh, two in log1p and erfc


def digest():
    """Return a hash of float32 results, with all bit patterns of NaN made equal."""
    values = computed(numbers("float32", 2000))
    return hashlib.sha256(b"".join(np.where(np.isnan(y), np.float32(np.nan), y).tobytes() for y in values.values()))


OTHER_PROCESSOR = """
from cnnlite.engine import target as _target
from tests.kernels import test_elementary as test
x = test.numbers("float32", 2000)
values = test.computed(x).items()
accurate = all(test.ulps(y, test.exact(name, x)).max() <= test.allowed(name, "float32") for name, y in values)
print(_target.FUSED_MULTIPLY_ADD, _target.VECTOR_BYTES, test.digest().hexdigest(), accurate)
test.test_a_number_has_the_same_bits_wherever_it_lies_in_an_array((x, None))
"""


@x86_needed
@pytest.mark.skipif(_target.VECTOR_BYTES < 32 or not _target.FUSED_MULTIPLY_ADD, reason="this processor has no AVX2")
def test_all_processors_with_fused_operations_find_the_same_bits():
    found = run(OTHER_PROCESSOR, ROOT, NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES="")
    assert found == ["True", "32", digest().hexdigest(), "True"]


@x86_needed
def test_a_processor_without_fused_operations_keeps_the_digits_and_has_bits_of_its_own():
    fused, width, _, is_accurate = run(OTHER_PROCESSOR, ROOT, NUMBA_CPU_NAME="nehalem", NUMBA_CPU_FEATURES="")
    assert (fused, width, is_accurate) == ("False", "16", "True")
