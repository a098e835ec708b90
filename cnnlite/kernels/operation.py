"""Kernels as functions: given buffers they add stages to a graph; given arrays they run a plan of just these stages.

    @operation(samples="x out")
    def relu(x, out=None):
        out = result(out, x, x.shape)
        graph_of(x).add(_relu, x=x, y=out, ...)
        return out

So a kernel's checks, and the stages that it consists of, are written only once. In eager mode (`cnnlite/eager.py`) the
function of the same name in `reference.py` is called instead.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnlite import reference
from cnnlite.eager import is_eager
from cnnlite.engine.buffers import Samples, is_buffer
from cnnlite.engine.graph import Graph, current_graph
from cnnlite.engine.plan import Plan
from cnnlite.kernels.checks import FLOATS

PLANS_KEPT = 256  # of single kernels, for different shapes

_plans: OrderedDict[Any, Any] = OrderedDict()  # by everything that a plan depends on, so not by the number of samples
_calls: OrderedDict[Any, _Call] = OrderedDict()  # by the forms of all arguments, to find the plan quickly


def operation(samples: Any) -> Any:
    """Turn a function that adds stages to a graph into a kernel.

    Args:
        samples: the names of the arguments whose first axis runs over samples; or, if that depends on the other
            arguments, a function that is called with all of them and returns the names. An argument `x_shape` starts
            with the number of samples.
    """
    of_samples = _names(samples) if isinstance(samples, str) else None

    def decorate(function: Any) -> Any:
        names = tuple(inspect.signature(function).parameters)
        name = function.__name__.strip("_")

        @functools.wraps(function)
        def kernel(*args: Any, **kwargs: Any) -> Any:
            if is_eager():
                # Compiled code computes with infinities and NaN without NumPy's warnings; so must the definition.
                with np.errstate(all="ignore"):
                    return getattr(reference, name)(*args, **kwargs)
            graph = current_graph()
            given = (*args, *kwargs.values())
            if graph is None:
                key = (function, *[(value.shape, value.dtype) if type(value) is np.ndarray else _form(value)
                                   for value in given], *kwargs)
                call = _calls.get(key)
                if call is not None:
                    return call.run(given)
            if any(map(is_buffer, given)):
                return function(*args, **kwargs)
            values = dict(zip(names, args), **kwargs)
            if graph is not None:
                # All arrays are weights, whose contents are read anew in each run.
                return function(**{name: graph.of_array(value) if isinstance(value, np.ndarray) else value
                                   for name, value in values.items()})
            ours = _names(samples(**values)) if of_samples is None else of_samples
            call = _Call(function, values, [*names[:len(args)], *kwargs], ours)
            _keep(_calls, key, call)
            return call.run(given)

        vars(kernel)["is_operation"] = True
        return kernel

    return decorate


@functools.cache
def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _form(value: Any) -> Any:
    if value is None or type(value) is int:
        return value
    if type(value) is tuple:
        return tuple([each if type(each) is int else _form(each) for each in value])
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype
    if isinstance(value, float):
        return value, math.copysign(1, value)  # since 0.0 == -0.0
    return tuple([_form(each) for each in value]) if isinstance(value, (tuple, list)) else value


def _keep(kept: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    kept[key] = value
    if len(kept) > PLANS_KEPT:
        kept.popitem(last=False)


class _Call:
    """A call of a kernel with arrays of certain shapes.

    Args:
        function: adds the kernel's stages.
        values: its arguments, by name; later calls have arrays of the same shapes, and otherwise the same arguments.
        order: their names, in the order in which `run` will get them.
        of_samples: the names of those whose first axis runs over samples.
    """

    def __init__(self, function: Any, values: dict[str, Any], order: list[str], of_samples: frozenset[str]) -> None:
        self._name = function.__name__.strip("_")
        samples, key = _plan_key(function, values, of_samples)
        made = _plans.get(key)
        if made is None:
            made = _make(function, values, of_samples, samples)
            _keep(_plans, key, made)
        self._plan, places, sources, self._has_several = made
        self._samples = 1 if samples is None else samples  # without samples, everything is one sample
        self._names = {number: name for (name, _), number, _ in places}
        self._places = [(order.index(name), item, number, written) for (name, item), number, written in places]
        self._sources = [source and (order.index(source[0]), source[1]) for source in sources]
        # Nearly all kernels return one array: a new one, or the one that they were given to write to.
        one = self._sources[0] if len(self._sources) == 1 and not self._has_several else None
        self._written = one[0] if one and one[1] is None else None

    def run(self, values: Sequence[Any]) -> Any:
        """Run the plan on the arrays among the arguments."""
        given, copies = {}, []
        for place, item, number, is_written in self._places:
            array = values[place] if item is None else values[place][item]
            if not array.flags.carray:
                usable = self._usable(array, number, is_written)
                if is_written:
                    copies.append((array, usable))
                array = usable
            given[number] = array
        results = self._plan.run(self._samples, given)
        for array, copy in copies:
            array[...] = copy
        if self._written is not None:
            return values[self._written]
        if self._sources:
            new = iter(results)
            results = [next(new) if source is None else values[source[0]] if source[1] is None
                       else values[source[0]][source[1]] for source in self._sources]
        return tuple(results) if self._has_several else results[0] if results else None

    def _usable(self, array: Any, number: int, is_written: bool) -> Any:
        """Return an array that compiled code can read, and write if it must: this one, or an aligned copy of it."""
        if not array.flags.c_contiguous:
            name = self._names[number]
            raise ValueError(
                f"{self._name}: {name} must be C-contiguous. Received: {name} with the strides {array.strides}. "
                f"Use np.ascontiguousarray({name})."
            )
        if is_written and not array.flags.writeable:
            raise ValueError(
                f"{self._name}: {self._names[number]} must be writeable. Received: a read-only array. "
                "Pass a copy of it."
            )
        return array if array.flags.aligned else array.copy()


def _plan_key(function: Any, values: dict[str, Any], of_samples: frozenset[str]) -> tuple[int | None, Any]:
    """Return the number of samples, and everything else that a kernel's plan depends on."""
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
            forms.append((name, True, tuple(value[1:])))
        else:
            forms.append((name, _form(value)))
    return samples, tuple(forms)


def _has_arrays(value: Any) -> bool:
    return isinstance(value, tuple) and any(isinstance(item, np.ndarray) for item in value)


def _make(function: Any, values: dict[str, Any], of_samples: frozenset[str], samples: int | None) -> Any:
    """Return the plan of a kernel, and how its buffers map to arrays.

    Returns:
        the plan;
        [(source, buffer number, whether the plan writes to it), ...]: the source of an array is (argument name, None),
        or (argument name, index) in a tuple of arrays;
        for each result the source of the array that it is written to, or None if it is new; an empty list if all are;
        whether there are several results.
    """
    dtypes = [value.dtype for value in values.values() if isinstance(value, np.ndarray)]
    if not dtypes:
        name, first = next(iter(values.items()), ("", None))
        raise TypeError(
            f"{function.__name__.strip('_')}: {name} must be a NumPy array. Received: a {type(first).__name__}. "
            f"Use np.asarray({name}, dtype=\"float32\")."
        )
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
            value = buffer((name, None), value, name in of_samples)
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


def graph_of(*buffers: Any) -> Graph:
    """Return the graph of the first of these arguments that is a buffer."""
    return next(buffer.graph for buffer in buffers if is_buffer(buffer))


def result(out: Any, like: Any, shape: Any, dtype: Any = None) -> Any:
    """Return `out` or, if it is None, a new buffer of that shape in the graph of `like`."""
    return like.graph.work(shape, like.dtype if dtype is None else dtype) if out is None else out
