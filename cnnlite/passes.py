"""Passes over a stack of layers, up and down: by plans where the layers are the library's, else layer by layer.

A stack is taken apart into *parts*: the layers in it, and those of models in it. Parts that do what the library wrote,
one after the other, are a *stretch*. A stretch is run by a plan: it is made by calling the parts with the buffers of a
graph instead of arrays, once for each shape of a sample, and run by one call of compiled code
(`cnnlite/engine/plan.py`). All else is Python: a layer of the user's, or one of which a method has been replaced, runs
by itself.

In eager mode every layer runs by itself, in Python, on `reference.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cnnlite import fusion
from cnnlite.arguments import float_array
from cnnlite.engine.buffers import Samples
from cnnlite.engine.graph import Graph, stages_of
from cnnlite.engine.plan import INPUT, WEIGHTS, Plan, TrainingPlan
from cnnlite.layers.activation import ActivationLayer, leaving_out
from cnnlite.layers.base import Layer, commit_held, held_commits
from cnnlite.layers.overrides import class_keeps, is_untouched, keeps
from cnnlite.types import Array, Shape

if TYPE_CHECKING:
    from cnnlite.layers.changes import Memo

PLANS_KEPT = 16  # of a stretch, for samples of different shapes
FORWARD, BACKWARD, COMMIT = 0, 1, 2  # the sections of a plan of a training pass

# Of a model in a stack: with another of these it runs by itself.
STACK_PASSES = ("prepare", "forward", "backward", "backward_weights", "run_up", "run_down")


class Part(NamedTuple):
    """A layer that runs by itself.

    Attributes:
        layer: the layer.
        is_ours: whether it does what the library wrote.
        within: the models inside of which it is the first part, the outer one first; they check their input.
        left_out: the activation that hands on what it gets; see `leaving_out`.
    """

    layer: Layer
    is_ours: bool
    within: tuple[Any, ...] = ()
    left_out: ActivationLayer | None = None


def whole(layer: Any) -> Part:
    """Return a layer as a part."""
    return Part(layer, is_ours(layer))


def parts_of(layer: Any) -> list[Part]:
    """Return the parts of a layer: of a model those of its layers, else itself."""
    if hasattr(layer, "run_up") and keeps(layer, *STACK_PASSES) and layer.inner_layers:
        first, *rest = [part for inner in layer.inner_layers for part in parts_of(inner)]
        return [first._replace(within=(layer, *first.within)), *rest]
    return [whole(layer)]


def is_ours(layer: Any) -> bool:
    """Return whether a plan can stand for a layer: whether it, and all inside it, does what the library wrote."""
    return all(is_untouched(inner) and inner.is_traceable and inner.dtype == layer.dtype for inner in layer.walk())


def backward_of_weights(layer: Any) -> Callable[[Array], Any]:
    """Return `layer.backward_weights`, or `layer.backward` where that alone is the user's own."""
    if isinstance(layer, Layer) and class_keeps(type(layer), "backward_weights") and not keeps(layer, "backward"):
        return layer.backward
    return layer.backward_weights


def stretches_of(parts: Sequence[Part], memo: Memo) -> list[Any]:
    """Return the parts, with a `Stretch` in the place of those that a plan can run together."""
    result: list[Any] = []
    run: list[Part] = []
    for part in (*parts, None):
        if run and (part is None or not part.is_ours or part.layer.dtype != run[-1].layer.dtype):
            result.append(Stretch(run, memo))
            run = []
        if part is not None and part.is_ours:
            run.append(part)
        elif part is not None:
            result.append(Alone(part))
    return result


class Alone:
    """A part that runs by itself: on arrays, or with the buffers of the graph that is being made."""

    def __init__(self, part: Part) -> None:
        self.part = part

    @property
    def has_trainable_weights(self) -> bool:
        return has_trainable_weights(self.part.layer)

    def forward(self, x: Any, training: bool) -> Any:
        with self._context():
            for model in self.part.within:
                x = model.prepare(x)
            return self.part.layer.forward(x, training=training)

    def backward(self, dy: Any) -> Any:
        with self._context():
            return self.part.layer.backward(dy)

    def backward_weights(self, dy: Any) -> None:
        with self._context():
            backward_of_weights(self.part.layer)(dy)

    @contextlib.contextmanager
    def _context(self) -> Iterator[None]:
        with stages_of(self.part.layer.name):
            if self.part.left_out is None:
                yield
                return
            with leaving_out(self.part.left_out):
                yield


class Stretch:
    """Parts that run by a plan.

    Args:
        parts: the parts.
        memo: where the plans are kept.
    """

    def __init__(self, parts: Sequence[Part], memo: Memo) -> None:
        self.parts, self._memo = list(parts), memo
        self.dtype = parts[0].layer.dtype
        self._layers = [layer for part in parts for layer in part.layer.walk()]
        self._last: tuple[_Training, int] | None = None
        self._commit: Callable[[Any], None] | None = None

    @property
    def has_trainable_weights(self) -> bool:
        return any(has_trainable_weights(part.layer) for part in self.parts)

    def forward(self, x: Array, training: bool) -> Array:
        lowest = self.parts[0].layer
        x = float_array(x, self.dtype, "x", lowest.name)
        if x.ndim == 0:
            lowest.check_fits(x.shape)
            raise ValueError(f"{lowest.name}: x must have an axis of samples. Received: shape={x.shape}.")
        made = self._made(x.shape[1:], training, len(x))
        if not training:
            return made.run(x)
        pair, samples = made, len(x)
        if self._commit is not None:  # of a pass before in the same step: what it would read is written over now
            commit_held(only=self._commit)
        self._last = pair, samples
        for layer in self._layers:
            if layer._memory is not None:  # of a pass of its own
                layer._memory = None
        y = pair.forward(x)
        if pair.commits:
            self._commit = lambda refused: pair.commit(samples)
            lowest.commit(self._commit)
        return y

    def plan(self, shape: Shape, training: bool) -> tuple[Any, Shape]:
        """Return the plan for samples of a shape, and the shape of what it makes of one."""
        made = self._made(shape, training, None)
        return made.plan, made.output_shape

    def _made(self, shape: Shape, training: bool, samples: int | None) -> Any:
        # The stretch itself is in the key: one that was found before a change makes no plans for those found after it.
        kind = _Training if training else _Inference
        return self._memo.get(((kind, self), shape, fusion.is_on()), lambda: kind(self.parts, shape, samples),
                              PLANS_KEPT)

    def backward(self, dy: Array) -> Array:
        return self._backward(dy, INPUT | WEIGHTS)

    def backward_weights(self, dy: Array) -> None:
        self._backward(dy, WEIGHTS)

    def _backward(self, dy: Array, purposes: int) -> Any:
        if self._last is None:
            name = self.parts[0].layer.name
            raise ValueError(f"{name}: backward needs a forward pass in training mode before it. The last failed.")
        pair, samples = self._last
        dy = self.parts[-1].layer.prepare_gradient(dy, (samples, *pair.output_shape))
        return pair.backward(dy, samples, purposes)


def as_given(x: Any, dtype: Any) -> Array:
    """Return an array as compiled code takes one."""
    if type(x) is np.ndarray and x.dtype == dtype and x.flags.carray:
        return x
    x = np.ascontiguousarray(x, dtype)
    return x if x.flags.aligned else x.copy()


def weights_of(parts: Iterable[Part]) -> list[dict[str, Array]]:
    """Return the dicts of all arrays that parts own, each once."""
    layers = {id(layer): layer for part in parts for layer in part.layer.walk()}
    return [arrays for layer in layers.values() for arrays in (layer._params, layer._grads, layer._state) if arrays]


class _Inference:
    """A plan of the forward pass of some parts in inference."""

    def __init__(self, parts: Sequence[Part], shape: Shape, samples: int | None) -> None:
        graph = Graph(parts[0].layer.dtype, weights_of(parts))
        with graph.being_made():
            self._x = y = graph.given((Samples(1, samples), *shape))  # errors say how many there are now
            for part in parts:
                y = Alone(part).forward(y, training=False)
        self._y, self.output_shape = y, y.shape[1:]
        self.plan = Plan(graph, [y], fusion.is_on())

    def run(self, x: Array) -> Array:
        if self._y.number == self._x.number:
            return x.reshape((len(x), *self._y.shape[1:]))
        return self.plan.run(len(x), {self._x.number: x})[0]


class _Training:
    """A plan of a training pass over some parts, forward and back."""

    def __init__(self, parts: Sequence[Part], shape: Shape, samples: int | None) -> None:
        graph = Graph(parts[0].layer.dtype, weights_of(parts))
        with graph.being_made(), remembering_nothing(parts), held_commits() as commits:
            self._x = y = graph.given((Samples(1, samples), *shape))  # errors say how many there are now
            for part in parts:
                y = Alone(part).forward(y, training=True)
            graph.section = BACKWARD
            self._dy = dx = graph.given(y.shape)
            for part in reversed(parts):
                dx = Alone(part).backward(dx)
            graph.section = COMMIT
            for commit in commits:
                commit(None)
        self._states = [layer._state for part in parts for layer in part.layer.walk() if layer._state]
        self._y, self._dx, self.commits, self.output_shape = y, dx, bool(commits), y.shape[1:]
        kept, for_input = ([buffer] if graph.buffers[buffer.number].kind == "work" else [] for buffer in (y, dx))
        self.plan = TrainingPlan(graph, kept, for_input, fusion.is_on())

    def forward(self, x: Array) -> Array:
        self.plan.run(len(x), {self._x.number: x}, FORWARD)
        return self._array(self._y, self._x, x)

    def commit(self, samples: int) -> None:
        self.plan.run(samples, {}, COMMIT)
        for arrays in self._states:
            arrays.version += 1

    def backward(self, dy: Array, samples: int, purposes: int) -> Any:
        self.plan.run(samples, {self._dy.number: dy}, BACKWARD, purposes)
        return self._array(self._dx, self._dy, dy) if purposes & INPUT else None

    def _array(self, buffer: Any, given: Any, array: Array) -> Array:
        if buffer.number == given.number:
            return array.reshape((len(array), *buffer.shape[1:]))
        return self.plan.array(buffer).copy()


@contextlib.contextmanager
def remembering_nothing(parts: Iterable[Part]) -> Iterator[None]:
    """Within it layers remember buffers of a graph, and after it nothing of that."""
    try:
        yield
    finally:
        for part in parts:
            for layer in part.layer.walk():
                layer._memory = None


def has_trainable_weights(layer: Layer) -> bool:
    return any(inner.trainable and inner._params for inner in layer.walk())
