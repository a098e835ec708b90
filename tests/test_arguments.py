"""The checks of arguments: what passes, in which type, and what each error says."""

from fractions import Fraction

import numpy as np
import pytest

from cnnlite import arguments


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
