"""Learning rates that change from step to step: each schedule is called with a step and returns a float.

Pass one to an optimizer in place of a number. The first step is 0. Names, arguments and formulas are
Keras's; `OneCycle` follows PyTorch's OneCycleLR. All take a `name`, which is kept only for configs. A number out of
range is a ValueError; anything that is not a number is a TypeError.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cnnlite.support.arguments import boolean, integer, number
from cnnlite.support.identifiers import from_identifier, to_config
from cnnlite.types import Config

if TYPE_CHECKING:
    from typing_extensions import Self


class LearningRateSchedule:
    """The base class of all schedules; subclasses define `__call__(step)` and `get_config()`.

    >>> import cnnlite
    >>> class Halving(cnnlite.optimizers.schedules.LearningRateSchedule):
    ...     def __call__(self, step):
    ...         return 0.1 * 0.5 ** (step // 1000)
    >>> optimizer = cnnlite.optimizers.SGD(Halving())
    >>> optimizer.current_learning_rate()
    0.1
    """

    def __call__(self, step: int) -> float:
        """Return the learning rate at a step, as a float."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__(step).")

    def get_config(self) -> Config:
        """Return the arguments that recreate this schedule."""
        raise NotImplementedError(f"{type(self).__name__} must define get_config() to be written to a file.")

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Make a schedule from what `get_config` returned."""
        return cls(**config)


class ExponentialDecay(LearningRateSchedule):
    """initial_learning_rate * decay_rate ** (step / decay_steps).

    Args:
        initial_learning_rate: a number of at least 0.
        decay_steps: the number of steps in which the rate changes by the factor `decay_rate`.
        decay_rate: the factor, at least 0.
        staircase: True rounds step / decay_steps down, so that the rate falls like a staircase; default False.

    Example:

    >>> schedule = ExponentialDecay(0.1, decay_steps=100, decay_rate=0.5)
    >>> schedule(0), schedule(200)
    (0.1, 0.025)
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str | None = "ExponentialDecay",
    ) -> None:
        owner = type(self).__name__
        self.initial_learning_rate = number(initial_learning_rate, "initial_learning_rate", owner, minimum=0)
        self.decay_steps = number(decay_steps, "decay_steps", owner, above=0)
        self.decay_rate = number(decay_rate, "decay_rate", owner, minimum=0)
        self.staircase = boolean(staircase, "staircase", owner)
        self.name = name

    def __call__(self, step: int) -> float:
        try:
            return self.initial_learning_rate * self.decay_rate ** self.decays(step)
        except OverflowError:  # a rate above 1, after many steps
            return math.inf

    def decays(self, step: int) -> float:
        """Return step / decay_steps, rounded down if `staircase` is set."""
        decays = step / self.decay_steps
        return float(math.floor(decays)) if self.staircase else decays

    def get_config(self) -> Config:
        return {
            "initial_learning_rate": self.initial_learning_rate, "decay_steps": self.decay_steps,
            "decay_rate": self.decay_rate, "staircase": self.staircase, "name": self.name,
        }


class InverseTimeDecay(ExponentialDecay):
    """initial_learning_rate / (1 + decay_rate * step / decay_steps), with the arguments of `ExponentialDecay`."""

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str | None = "InverseTimeDecay",
    ) -> None:
        super().__init__(initial_learning_rate, decay_steps, decay_rate, staircase, name)

    def __call__(self, step: int) -> float:
        return self.initial_learning_rate / (1 + self.decay_rate * self.decays(step))


class PiecewiseConstantDecay(LearningRateSchedule):
    """values[0] up to and including step boundaries[0], then values[1] up to boundaries[1], and so on.

    Args:
        boundaries: steps, each larger than the one before.
        values: learning rates, one more than there are boundaries.

    Raises:
        ValueError: boundaries or values break these rules.
    """

    def __init__(
        self,
        boundaries: Sequence[float],
        values: Sequence[float],
        name: str | None = "PiecewiseConstant",
    ) -> None:
        owner = type(self).__name__
        self.boundaries = [number(step, "each of boundaries", owner, minimum=0) for step in boundaries]
        self.values = [number(value, "each of values", owner, minimum=0) for value in values]
        self.name = name
        if len(self.values) != len(self.boundaries) + 1:
            raise ValueError(
                f"{owner}: values must have one more entry than boundaries. "
                f"Received: boundaries={self.boundaries}, values={self.values}."
            )
        if any(a >= b for a, b in zip(self.boundaries, self.boundaries[1:])):
            raise ValueError(
                f"{owner}: each of boundaries must be larger than the one before. "
                f"Received: boundaries={self.boundaries}."
            )

    def __call__(self, step: int) -> float:
        return self.values[bisect.bisect_left(self.boundaries, step)]

    def get_config(self) -> Config:
        return {"boundaries": self.boundaries, "values": self.values, "name": self.name}


class PolynomialDecay(LearningRateSchedule):
    """(initial - end) * (1 - step / decay_steps) ** power + end, and `end_learning_rate` after `decay_steps`.

    Args:
        initial_learning_rate, end_learning_rate: numbers of at least 0; the second is 0.0001 by default.
        decay_steps: how many steps the decay takes.
        power: the exponent, above 0; 1 (default) is a straight line.
        cycle: True starts over each time the end is reached, with `decay_steps` replaced by its next multiple;
            default False.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
        name: str | None = "PolynomialDecay",
    ) -> None:
        owner = type(self).__name__
        self.initial_learning_rate = number(initial_learning_rate, "initial_learning_rate", owner, minimum=0)
        self.decay_steps = number(decay_steps, "decay_steps", owner, above=0)
        self.end_learning_rate = number(end_learning_rate, "end_learning_rate", owner, minimum=0)
        self.power = number(power, "power", owner, above=0)
        self.cycle = boolean(cycle, "cycle", owner)
        self.name = name

    def __call__(self, step: int) -> float:
        decay_steps = self.decay_steps
        if self.cycle:
            decay_steps *= max(1, math.ceil(step / decay_steps))
        left = 1 - min(step, decay_steps) / decay_steps
        return (self.initial_learning_rate - self.end_learning_rate) * left**self.power + self.end_learning_rate

    def get_config(self) -> Config:
        return {
            "initial_learning_rate": self.initial_learning_rate, "decay_steps": self.decay_steps,
            "end_learning_rate": self.end_learning_rate, "power": self.power, "cycle": self.cycle, "name": self.name,
        }


class CosineDecay(LearningRateSchedule):
    """Half a cosine from the initial rate down to `alpha` times it, after an optional linear warm-up.

        warm-up    initial + (warmup_target - initial) * step / warmup_steps
        decay      peak * ((1 - alpha) * (1 + cos(π * t / decay_steps)) / 2 + alpha)

    where t counts the steps after the warm-up and stops at `decay_steps`, and peak is `warmup_target`, or
    the initial rate if there is no warm-up (Loshchilov and Hutter, 2017; Goyal et al., 2017).

    Args:
        initial_learning_rate: a number of at least 0; the warm-up starts from it, if there is one.
        decay_steps: how many steps the decay takes, not counting the warm-up.
        alpha: the final rate as a fraction of the peak; default 0.
        warmup_target: the rate at the end of the warm-up; None (default) for no warm-up, whatever `warmup_steps` is.
        warmup_steps: how many steps the warm-up takes; default 0.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        alpha: float = 0.0,
        name: str | None = "CosineDecay",
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ) -> None:
        owner = type(self).__name__
        self.initial_learning_rate = number(initial_learning_rate, "initial_learning_rate", owner, minimum=0)
        self.decay_steps = number(decay_steps, "decay_steps", owner, above=0)
        self.alpha = number(alpha, "alpha", owner, minimum=0)
        self.name = name
        self.warmup_target = warmup_target
        if warmup_target is not None:
            self.warmup_target = number(warmup_target, "warmup_target", owner, minimum=0)
        self.warmup_steps = number(warmup_steps, "warmup_steps", owner, minimum=0)

    def __call__(self, step: int) -> float:
        start, peak = self.initial_learning_rate, self.initial_learning_rate
        decaying: float = step
        if self.warmup_target is not None:
            peak = self.warmup_target
            if step < self.warmup_steps:
                return start + (peak - start) * step / self.warmup_steps
            decaying = step - self.warmup_steps
        return peak * ((1 - self.alpha) * cosine(1.0, 0.0, min(decaying / self.decay_steps, 1)) + self.alpha)

    def get_config(self) -> Config:
        return {
            "initial_learning_rate": self.initial_learning_rate, "decay_steps": self.decay_steps, "alpha": self.alpha,
            "name": self.name, "warmup_target": self.warmup_target, "warmup_steps": self.warmup_steps,
        }


class OneCycle(LearningRateSchedule):
    """Rise to a high rate, then fall far below the first one, each along half a cosine (Smith and Topin, 2018).

    The rate starts at max_learning_rate / div_factor, peaks after the fraction `pct_start` of the steps, and
    ends at max_learning_rate / div_factor / final_div_factor, where it stays after `total_steps`. The values
    match PyTorch's OneCycleLR; the momentum is left alone.

    Args:
        max_learning_rate: the highest rate, above 0.
        total_steps: the number of steps in the whole run: batches per epoch times epochs.
        pct_start: the fraction of the steps in which the rate rises, from 0 to 1; default 0.3.
        div_factor: how many times smaller the first rate is than the highest, at least 1; default 25.
        final_div_factor: how many times smaller the last rate is than the first, at least 1; default 10,000.

    Example:

    >>> schedule = OneCycle(0.1, total_steps=10)
    >>> [round(schedule(step), 4) for step in (0, 2, 9)]
    [0.004, 0.1, 0.0]
    """

    def __init__(
        self,
        max_learning_rate: float,
        total_steps: int,
        pct_start: float = 0.3,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        name: str | None = "OneCycle",
    ) -> None:
        owner = type(self).__name__
        self.max_learning_rate = number(max_learning_rate, "max_learning_rate", owner, above=0)
        self.total_steps = integer(total_steps, "total_steps", owner)
        self.pct_start = number(pct_start, "pct_start", owner, minimum=0)
        if self.pct_start > 1:
            raise ValueError(f"{owner}: pct_start must be from 0 to 1. Received: pct_start={pct_start}.")
        self.div_factor = number(div_factor, "div_factor", owner, minimum=1)
        self.final_div_factor = number(final_div_factor, "final_div_factor", owner, minimum=1)
        self.name = name

    def __call__(self, step: int) -> float:
        first = self.max_learning_rate / self.div_factor
        last_step = self.total_steps - 1
        peak_step = self.pct_start * self.total_steps - 1
        step = min(step, last_step)
        if step <= peak_step:
            return cosine(first, self.max_learning_rate, step / peak_step if peak_step > 0 else 1)
        return cosine(self.max_learning_rate, first / self.final_div_factor,
                      (step - peak_step) / (last_step - peak_step))

    def get_config(self) -> Config:
        return {
            "max_learning_rate": self.max_learning_rate, "total_steps": self.total_steps, "pct_start": self.pct_start,
            "div_factor": self.div_factor, "final_div_factor": self.final_div_factor, "name": self.name,
        }


def cosine(start: float, end: float, share: float) -> float:
    """Return the value of half a cosine from `start` to `end`, at `share` (0 to 1) of the way."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


SCHEDULES = {
    "exponential_decay": ExponentialDecay,
    "inverse_time_decay": InverseTimeDecay,
    "piecewise_constant_decay": PiecewiseConstantDecay,
    "polynomial_decay": PolynomialDecay,
    "cosine_decay": CosineDecay,
    "one_cycle": OneCycle,
}


def get(identifier: Any) -> Any:
    """Return the schedule for a saved config or a schedule; an unknown name is a ValueError."""
    return from_identifier(identifier, SCHEDULES, LearningRateSchedule, "schedule")


def serialize(schedule: LearningRateSchedule | None) -> Config | None:
    """Return {"class_name", "config"} for a schedule."""
    return to_config(schedule)


deserialize = get
