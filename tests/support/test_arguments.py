"""The checks of arguments: what passes, in which type, and what each error says."""

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from cnnlite.support import arguments


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_integer_takes_every_kind_of_whole_number(value):
    result = arguments.integer(value, "filters", "Conv2D")
    assert result == 3
    assert type(result) is int


@pytest.mark.parametrize("value", [3.0, "3", None, True, np.True_, [3]])
def test_integer_refuses_other_types(value):
    with pytest.raises(TypeError, match=r"Conv2D: filters must be an integer. Received: filters="):
        arguments.integer(value, "filters", "Conv2D")


def test_integer_refuses_what_is_too_small():
    assert arguments.integer(0, "filters", "Conv2D", minimum=0) == 0
    with pytest.raises(ValueError, match=r"Conv2D: filters must be at least 1. Received: filters=0."):
        arguments.integer(0, "filters", "Conv2D")


@pytest.mark.parametrize("value", [2, np.int32(2), (2, 2), [2, 2], np.array([2, 2])])
def test_pair_makes_a_tuple_of_two(value):
    assert arguments.pair(value, "strides", "Conv2D") == (2, 2)


@pytest.mark.parametrize("value", [(2,), (2, 2, 2), None, 2.5, ()])
def test_pair_refuses_what_is_no_pair(value):
    with pytest.raises(ValueError, match=r"Conv2D: strides must be an integer or a pair of integers. Received: str"):
        arguments.pair(value, "strides", "Conv2D")


@pytest.mark.parametrize(("value", "error"), [((1, 0), ValueError), (0, ValueError), ((1, 2.5), TypeError),
                                              ("22", TypeError), (True, TypeError)])
def test_pair_checks_each_of_the_two(value, error):
    with pytest.raises(error, match=r"Conv2D: strides must be"):
        arguments.pair(value, "strides", "Conv2D")


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.int8(2), Fraction(2)])
def test_number_makes_a_float_of_every_real_number(value):
    result = arguments.number(value, "rate", "Dropout", minimum=0, below=3, above=1)
    assert result == 2.0
    assert type(result) is float


@pytest.mark.parametrize("value", ["2", None, True, 1j, [2.0]])
def test_number_refuses_other_types(value):
    with pytest.raises(TypeError, match=r"Dropout: rate must be a number. Received: rate="):
        arguments.number(value, "rate", "Dropout")


@pytest.mark.parametrize(
    ("value", "limits", "rule"),
    [
        (-0.1, {"minimum": 0}, "at least 0 and finite. Received: rate=-0.1"),
        (1.0, {"minimum": 0, "below": 1}, "at least 0 and less than 1 and finite. Received: rate=1.0"),
        (0, {"above": 0}, "greater than 0 and finite. Received: rate=0"),
        (np.nan, {}, "finite. Received: rate=nan"),
        (np.inf, {"minimum": 0}, "at least 0 and finite. Received: rate=inf"),
        pytest.param(10**400, {}, "finite. Received: rate=1000", id="huge"),
    ],
)
def test_number_names_the_rule_that_is_broken(value, limits, rule):
    with pytest.raises(ValueError, match=rf"Dropout: rate must be {rule}"):
        arguments.number(value, "rate", "Dropout", **limits)


def test_boolean_takes_nothing_but_booleans():
    assert arguments.boolean(np.True_, "use_bias", "Dense") is True
    assert arguments.boolean(False, "use_bias", "Dense") is False
    for value in (1, "True", None):
        with pytest.raises(TypeError, match=r"Dense: use_bias must be True or False. Received: use_bias="):
            arguments.boolean(value, "use_bias", "Dense")


def test_one_of_lists_the_choices_and_guesses():
    assert arguments.one_of("sum", ("sum", "mean"), "mode", "Loss") == "sum"
    with pytest.raises(ValueError, match=r"Loss: mode must be one of 'sum', 'mean'\. Received: mode='maen'\. Did you"):
        arguments.one_of("maen", ("sum", "mean"), "mode", "Loss")
    with pytest.raises(ValueError, match=r"Received: mode=3\.$"):
        arguments.one_of(3, ("sum", "mean"), "mode", "Loss")


def test_padding_may_be_in_capitals():
    assert arguments.padding_mode("SAME", "padding", "Conv2D") == "same"
    with pytest.raises(ValueError, match=r"Conv2D: padding must be one of 'valid', 'same'. Received: padding='full'"):
        arguments.padding_mode("full", "padding", "Conv2D")
    with pytest.raises(ValueError, match=r"Received: padding=1"):
        arguments.padding_mode(1, "padding", "Conv2D")


def test_shape_tuple_takes_one_size_several_and_unknown_ones():
    assert arguments.shape_tuple(5, "input_shape", "Dense") == (5,)
    assert arguments.shape_tuple([28, None, 1], "input_shape", "Dense") == (28, None, 1)
    assert arguments.shape_tuple((), "input_shape", "Dense") == ()
    for value, error in ((5.5, TypeError), ((5, "a"), TypeError), ((0,), ValueError), ((-1,), ValueError)):
        with pytest.raises(error, match=r"Dense: input_shape must be"):
            arguments.shape_tuple(value, "input_shape", "Dense")


@pytest.mark.parametrize(
    "x",
    [
        np.arange(12.0).reshape(3, 4), np.arange(12, dtype=np.uint8).reshape(3, 4),
        np.arange(12).reshape(3, 4).tolist(),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)), np.arange(12.0).reshape(4, 3).T,
        np.arange(24.0).reshape(3, 8)[:, ::2] / 2, np.arange(12, dtype=">f4").reshape(3, 4),
    ],
    ids=["float64", "uint8", "list", "fortran", "transposed", "strided", "big-endian"],
)
def test_float_array_is_contiguous_and_of_the_dtype_with_the_same_values(x):
    result = arguments.float_array(x, np.dtype("float32"), "x", "fit")
    np.testing.assert_array_equal(result, np.asarray(x))
    assert result.dtype == np.float32
    assert result.dtype.isnative
    assert result.flags.c_contiguous


def test_float_array_copies_only_what_it_must_and_keeps_the_number_of_axes():
    x = np.ones((2, 3), np.float32)
    assert arguments.float_array(x, np.float32, "x", "fit") is x
    assert arguments.float_array(3.0, np.float32, "x", "fit").shape == ()
    assert arguments.float_array(np.zeros((0, 3)), np.float32, "x", "fit").shape == (0, 3)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([[1, 2], [3]], ValueError, "fit: x must be an array of numbers. Received a list that NumPy can't make"),
        (["a"], TypeError, "fit: x must be an array of real numbers. Received: dtype=<U1"),
        ([1j], TypeError, "Received: dtype=complex128"),
        ([None], TypeError, "Received: dtype=object"),
        (np.array(["2020-01-01"], "datetime64[D]"), TypeError, "Received: dtype=datetime64"),
    ],
)
def test_float_array_refuses_what_are_no_real_numbers(x, error, message):
    with pytest.raises(error, match=message):
        arguments.float_array(x, np.float32, "x", "fit")


class Sparse:
    """What all of SciPy's sparse matrices have."""

    nnz, shape, ndim = 2, (4, 3), 2

    def __len__(self):
        raise TypeError("sparse array length is ambiguous; use getnnz()")

    def __iter__(self):
        return iter([self] * 4)

    def __getitem__(self, index):
        return self

    def toarray(self):
        return np.eye(4, 3)


class Frame:
    """A data frame, as far as NumPy is concerned."""

    def __init__(self, *columns):
        self.columns = columns

    def __array__(self, dtype=None, copy=None):
        return np.array(list(zip(*self.columns)), object)


class Guarded:
    """A tensor that is on another device, or whose gradient is recorded."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Use tensor.detach().numpy() instead.")


HIDDEN = np.ma.array(np.full((4, 3), 1e20), mask=True)
ROWS = np.empty(2, object)
ROWS[:] = [np.ones(3), np.ones(3)]
MASKED_ROWS = np.empty(2, object)
MASKED_ROWS[:] = [HIDDEN[0], HIDDEN[1]]


class Archive(Mapping):
    """As np.load of an .npz file."""

    def __getitem__(self, key):
        return np.ones(3)

    def __iter__(self):
        return iter(range(7))

    def __len__(self):
        return 7


NOT_PLAIN = {
    "masked": (HIDDEN, r"without a mask.*Received: a MaskedArray.*filled\(0\)"),
    "masked, with nothing to hide": (np.ma.array(np.ones((4, 3))), r"filled\(0\)"),
    "a list of masked": ([[0.0, 0.0, 0.0], HIDDEN[0]], r"filled\(0\)"),
    "a list of lists of masked": ([[0.0, np.ma.masked]], r"filled\(0\)"),
    "sparse": (Sparse(), r"dense array. Received: a Sparse.*toarray\(\)"),
    "a list of sparse": ([Sparse(), Sparse()], r"toarray\(\)|NumPy can't read"),
    "mixed columns": (Frame([1.0, 2.0], ["a", "b"]), r"a str at x\[0, 1\].*np.unique\(labels, return_inverse=True\)"),
    "columns of several types": (Frame([1.0, 2.0], [1, 2]), r'dtype=object. Pass x.astype\("float32"\)'),
    "missing values": (Frame([1.0, None], [1, 2]), r'a NoneType at x\[1, 0\]. Replace .*astype\("float32"\)'),
    "arrays of arrays": (ROWS, r"an? ndarray at x\[0\].*np.stack\(x\)"),
    "texts": (np.array(["1", "2"]), r'<U1. .*astype\("float32"\)'),
    "bytes": (np.array([b"1", b"2"]), r'S1. .*astype\("float32"\)'),
    "complex numbers": (np.ones(2, complex), r"complex128. Pass the real and the imaginary part"),
    "times": (np.array(["2020-01-01"], "datetime64[D]"), r'astype\("int64"\)'),
    "records": (np.zeros(2, [("a", float), ("b", int)]), r"structured_to_unstructured"),
    "a guarded tensor": (Guarded(), r"a Guarded that NumPy can't read: Use tensor.detach"),
    "arrays of masked ones": (MASKED_ROWS, r"a MaskedArray at x\[0\]\. .*filled\(0\)"),
    "numbers of other kinds": ([[Decimal(1), np.True_]], r'dtype=object. Pass x.astype\("float32"\)'),
    "a dict": ({"a": [1.0]}, r"a dict, which has the keys 'a'. Pass one of its arrays"),
    "a file of arrays": (Archive(), r"an? Archive, which has the keys 0, 1, 2, 3, 4, \.\.\.\. Pass one of its arrays"),
    "an iterator": (map(float, [1, 2]), r"Received: a map. Make a list of it first: list\(x\)"),
}


@pytest.mark.parametrize("case", NOT_PLAIN)
def test_what_numpy_would_misread_is_refused_with_the_way_to_an_array(case):
    x, message = NOT_PLAIN[case]
    with pytest.raises(TypeError, match=message) as raised:
        arguments.float_array(x, np.float32, "x", "fit")
    assert str(raised.value).startswith("fit: x must be ")
    assert "\n" not in str(raised.value)


def test_lists_of_unequal_length_are_refused_with_the_way_to_an_array():
    with pytest.raises(ValueError, match=r"Pad or crop the samples to one shape, then np.stack them\.$"):
        arguments.float_array([[1.0], [1.0, 2.0]], np.float32, "x", "fit")


def test_a_list_of_arrays_and_the_plain_data_of_a_frame_are_taken():
    assert arguments.real_array([np.ones(3), np.zeros(3)], "x", "fit").shape == (2, 3)
    assert arguments.real_array(([1, 2], (3, 4)), "x", "fit").tolist() == [[1, 2], [3, 4]]
