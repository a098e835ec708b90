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
            others are, a function that is called with all of them and returns the names. An argument `x_shape` begins
            with their number.
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
    samples, forms = None, [function]
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            if name in of_samples and value.ndim:
                if samples is None:
                    samples = len(value)
                forms.append((name, len(value) == samples, value.shape[1:], value.dtype))
            else:
                forms.append((name, value.shape, value.dtype))
        elif _has_arrays(value):
            forms.append((name, tuple((len(item) == samples, item.shape[1:], item.dtype) for item in value)))
        elif name == "x_shape" and value[:1] == (samples,):
            forms.append((name, tuple(value[1:])))
        else:
            forms.append((name, value))
    key = tuple(forms)
    try:
        made = _plans.get(key)
    except TypeError:  # there is a list among them
        key = _tuples(key)
        made = _plans.get(key)
    if made is None:
        made = _plans[key] = _make(function, values, of_samples, samples)
        if len(_plans) > PLANS_KEPT:
            _plans.popitem(last=False)
    plan, places, sources, has_several = made
    given, copies = {}, []
    for source, number, is_written in places:
        array = values[source] if type(source) is str else values[source[0]][source[1]]
        if not array.flags.carray:
            usable = _usable(array, source, function.__name__.strip("_"), is_written)
            if is_written:
                copies.append((array, usable))
            array = usable
        given[number] = array
    results = plan.run(1 if samples is None else samples, given)  # all is one sample where there are none
    for array, copy in copies:
        array[...] = copy
    if sources:
        new = iter(results)
        results = [next(new) if source is None else values[source] if type(source) is str
                   else values[source[0]][source[1]] for source in sources]
    return tuple(results) if has_several else results[0] if results else None


def _has_arrays(value: Any) -> bool:
    return isinstance(value, tuple) and any(isinstance(item, np.ndarray) for item in value)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


def _make(function: Any, values: dict[str, Any], of_samples: frozenset[str], samples: int | None) -> Any:
    """Return the plan of a kernel, and how it meets arrays.

    Returns:
        the plan;
        [(the name of an argument, or with a number that of an item of it, the number of its buffer, whether the plan
        writes it), ...];
        of each result the argument that it is written to, or None if it is new; an empty list if all are new;
        whether there are several results.
    """
    dtypes = [value.dtype for value in values.values() if isinstance(value, np.ndarray)]
    graph = Graph(next((dtype for dtype in dtypes if dtype in FLOATS), dtypes[0]))
    arguments, numbers = {}, {}

    def buffer(source: Any, array: Any, of_samples: bool) -> Any:
        shape = array.shape
        if of_samples and array.ndim and len(array) == samples:
            shape = (Samples(1, samples), *shape[1:])
        made = graph.given(shape, array.dtype)
        numbers[made.number] = source
        return made

    for name, value in values.items():
        if isinstance(value, np.ndarray):
            value = buffer(name, value, name in of_samples)
        elif _has_arrays(value):
            value = tuple(buffer((name, i), item, name in of_samples) for i, item in enumerate(value))
        elif name == "x_shape" and value[:1] == (samples,):
            value = (Samples(1, samples), *value[1:])
        arguments[name] = value
    result = function(**arguments)
    buffers = [] if result is None else [result] if is_buffer(result) else list(result)
    sources = [numbers.get(buffer.number) for buffer in buffers]
    plan = Plan(graph, [buffer for buffer, source in zip(buffers, sources) if source is None])
    places = [(source, number, bool(graph.buffers[number].made_by)) for number, source in numbers.items()]
    return plan, places, sources if any(sources) else [], len(buffers) > 1 or isinstance(result, (tuple, list))


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
