"""The matrix product and the sums over rows, against their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnnlite
from cnnlite import kernels
from tests.kernels.drawn import (
    assert_as_defined,
    assert_close,
    compiled_kernels_needed,
    dtypes,
    seeds,
    spoilt,
)
from tests.kernels.stages import assert_same_bits, assert_same_bits_alone, results

widths = st.sampled_from([0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40, 65])


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 70), st.integers(0, 40), widths, st.booleans(), st.booleans(), st.booleans(), dtypes, seeds)
def test_matmul_equals_its_definition(m, k, n, bias, transpose_a, transpose_b, dtype, seed):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(k, m) if transpose_a else (m, k)).astype(dtype)
    b = rng.normal(size=(n, k) if transpose_b else (k, n)).astype(dtype)
    bias = rng.normal(size=n).astype(dtype) if bias else None
    assert_as_defined("matmul", [a, b, bias], transpose_a, transpose_b)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 40), st.booleans(), st.booleans(), dtypes, seeds)
def test_nan_and_infinity_spoil_their_row_or_column_and_no_other(m, k, n, in_a, transpose_b, dtype, seed):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(m, k)).astype(dtype)
    b = rng.normal(size=(n, k) if transpose_b else (k, n)).astype(dtype)
    a, b = (spoilt(a, rng), b) if in_a else (a, spoilt(b, rng))
    assert_as_defined("matmul", [a, b, None], False, transpose_b)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([0, 1, 255, 256, 257, 600]), widths, dtypes, seeds)
def test_column_sums_equal_their_definition(m, n, dtype, seed):
    assert_as_defined("column_sums", [np.random.default_rng(seed).normal(size=(m, n)).astype(dtype)])


def test_column_sums_hand_on_nan_and_infinity():
    x = np.ones((300, 3), np.float32)
    x[270, 0], x[3, 2] = np.nan, np.inf
    assert_as_defined("column_sums", [x])


def test_column_sums_of_many_rows_lose_no_digits():
    # In float32, adding 0.1 a million times one by one gives 100958.
    total = kernels.column_sums(np.full((1_000_000, 1), 0.1, np.float32))
    assert total[0] == pytest.approx(100_000, rel=1e-5)


def test_a_product_does_not_depend_on_the_number_of_rows():
    # A sample gets the same bits alone and in a batch.
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(70, 33)).astype(np.float32), rng.normal(size=(33, 10)).astype(np.float32)
    together = kernels.matmul(a, b)
    for i in range(len(a)):
        assert kernels.matmul(a[i : i + 1], b).tobytes() == together[i].tobytes()


def test_matmul_of_integers_in_floats_is_exact():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-9, 10, size=shape).astype(np.float32) for shape in ((19, 50), (50, 21)))
    assert_close(kernels.matmul(a, b), a.astype(int) @ b.astype(int), 0)


def normal(*shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


SAMPLES = [0, 1, 2, 3, 17, 33, 200]
# (K, N): weights for products with few samples at a time, and some that blocks of the result share
MATRICES = [(7, 5), (33, 33), (3, 64), (301, 127)]


@compiled_kernels_needed
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", SAMPLES)
def test_the_bits_of_rows_depend_on_no_schedule_and_on_no_other_rows(n, dtype):
    for k, width in MATRICES:
        w, bias = normal(k, width, dtype=dtype, seed=1), normal(width, dtype=dtype, seed=2)
        forward = {"a": normal(n, k, dtype=dtype), "b": w, "bias": bias}
        backward = {"a": normal(n, width, dtype=dtype), "b": w}
        for function, arrays in (
            (kernels.matmul, forward),
            (lambda a, b: kernels.matmul(a, b, transpose_b=True), backward),
        ):
            assert_same_bits(function, arrays, "a")
            assert_same_bits_alone(function, {**arrays, "a": arrays["a"][:17]}, "a")


@compiled_kernels_needed
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [*SAMPLES, 1100])
def test_the_bits_of_sums_over_samples_depend_on_no_schedule(n, dtype):
    for k, width in [(7, 5), (33, 17), (40, 64)]:
        x, dz = normal(n, k, dtype=dtype), normal(n, width, dtype=dtype, seed=1)
        [dw] = assert_same_bits(lambda x, dz: kernels.matmul(x, dz, transpose_a=True), {"x": x, "dz": dz}, "x dz")
        np.testing.assert_allclose(dw, x.T.astype(float) @ dz, rtol=0, atol=1e-3 if dtype == "float32" else 1e-11)
        [db] = assert_same_bits(kernels.column_sums, {"x": dz}, "x")
        np.testing.assert_allclose(db, dz.sum(0, dtype=float), rtol=0, atol=1e-4 if dtype == "float32" else 1e-11)


@compiled_kernels_needed
@pytest.mark.parametrize("rows", [1, 3, 50])
def test_a_sample_may_have_several_rows(rows):
    """Occurs in a Dense layer on an input with more than 2 axes, and in the bias of a convolution."""
    x, dz, w = normal(19, rows, 21), normal(19, rows, 17, seed=1), normal(21, 17, seed=2)

    def flat(array):
        return array.reshape(-1, array.shape[-1])

    for matrix in (w, normal(21, 2000, seed=2)):
        [y] = assert_same_bits(lambda x, w: kernels.matmul(flat(x), w), {"x": x, "w": matrix}, "x")
        assert y.tobytes() == kernels.matmul(flat(x), matrix).tobytes()
    [dw] = assert_same_bits(lambda x, dz: kernels.matmul(flat(x), flat(dz), transpose_a=True), {"x": x, "dz": dz},
                            "x dz")
    np.testing.assert_allclose(dw, flat(x).T.astype(float) @ flat(dz), rtol=0, atol=1e-4)
    [db] = assert_same_bits(lambda x: kernels.column_sums(flat(x)), {"x": dz}, "x")
    np.testing.assert_allclose(db, flat(dz).sum(0, dtype=float), rtol=0, atol=5e-5)


@compiled_kernels_needed
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_neither_factor_need_be_of_samples(transpose_a, transpose_b):
    a, b = normal(*((35, 100) if transpose_a else (100, 35))), normal(*((21, 35) if transpose_b else (35, 21)))
    bias = normal(21)
    [c] = results(lambda a, b, bias: kernels.matmul(a, b, bias, transpose_a, transpose_b),
                  {"a": a, "b": b, "bias": bias})
    assert c.tobytes() == kernels.matmul(a, b, bias, transpose_a, transpose_b).tobytes()
    assert_close(c, (a.T if transpose_a else a) @ (b.T if transpose_b else b) + bias, 1e-5)


@compiled_kernels_needed
def test_weights_have_the_same_bits_packed_and_as_they_are():
    # The plan of a model packs them; the plan of a single kernel doesn't if their rows are whole vectors.
    x, w = normal(40, 21), normal(21, 2048, seed=1)
    [packed] = results(lambda a: kernels.matmul(a, w), {"a": x}, "a")
    assert packed.tobytes() == kernels.matmul(x, w).tobytes()


@compiled_kernels_needed
def test_an_infinity_stays_in_its_column_where_rows_are_not_whole_vectors():
    # Vectors of the second factor then also contain numbers of the next row.
    for n in (1, 5, 17, 33, 100):
        x, dz = normal(n, 3), normal(n, 5, seed=1)
        dz[:, 2] = np.inf
        with np.errstate(invalid="ignore"):
            dw = kernels.matmul(x, dz, transpose_a=True)
            np.testing.assert_array_equal(np.isfinite(kernels.column_sums(dz)), np.arange(5) != 2)
        np.testing.assert_array_equal(np.isfinite(dw), np.broadcast_to(np.arange(5) != 2, (3, 5)))


@compiled_kernels_needed
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("k", [1, 255, 257, 1152, 1153, 1600])  # pieces of up to 256, summed in float64 above 1152
@pytest.mark.parametrize("n", [31, 64, 127, 128, 129, 300])  # four panels are 128 columns in float32 with AVX-512
def test_weights_that_are_packed_before_or_unit_by_unit_make_the_same_bits_for_one_row_and_for_many(n, k, dtype):
    # A model packs them once for inference, and multiplies a single row by several panels at a time. A call with arrays
    # packs them in each unit.
    x, w, bias = normal(150, k, dtype=dtype), normal(k, n, dtype=dtype, seed=1), normal(n, dtype=dtype, seed=2)
    model = cnnlite.Sequential([cnnlite.Input((k,)), cnnlite.layers.Dense(n, dtype=dtype)])
    model.set_weights([w, bias])
    turned = np.ascontiguousarray(w.T)
    many = kernels.matmul(x, w, bias)
    for rows in (x, x[:1], x[:9], x[:129]):
        expected = many[: len(rows)].tobytes()
        assert model(rows).tobytes() == expected
        assert kernels.matmul(rows, w, bias).tobytes() == expected
        assert kernels.matmul(rows, turned, bias, transpose_b=True).tobytes() == expected
    assert_close(many, x.astype(float) @ w + bias, 1e-5 if dtype == "float32" else 1e-12)
