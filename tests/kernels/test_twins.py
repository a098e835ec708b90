"""Every kernel has a definition in reference.py, and vice versa."""

import inspect

import pytest

from cnnlite import kernels, reference

HELPERS = {"exact_sum", "output_shape", "product", "taps", "write"}  # shared by the definitions


@pytest.mark.parametrize("name", kernels.__all__)
def test_a_kernel_and_its_definition_take_the_same_arguments(name):
    mine, definition = getattr(kernels, name), getattr(reference, name)
    assert inspect.signature(mine) == inspect.signature(definition)


def test_every_definition_has_a_kernel():
    functions = inspect.getmembers(reference, inspect.isfunction)
    defined = {name for name, function in functions
               if function.__module__ == "cnnlite.reference" and not name.startswith("_")}
    assert defined - HELPERS == set(kernels.__all__)


def test_the_list_of_kernels_is_sorted_and_names_each_once():
    assert kernels.__all__ == sorted(set(kernels.__all__))
