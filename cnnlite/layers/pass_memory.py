"""What a layer keeps from its forward pass for its backward pass, and what it commits at the end of a step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

from cnnlite.engine.graph import current_graph, stages_of
from cnnlite.layers.overrides import LayerType
from cnnlite.types import DTypeLike, Shape

_commits: ContextVar[list[Callable[[Any], None]] | None] = ContextVar("commits", default=None)


@contextlib.contextmanager
def deferred_commits() -> Iterator[list[Callable[[Any], None]]]:
    """Collect what layers `commit` within the block instead of running it, and yield the list."""
    commits: list[Callable[[Any], None]] = []
    token = _commits.set(commits)
    try:
        yield commits
    finally:
        _commits.reset(token)


# What layers keep for `backward` in this context, by layer id; None if each layer keeps its own.
_apart: ContextVar[dict[int, tuple[Any, ...]] | None] = ContextVar("apart", default=None)


@contextlib.contextmanager
def separate_memory() -> Iterator[None]:
    """Within the block, keep what layers `remember` apart from all other passes and threads; drop it at the end."""
    token = _apart.set({})
    try:
        yield
    finally:
        _apart.reset(token)


def run_deferred_commits() -> None:
    """Run the deferred commits, in order."""
    commits = _commits.get() or []
    while commits:
        commits.pop(0)(None)


class PassMemory(metaclass=LayerType):
    """The part of a `Layer` that connects its forward pass with its backward pass."""

    name: Any
    dtype: Any
    _memory: tuple[Any, ...] | None

    def remember(self, *values: Any) -> None:
        """Keep what `backward` will need."""
        apart = _apart.get()
        if apart is None:
            self._memory = values
        else:
            apart[id(self)] = values

    def forget(self) -> None:
        """Drop what was kept for `backward`."""
        apart = _apart.get()
        if apart is None:
            self._memory = None
        else:
            apart.pop(id(self), None)

    def recall(self) -> tuple[Any, ...]:
        """Return what the last training forward kept; it stays available until the next one."""
        apart = _apart.get()
        memory = self._memory if apart is None else apart.get(id(self))
        if memory is None:
            raise ValueError(
                f"{self.name}: backward needs a forward pass in training mode before it. "
                "Call forward(x, training=True) first; for a layer inside a model, which runs a compiled plan instead, "
                "run the model under `with cnnlite.reference_mode():`."
            )
        return memory

    def allocate(self, key: str, shape: Shape, training: bool = True, dtype: DTypeLike | None = None) -> Any:
        """Return an uninitialised array of `shape`, or a buffer while a graph is being built."""
        dtype = self.dtype if dtype is None else np.dtype(dtype)
        graph = current_graph()
        return np.empty(shape, dtype) if graph is None else graph.work(shape, dtype)

    def value(self, function: Callable[[], Any], shape: Shape, dtype: DTypeLike) -> Any:
        """Return a small array of what `function()` returns, called again for each pass: a mask's key, say."""
        graph = current_graph()
        return np.array(function(), dtype) if graph is None else graph.value(function, shape, dtype)

    def commit(self, function: Callable[[Any], None]) -> None:
        """Call `function(refused)`, which updates moving averages: at once, or at the end of a training step.

        refused is None, or a buffer of one integer: if that is not 0, nothing may change.
        """
        commits = _commits.get()
        if commits is None:
            function(None)
        elif current_graph() is None:
            commits.append(function)
        else:
            commits.append(stages_of(self.name)(function))
