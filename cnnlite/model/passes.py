"""Forward and backward passes over a stack of layers: as plans if the layers are the library's, else layer by layer.

A stack is split into *parts*: its layers, and those of nested models (`parts.py`). Consecutive parts that still run
the library's own code form a *segment*, which runs as one plan. The plan is made once per sample shape, by calling the
parts with the buffers of a graph instead of arrays; running it is one call into compiled code (`engine/plan.py`).
Everything else runs on its own, in Python: a user's layer, or a layer with a replaced method.

In eager mode every layer runs on its own, in Python, on `reference.py`.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from cnnlite import fusion
from cnnlite.engine.buffers import WORK, Samples
from cnnlite.engine.graph import Graph
from cnnlite.engine.plan import INPUT, WEIGHTS, Plan, TrainingPlan
from cnnlite.engine.program import Memory
from cnnlite.layers.parts import Part, SinglePart, has_trainable_weights, weights_of
from cnnlite.layers.pass_memory import deferred_commits, separate_memory
from cnnlite.support.arguments import float_array
from cnnlite.types import Array, Shape

if TYPE_CHECKING:
    from cnnlite.layers.memo import Memo

PLANS_KEPT = 16  # per segment, for samples of different shapes
MEMORIES_KEPT = 4  # per segment, for training passes that are alive at the same time
FORWARD, BACKWARD, COMMIT = 0, 1, 2  # the sections of a training plan

def segments_of(parts: Sequence[Part], memo: Memo) -> list[Any]:
    """Return the parts, with a `Segment` in place of those that one plan can run together."""
    result: list[Any] = []
    run: list[Part] = []
    for part in (*parts, None):
        if run and (part is None or not part.is_ours or part.layer.dtype != run[-1].layer.dtype):
            result.append(Segment(run, memo))
            run = []
        if part is not None and part.is_ours:
            run.append(part)
        elif part is not None:
            result.append(SinglePart(part))
    return result


class Segment:
    """Parts that run as one plan. Any number of threads may run them forward at once.

    Args:
        parts: the parts.
        memo: the cache of the plans.
    """

    def __init__(self, parts: Sequence[Part], memo: Memo) -> None:
        self.parts, self._memo = list(parts), memo
        self.dtype = parts[0].layer.dtype
        self._layers = [layer for part in parts for layer in part.layer.walk()]
        # Training passes work in these memories, usually in just one. `_in_use` maps the id of a memory to the pass
        # that can still be run backward in it.
        self._memories: list[Memory] = []
        self._in_use: dict[int, Any] = {}

    @property
    def has_trainable_weights(self) -> bool:
        return any(has_trainable_weights(part.layer) for part in self.parts)

    def forward(self, x: Array) -> Array:
        """Return the output in inference mode."""
        x = self._checked(x)
        return self._made(x.shape[1:], False, len(x)).run(x)

    def forward_pass(self, x: Array) -> tuple[Array, TrainingPass]:
        """Return the output in training mode, and the pass, which can be run backward later."""
        x = self._checked(x)
        made = self._made(x.shape[1:], True, len(x))
        run = TrainingPass(self, made, len(x))
        run.plan = made.plan_in(self._memory_for(run))
        for layer in self._layers:
            if layer._memory is not None:  # left by a pass of this layer on its own
                layer._memory = None
        y = run.forward(x)
        if made.commits:
            self.parts[0].layer.commit(run.commit)
        return y, run

    def _memory_for(self, run: TrainingPass) -> Memory:
        """Return memory for a pass, reserved for it as long as it can still be run backward."""
        for memory in self._memories:
            if self._claim(memory, run):
                break
        else:
            memory = Memory()
            self._claim(memory, run)
            self._memories.append(memory)
        self.release(MEMORIES_KEPT)
        return memory

    def _claim(self, memory: Memory, run: object) -> bool:
        """Claim a memory until `run` is garbage-collected; return False if it is taken."""
        key = id(memory)
        # The callback is a C method: in a Python one, an exception raised by a signal handler would be lost.
        claim = weakref.ref(run, partial(self._in_use.pop, key))
        return self._in_use.setdefault(key, claim) is claim

    def _free(self, memories: Iterable[Memory]) -> None:
        for memory in memories:
            nobody = _Nobody()
            if self._claim(memory, nobody):
                memory.free()
            del nobody

    def release(self, kept: int = 0) -> None:
        """Free the memories beyond the first `kept`, unless a pass in one can still be run backward."""
        self._free(self._memories[kept:])

    def plan(self, shape: Shape, training: bool) -> tuple[Any, Shape]:
        """Return the plan for samples of a shape, and the shape of its output for one sample."""
        made = self._made(shape, training, None)
        return made.plan, made.output_shape

    def _checked(self, x: Any) -> Array:
        lowest = self.parts[0].layer
        x = float_array(x, self.dtype, "x", lowest.name)
        if x.ndim == 0:
            lowest.check_fits(x.shape)
            raise ValueError(f"{lowest.name}: x must have a batch axis. Received: shape={x.shape}.")
        return x

    def _made(self, shape: Shape, training: bool, samples: int | None) -> Any:
        # The segment is part of the key, so that one from before a change to the layers leaves no plans to later ones.
        kind = _Training if training else _Inference
        return self._memo.get(((kind, self), shape, fusion.is_on()), lambda: kind(self.parts, shape, samples),
                              PLANS_KEPT)


class _Nobody:
    """Claims a memory while it is being freed."""


class _Inference:
    """The plan of an inference pass over some parts."""

    def __init__(self, parts: Sequence[Part], shape: Shape, samples: int | None) -> None:
        graph = Graph(parts[0].layer.dtype, weights_of(parts), has_prologue=True)
        with graph.recording():
            self._x = y = graph.given((Samples(1, samples), *shape))  # errors quote the current number of samples
            for part in parts:
                y = SinglePart(part).forward(y)
        self._y, self.output_shape = y, y.shape[1:]
        self.plan = Plan(graph, [y], fusion.is_on())

    def run(self, x: Array) -> Array:
        if self._y.number == self._x.number:
            return x.reshape((len(x), *self._y.shape[1:]))
        return self.plan.run(len(x), {self._x.number: x})[0]


class _Training:
    """The graph of a training pass over some parts, forward and backward, and the plans made from it."""

    def __init__(self, parts: Sequence[Part], shape: Shape, samples: int | None) -> None:
        self._graph = graph = Graph(parts[0].layer.dtype, weights_of(parts))
        with graph.recording(), separate_memory(), deferred_commits() as commits:
            self.x = y = graph.given((Samples(1, samples), *shape))  # errors quote the current number of samples
            for part in parts:
                y = SinglePart(part).forward(y, training=True)
            graph.section = BACKWARD
            self.dy = dx = graph.given(y.shape)
            for part in reversed(parts):
                dx = SinglePart(part).backward(dx)
            graph.section = COMMIT
            for commit in commits:
                commit(None)
        self.states = [layer._state for part in parts for layer in part.layer.walk() if layer._state]
        self.y, self.dx, self.commits, self.output_shape = y, dx, bool(commits), y.shape[1:]
        self._joined = fusion.is_on()
        self._plans: dict[int, TrainingPlan] = {}  # by the id of the memory in which each runs

    @property
    def plan(self) -> TrainingPlan:
        """Any one of the plans, for display."""
        return next(iter(self._plans.values()), None) or self._new(Memory())

    def plan_in(self, memory: Memory) -> TrainingPlan:
        """Return the plan that runs in a memory."""
        plan = self._plans.get(id(memory))
        if plan is None:
            plan = self._plans[id(memory)] = self._new(memory)
        return plan

    def _new(self, memory: Memory) -> TrainingPlan:
        kept, for_input = ([buffer] if self._graph.buffers[buffer.number].kind == WORK else []
                           for buffer in (self.y, self.dx))
        return TrainingPlan(self._graph, kept, for_input, self._joined, memory=memory)


class TrainingPass:
    """A plan that has run forward for some samples, and can be run backward.

    Attributes:
        plan: the plan; nothing else runs it while this pass is alive.
    """

    plan: TrainingPlan

    def __init__(self, segment: Segment, made: _Training, samples: int) -> None:
        self._segment, self._made, self._samples = segment, made, samples

    @property
    def has_trainable_weights(self) -> bool:
        return self._segment.has_trainable_weights

    def forward(self, x: Array) -> Array:
        made, self._x = self._made, x  # the plan may read x in the backward pass
        self.plan.run(self._samples, {made.x.number: x}, FORWARD)
        return self._array(made.y, made.x, x)

    def commit(self, refused: Any) -> None:
        """Update what the layers learn without a gradient."""
        self.plan.run(self._samples, {}, COMMIT)
        for arrays in self._made.states:
            arrays.version += 1

    def backward(self, dy: Array) -> Array:
        dy = self._backward_pass(dy, INPUT | WEIGHTS)
        return self._array(self._made.dx, self._made.dy, dy)

    def backward_weights(self, dy: Array) -> None:
        self._backward_pass(dy, WEIGHTS)

    def _backward_pass(self, dy: Array, purposes: int) -> Array:
        made, top = self._made, self._segment.parts[-1].layer
        dy = top.prepare_gradient(dy, (self._samples, *made.output_shape))
        self.plan.run(self._samples, {made.dy.number: dy}, BACKWARD, purposes)
        return dy

    def _array(self, buffer: Any, given: Any, array: Array) -> Array:
        if buffer.number == given.number:
            return array.reshape((len(array), *buffer.shape[1:]))
        return self.plan.array(buffer).copy()
