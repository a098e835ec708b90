"""Gradient descent: plain, with momentum, or with Nesterov momentum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnnlite import kernels
from cnnlite.optimizers.kernel import KernelOptimizer
from cnnlite.optimizers.settings import checks, share
from cnnlite.support.arguments import boolean
from cnnlite.types import Config

if TYPE_CHECKING:
    from cnnlite.schedules import LearningRateSchedule


class SGD(KernelOptimizer):
    """Gradient descent, with momentum if that is above 0 (Polyak, 1964; Nesterov, 1983).

        p -= learning_rate * g                                        without momentum
        m = momentum * m - learning_rate * g;  p += m                 with momentum
        m as above;  p += momentum * m - learning_rate * g            with Nesterov momentum, which looks one step ahead

    Args:
        learning_rate: default 0.01.
        momentum: from 0 to below 1, by default 0.
        nesterov: default False; without momentum it changes nothing.
        weight_decay, clipnorm, clipvalue, global_clipnorm, name: see `Optimizer`.
    """

    slot_names = ("momentum",)
    _checks = checks(KernelOptimizer, momentum=share, nesterov=boolean)

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, name)
        self.momentum = momentum
        self.nesterov = nesterov

    def initial_slots(self) -> dict[str, float]:
        return {"momentum": 0.0} if self.momentum > 0 else {}

    def step_values(self, learning_rate: float, decay: float) -> tuple[float, ...]:
        return learning_rate, self.momentum, self.nesterov, decay

    def step_with(self, p: Any, g: Any, slots: list[Any], values: Any, start: int = 0, stop: int | None = None,
                  refused: Any = None) -> None:
        kernels.sgd(p, g, *slots, values, start, stop, refused)

    def get_config(self) -> Config:
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}
