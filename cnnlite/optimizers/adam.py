"""Adam, and AdamW, which is Adam with weight decay."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from cnnlite import kernels
from cnnlite.optimizers.kernel import KernelOptimizer
from cnnlite.optimizers.settings import checks, not_negative, share
from cnnlite.support.arguments import boolean
from cnnlite.types import Config

if TYPE_CHECKING:
    from cnnlite.schedules import LearningRateSchedule


class Adam(KernelOptimizer):
    """Running averages of the gradient and of its square, both corrected for starting at 0.

        m += (1 - beta_1) * (g - m)
        v += (1 - beta_2) * (g² - v)
        p -= learning_rate * sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (sqrt(v) + epsilon)

    at step t = 1, 2, ... This is the form at the end of section 2 of Kingma and Ba (2015), so epsilon is not
    quite PyTorch's: ours equals PyTorch's epsilon times sqrt(1 - beta_2**t).

    Args:
        learning_rate: default 0.001.
        beta_1, beta_2: how much of each average is kept at each step, from 0 to below 1; defaults 0.9 and 0.999.
        epsilon: keeps the divisor above 0; default 1e-7.
        amsgrad: True divides by the largest v so far (Reddi et al., 2018); default False.
        weight_decay, clipnorm, clipvalue, global_clipnorm, name: see `Optimizer`.
    """

    slot_names = ("momentum", "velocity", "velocity_hat")
    _checks = checks(KernelOptimizer, beta_1=share, beta_2=share, epsilon=not_negative, amsgrad=boolean)

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, name)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.amsgrad = amsgrad

    def initial_slots(self) -> dict[str, float]:
        return {name: 0.0 for name in self.slot_names if self.amsgrad or name != "velocity_hat"}

    def step_values(self, learning_rate: float, decay: float) -> tuple[float, ...]:
        t = self.iterations + 1
        alpha = learning_rate * math.sqrt(1 - self.beta_2**t) / (1 - self.beta_1**t)
        return alpha, self.beta_1, self.beta_2, self.epsilon, decay

    def step_with(self, p: Any, g: Any, slots: list[Any], values: Any, start: int = 0, stop: int | None = None,
                  refused: Any = None) -> None:
        kernels.adam(p, g, *slots, values, start, stop, refused)

    def get_config(self) -> Config:
        return {**super().get_config(), "beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon,
                "amsgrad": self.amsgrad}


class AdamW(Adam):
    """Adam with weight decay decoupled from its averages (Loshchilov and Hutter, 2019).

        p -= learning_rate * weight_decay * p,  and then Adam's step

    Args:
        weight_decay: default 0.004.
        learning_rate, beta_1, beta_2, epsilon, amsgrad: as for `Adam`.
        clipnorm, clipvalue, global_clipnorm, name: see `Optimizer`.
    """

    _checks = checks(Adam, weight_decay=not_negative)

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay, clipnorm, clipvalue,
                         global_clipnorm, name=name)
