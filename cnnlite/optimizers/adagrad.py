"""Adagrad."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnnlite import kernels
from cnnlite.optimizers.kernel import KernelOptimizer
from cnnlite.optimizers.settings import checks, not_negative
from cnnlite.types import Config

if TYPE_CHECKING:
    from cnnlite.schedules import LearningRateSchedule


class Adagrad(KernelOptimizer):
    """Each weight's gradient divided by the root of the sum of its squares so far (Duchi et al., 2011).

        s += g²
        p -= learning_rate * g / sqrt(s + epsilon)

    Args:
        learning_rate: default 0.001. The paper's figures correspond to 1.0.
        initial_accumulator_value: what s starts from, at least 0; default 0.1.
        epsilon: keeps the divisor above 0; default 1e-7. It is added under the root (PyTorch adds it after the root).
        weight_decay, clipnorm, clipvalue, global_clipnorm, name: see `Optimizer`.
    """

    slot_names = ("accumulator",)
    _checks = checks(KernelOptimizer, initial_accumulator_value=not_negative, epsilon=not_negative)

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, name)
        self.initial_accumulator_value = initial_accumulator_value
        self.epsilon = epsilon

    def initial_slots(self) -> dict[str, float]:
        return {"accumulator": self.initial_accumulator_value}

    def step_values(self, learning_rate: float, decay: float) -> tuple[float, ...]:
        return learning_rate, self.epsilon, decay

    def step_with(self, p: Any, g: Any, slots: list[Any], values: Any, start: int = 0, stop: int | None = None,
                  refused: Any = None) -> None:
        kernels.adagrad(p, g, *slots, values, start, stop, refused)

    def get_config(self) -> Config:
        return {**super().get_config(), "initial_accumulator_value": self.initial_accumulator_value,
                "epsilon": self.epsilon}
