"""The library's own optimizers: their step is a kernel, run on arrays or as stages of a plan."""

from __future__ import annotations

from typing import Any

import numpy as np

from cnnlite.engine.buffers import is_buffer
from cnnlite.optimizers.base import Optimizer
from cnnlite.optimizers.clipping import clip_gradient
from cnnlite.support.as_written import AsWritten
from cnnlite.types import Array


class KernelOptimizer(Optimizer):
    """An optimizer whose step is a kernel of the parameters, the slots, and a few scalars.

    The scalars change from step to step: with a schedule, with `iterations`, and whenever an attribute is assigned to.
    So a plan that takes steps reads them from an array that is filled before each run:

        optimizer.add_step(parameters, values, refused)     once: adds stages to a plan
        values[:] = optimizer.next_values()                 before each run
        optimizer.finish_step(parameters)                   after each run that was not refused
    """

    # What an optimizer defines.

    def step_values(self, learning_rate: float, decay: float) -> tuple[float, ...]:
        """Return the scalars of the next step, in the order in which the kernel takes them."""
        raise NotImplementedError

    def step_with(self, p: Any, g: Any, slots: list[Any], values: Any, start: int = 0, stop: int | None = None,
                  refused: Any = None) -> None:
        """Call the kernel, with arrays or with buffers."""
        raise NotImplementedError

    # What this class makes of them.

    def update(self, p: Array, g: Array, slots: list[Array], learning_rate: float, decay: float) -> None:
        self.step_with(p, g, slots, np.array(self.step_values(learning_rate, decay), np.float64))

    def next_values(self) -> tuple[float, ...]:
        """Return the scalars of the next step, from the current learning rate and `iterations`."""
        return self.step_values(*self.next_rates())

    def step(self, parameters: Any) -> None:
        """Update the parameters by one step; for buffers, add its stages to their plan instead.

        With buffers, `parameters` has two more attributes, which `add_step` explains: `values` and `refused`.
        """
        if is_buffer(parameters.vector):
            self.add_step(parameters, parameters.values, parameters.refused)
        else:
            super().step(parameters)

    def add_step(self, parameters: Any, values: Any, refused: Any = None) -> None:
        """Add the stages of a step to a plan, clipping included; the optimizer must be built.

        Args:
            parameters: as for `step`, but `vector` and `gradient` are buffers.
            values: a float64 buffer for what `next_values` returns.
            refused: an int64 buffer (1,), or None; if it is not 0, the stages change nothing.
        """
        vector, gradient = parameters.vector, parameters.gradient
        limits = self.limits()
        if limits:
            clipped = vector.graph.work(vector.shape)
            clip_gradient(parameters, clipped, **limits)
            gradient = clipped
        slots = [self.slots.get(name) for name in self.slot_names]
        for start, stop in parameters.trainable_segments():
            self.step_with(vector, gradient, slots, values, start, stop, refused)

    def plan_key(self) -> tuple[Any, ...]:
        """Return what the stages of a step depend on, apart from the trainable segments.

        Slots are compared by identity, so the holder of the key must keep them alive, as a plan does.
        """
        return type(self), *self.limits().items(), *(id(slot) for slot in self.slots.values())


# The methods that a plan's stages replace. Methods that Python calls before each run may be overridden.
is_as_written = AsWritten("update", "step", "step_values", "step_with", "add_step")
_step = Optimizer.step  # which KernelOptimizer.step calls


def is_traceable(optimizer: Optimizer) -> bool:
    """Return whether a plan may run the steps of this optimizer as stages; others are called with arrays."""
    return is_as_written(optimizer) and Optimizer.step is _step
