"""Passes over a stack of layers, up and down: by plans where the layers are the library's, else layer by layer.

A stack is taken apart into *parts*, the layers in it and those of models in it (`parts.py`). Parts that do what the
library wrote, one after the other, are a *stretch*. A stretch is run by a plan: it is made by calling the parts with
the buffers of a graph instead of arrays, once for each shape of a sample, and run by one call of compiled code
(`engine/plan.py`). All else is Python: a layer of the user's, or one of which a method has been replaced, runs by
itself.

In eager mode every layer runs by itself, in Python, on `reference.py`.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from cnnlite import fusion
from cnnlite.arguments import float_array
from cnnlite.engine.buffers import WORK, Samples
from cnnlite.engine.graph import Graph
from cnnlite.engine.plan import INPUT, WEIGHTS, Plan, TrainingPlan
from cnnlite.engine.program import Memory
from cnnlite.layers.base import commit_held, held_commits
from cnnlite.parts import Alone, Part, has_trainable_weights, remembering_nothing, weights_of
from cnnlite.types import Array, Shape

if TYPE_CHECKING:
    from cnnlite.layers.changes import Memo

PLANS_KEPT = 16  # of a stretch, for samples of different shapes
PASSES_KEPT = 8  # of a stretch, by threads that run it in training mode
FORWARD, BACKWARD, COMMIT = 0, 1, 2  # the sections of a plan of a training pass

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


class Stretch:
    """Parts that run by a plan.

    Any number of threads may run it at once. A pass in training mode takes the memory of the one before by the same
    thread, as a layer's own would: `backward` is of the last one.

    Args:
        parts: the parts.
        memo: where the plans are kept.
    """

    def __init__(self, parts: Sequence[Part], memo: Memo) -> None:
        self.parts, self._memo = list(parts), memo
        self.dtype = parts[0].layer.dtype
        self._layers = [layer for part in parts for layer in part.layer.walk()]
        self._passes: deque[_Pass] = deque()  # the last ones in training mode; as a rule one

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
        run = _Pass(made, len(x), self._free_memory())
        for layer in self._layers:
            if layer._memory is not None:  # of a pass of its own
                layer._memory = None
        y = run.forward(x)
        if made.commits:
            lowest.commit(run.commit)
        self._passes.append(run)
        return y

    def _free_memory(self) -> Memory:
        """Return memory for a pass: that of the last one by this thread, which is over then."""
        last = self._take(lambda run: run.thread == threading.get_ident())
        if last is not None and last.awaits_commit:
            commit_held(only=last.commit)  # of a pass before in the same step
        if last is None and len(self._passes) >= PASSES_KEPT:
            last = self._take(lambda run: not run.awaits_commit)
        return Memory() if last is None or last.awaits_commit else last.end()

    def _take(self, is_wanted: Callable[[_Pass], bool]) -> _Pass | None:
        """Take the first pass that is wanted away from all other threads; None if there is none."""
        for run in list(self._passes):
            if is_wanted(run):
                with contextlib.suppress(ValueError):  # another thread has just taken it
                    self._passes.remove(run)
                    return run
        return None

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
        run = self._take(lambda run: run.thread == threading.get_ident()) or self._take(lambda run: True)
        if run is None or run.is_over:
            name = self.parts[0].layer.name
            raise ValueError(f"{name}: backward needs a forward pass in training mode before it. The last failed.")
        try:
            dy = self.parts[-1].layer.prepare_gradient(dy, (run.samples, *run.made.output_shape))
            return run.backward(dy, purposes)
        finally:
            self._passes.append(run)  # backward may be called again

    def release(self, all_of_it: bool) -> None:
        """Let go of what the last passes were given, or of all of their memory."""
        if all_of_it:
            self._passes.clear()
        for run in list(self._passes):
            run.forget()


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
    """What plans of a training pass over some parts are made of, forward and back."""

    def __init__(self, parts: Sequence[Part], shape: Shape, samples: int | None) -> None:
        self._graph = graph = Graph(parts[0].layer.dtype, weights_of(parts))
        with graph.being_made(), remembering_nothing(parts), held_commits() as commits:
            self.x = y = graph.given((Samples(1, samples), *shape))  # errors say how many there are now
            for part in parts:
                y = Alone(part).forward(y, training=True)
            graph.section = BACKWARD
            self.dy = dx = graph.given(y.shape)
            for part in reversed(parts):
                dx = Alone(part).backward(dx)
            graph.section = COMMIT
            for commit in commits:
                commit(None)
        self.states = [layer._state for part in parts for layer in part.layer.walk() if layer._state]
        self.y, self.dx, self.commits, self.output_shape = y, dx, bool(commits), y.shape[1:]
        self._idle: deque[TrainingPlan] = deque()
        self._joined = fusion.is_on()

    @property
    def plan(self) -> TrainingPlan:
        """A plan, to be looked at."""
        plan = self.take(Memory())
        self.put_back(plan)
        return plan

    def take(self, memory: Memory) -> TrainingPlan:
        """Return a plan that nobody else runs until it is `put_back`, in that memory."""
        try:
            plan = self._idle.pop()
        except IndexError:
            kept, for_input = ([buffer] if self._graph.buffers[buffer.number].kind == WORK else []
                               for buffer in (self.y, self.dx))
            return TrainingPlan(self._graph, kept, for_input, self._joined, memory=memory)
        plan.use(memory)
        return plan

    def put_back(self, plan: TrainingPlan) -> None:
        """Take a plan back, which gives up its memory."""
        plan.forget()
        plan.use(Memory())
        if len(self._idle) < PASSES_KEPT:
            self._idle.append(plan)


class _Pass:
    """A training pass: a plan that has been run up, and can be run down.

    Attributes:
        made: what the plan was made by.
        samples: how many there are.
        thread: which ran it up.
        awaits_commit: whether what the layers learn from it without a gradient is held back.
        is_over: whether it can no longer be run down.
    """

    def __init__(self, made: _Training, samples: int, memory: Memory) -> None:
        self.made, self.samples, self.thread = made, samples, threading.get_ident()
        self._memory, self._plan = memory, made.take(memory)
        self.awaits_commit, self.is_over = made.commits, False

    def forward(self, x: Array) -> Array:
        self._plan.run(self.samples, {self.made.x.number: x}, FORWARD)
        return self._array(self.made.y, self.made.x, x)

    def commit(self, refused: Any) -> None:
        self._plan.run(self.samples, {}, COMMIT)
        for arrays in self.made.states:
            arrays.version += 1
        self.awaits_commit = False

    def backward(self, dy: Array, purposes: int) -> Any:
        self._plan.run(self.samples, {self.made.dy.number: dy}, BACKWARD, purposes)
        return self._array(self.made.dx, self.made.dy, dy) if purposes & INPUT else None

    def forget(self) -> None:
        """Let go of the arrays that it was given."""
        self.is_over = True
        self._plan.forget()

    def end(self) -> Memory:
        """Give the plan back; return the memory."""
        self.made.put_back(self._plan)
        return self._memory

    def _array(self, buffer: Any, given: Any, array: Array) -> Array:
        if buffer.number == given.number:
            return array.reshape((len(array), *buffer.shape[1:]))
        return self._plan.array(buffer).copy()
