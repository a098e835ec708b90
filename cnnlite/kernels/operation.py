"""Kernels as functions: of buffers they add stages to a graph, of arrays they run a plan of these stages alone.

    @operation(samples="x out")
    def relu(x, out=None):
        out = result(out, x, x.shape)
        graph_of(x).add(_relu, x=x, y=out, ...)
        return out

So what a kernel checks, and which stages it is made of, is written once. In eager mode (`cnnlite/eager.py`) the
function of the same name in `reference.py` is called instead.
"""

from __future__ import annotations

import functools
import inspect
from collections import OrderedDict
from typing import Any

import numpy as np

from cnnlite import reference
from cnnlite.eager import is_eager
from cnnlite.engine.buffers import Buffer, Samples, is_buffer
from cnnlite.engine.graph import Graph, current_graph
from cnnlite.engine.plan import Plan
from cnnlite.kernels.checks import FLOATS

PLANS_KEPT = 256  # of single kernels, for different shapes

_plans: OrderedDict[Any, Any] = OrderedDict()


def operation(samples: Any) -> Any:
    """Make a kernel of a function that adds stages to a graph.

    Args:
        samples: the names of the arguments whose first axis is that of the samples; or, where that depends on what the
            others are, a function that is called with all of them and returns the names.
    """
    of_samples = frozenset(samples.split()) if isinstance(samples, str) else None

    def decorate(function: Any) -> Any:
        names = tuple(inspect.signature(function).parameters)
        name = function.__name__.strip("_")

        @functools.wraps(function)
        def kernel(*args: Any, **kwargs: Any) -> Any:
            if is_eager():
                # Compiled code computes with infinities and NaN without a word from NumPy; so does the definition.
                with np.errstate(all="ignore"):
                    return getattr(reference, name)(*args, **kwargs)
            for value in args:
                if type(value) is Buffer:
                    return function(*args, **kwargs)
            if any(map(is_buffer, kwargs.values())):
                return function(*args, **kwargs)
            values = dict(zip(names, args), **kwargs)
            graph = current_graph()
            if graph is not None:
                # Of weights alone, whose numbers are asked for in each run.
                return function(**{name: graph.of_array(value) if isinstance(value, np.ndarray) else value
                                   for name, value in values.items()})
            ours = frozenset(samples(**values).split()) if of_samples is None else of_samples
            return _run_alone(function, values, ours)

        vars(kernel)["is_operation"] = True
        return kernel

    return decorate


def _run_alone(function: Any, values: dict[str, Any], of_samples: frozenset[str]) -> Any:
    """Run a plan of a kernel's stages on arrays."""
    arrays: dict[Any, Any] = {}
    rest: dict[str, Any] = {}
    forms: list[Any] = []
    samples = None
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            arrays[name] = value
            if name in of_samples and value.ndim:
                if samples is None:
                    samples = len(value)
                forms.append((name, len(value) == samples, value.shape[1:], value.dtype))
            else:
                forms.append((name, None, value.shape, value.dtype))
        elif isinstance(value, tuple) and any(isinstance(item, np.ndarray) for item in value):
            for i, item in enumerate(value):
                arrays[name, i] = item
                forms.append((name, i, len(item) == samples, item.shape[1:], item.dtype))
        else:
            rest[name] = value
    key: Any = function, tuple(forms), tuple(rest.items())
    try:
        made = _plans.get(key)
    except TypeError:  # there is a list among them
        key = function, tuple(forms), _tuples(tuple(rest.items()))
        made = _plans.get(key)
    if made is None:
        made = _make(function, values, of_samples, samples)
        _plans[key] = made
        if len(_plans) > PLANS_KEPT:
            _plans.popitem(last=False)
    plan, places, shape_results = made
    given, copies = {}, []
    for name, number in places:
        array = arrays[name]
        if not array.flags.carray:
            is_written = bool(plan.graph.buffers[number].made_by)
            array = _usable(array, name, function.__name__.strip("_"), is_written)
            if is_written:
                copies.append((arrays[name], array))
        given[number] = array
    results = plan.run(1 if samples is None else samples, given)  # all is one sample where there are none
    for array, copy in copies:
        array[...] = copy
    return shape_results(results, arrays)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


def _make(function: Any, values: dict[str, Any], of_samples: frozenset[str], samples: int | None) -> Any:
    """Return the plan, [(the name of an argument, the number of its buffer), ...], and what makes the result."""
    dtypes = [value.dtype for value in values.values() if isinstance(value, np.ndarray)]
    graph = Graph(next((dtype for dtype in dtypes if dtype in FLOATS), dtypes[0]))
    arguments, places = {}, []

    def buffer(name: Any, array: Any, of_samples: bool) -> Any:
        shape = array.shape
        if of_samples and array.ndim and len(array) == samples:
            shape = (Samples(1, samples), *shape[1:])
        made = graph.given(shape, array.dtype)
        places.append((name, made.number))
        return made

    for name, value in values.items():
        if isinstance(value, np.ndarray):
            value = buffer(name, value, name in of_samples)
        elif isinstance(value, tuple) and any(isinstance(item, np.ndarray) for item in value):
            value = tuple(buffer((name, i), item, name in of_samples) for i, item in enumerate(value))
        arguments[name] = value
    result = function(**arguments)
    by_number = {number: name for name, number in places}
    buffers = [] if result is None else [result] if is_buffer(result) else list(result)
    plan = Plan(graph, [buffer for buffer in buffers if buffer.number not in by_number])

    def shape_results(results: list[Any], arrays: dict[Any, Any]) -> Any:
        rest = iter(results)
        found = [arrays[by_number[buffer.number]] if buffer.number in by_number else next(rest) for buffer in buffers]
        return None if result is None else found[0] if is_buffer(result) else tuple(found)

    return plan, places, shape_results


def _usable(array: Any, name: Any, owner: str, is_written: bool) -> Any:
    """Return an array that compiled code can read, contiguous and aligned, and can write if it must: or a copy."""
    name = name if isinstance(name, str) else name[0]
    if not array.flags.c_contiguous:
        raise ValueError(
            f"{owner}: {name} must be C-contiguous. Received: {name} with the strides {array.strides}. "
            f"Use np.ascontiguousarray({name})."
        )
    if is_written and not array.flags.writeable:
        raise ValueError(f"{owner}: {name} must be writeable. Received: a read-only array. Pass a copy of it.")
    return array if array.flags.aligned else array.copy()


def graph_of(*buffers: Any) -> Graph:
    """Return the graph that the first of these which is a buffer belongs to."""
    return next(buffer.graph for buffer in buffers if is_buffer(buffer))


def result(out: Any, like: Any, shape: Any, dtype: Any = None) -> Any:
    """Return `out`, or a new buffer of that shape in the graph of another."""
    return like.graph.work(shape, like.dtype if dtype is None else dtype) if out is None else out
