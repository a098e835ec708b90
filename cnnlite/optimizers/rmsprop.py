"""RMSprop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnnlite import kernels
from cnnlite.optimizers.kernel import KernelOptimizer
from cnnlite.optimizers.settings import checks, not_negative, share
from cnnlite.support.arguments import boolean
from cnnlite.types import Config

if TYPE_CHECKING:
    from cnnlite.schedules import LearningRateSchedule


class RMSprop(KernelOptimizer):
    """Each weight's gradient divided by the root of a running average of its square (Tieleman and Hinton, 2012).

        v = rho * v + (1 - rho) * g²
        p -= learning_rate * g / sqrt(v + epsilon)

    Args:
        learning_rate: default 0.001.
        rho: how much of the average is kept at each step, from 0 to below 1; default 0.9.
        momentum: from 0 to below 1, by default 0; if above 0, steps accumulate as m = momentum * m + step.
        epsilon: keeps the divisor above 0; default 1e-7. It is added under the root (PyTorch adds it after the root).
        centered: True uses the variance, v minus the square of the average gradient, instead of v; default False.
        weight_decay, clipnorm, clipvalue, global_clipnorm, name: see `Optimizer`.
    """

    slot_names = ("velocity", "average_gradient", "momentum")
    _checks = checks(KernelOptimizer, rho=share, momentum=share, epsilon=not_negative, centered=boolean)

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, name)
        self.rho = rho
        self.momentum = momentum
        self.epsilon = epsilon
        self.centered = centered

    def initial_slots(self) -> dict[str, float]:
        in_use = {"velocity": True, "average_gradient": self.centered, "momentum": self.momentum > 0}
        return {name: 0.0 for name in self.slot_names if in_use[name]}

    def step_values(self, learning_rate: float, decay: float) -> tuple[float, ...]:
        return learning_rate, self.rho, self.momentum, self.epsilon, decay

    def step_with(self, p: Any, g: Any, slots: list[Any], values: Any, start: int = 0, stop: int | None = None,
                  refused: Any = None) -> None:
        kernels.rmsprop(p, g, *slots, values, start, stop, refused)

    def get_config(self) -> Config:
        return {**super().get_config(), "rho": self.rho, "momentum": self.momentum, "epsilon": self.epsilon,
                "centered": self.centered}
