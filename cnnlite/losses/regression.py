"""Losses for regression: predictions that are quantities, not classes."""

from __future__ import annotations

from typing import Any

from cnnlite import kernels
from cnnlite.losses.base import KernelLoss
from cnnlite.support.arguments import number
from cnnlite.types import Config, DTypeLike


class MeanSquaredError(KernelLoss):
    """loss = mean((y_pred - y_true)²) over the last axis.

    Shapes: labels and predictions (N, ..., K), losses (N, ...); (N,) counts as (N, 1).

    >>> MeanSquaredError()([[0.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 0.0]])
    0.5

    Args:
        reduction, name, dtype: see `Loss`.

    Raises:
        ValueError: the labels and the predictions differ in shape.
    """

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "mean_squared_error",
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)

    def terms(self, t: Any, y: Any, gradient: bool = True) -> Any:
        return kernels.squared_error(y, t, gradient)


class MeanAbsoluteError(KernelLoss):
    """loss = mean(|y_pred - y_true|) over the last axis. Where the two are equal, the gradient is 0.

    Shapes: labels and predictions (N, ..., K), losses (N, ...); (N,) counts as (N, 1).

    >>> MeanAbsoluteError()([[0.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 0.0]])
    0.5

    Args:
        reduction, name, dtype: see `Loss`.

    Raises:
        ValueError: the labels and the predictions differ in shape.
    """

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "mean_absolute_error",
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)

    def terms(self, t: Any, y: Any, gradient: bool = True) -> Any:
        return kernels.absolute_error(y, t, gradient)


class Huber(KernelLoss):
    """Half the squared error where it is small and the absolute error where it is large (Huber, 1964).

        loss = mean(e² / 2 if |e| <= delta else delta * |e| - delta² / 2)     e = y_pred - y_true

    Shapes: labels and predictions (N, ..., K), losses (N, ...); (N,) counts as (N, 1).

    >>> Huber()([[0.0, 1.0]], [[0.5, 3.0]])
    0.8125

    Args:
        delta: the error beyond which the loss grows linearly, above 0 (default 1).
        reduction, name, dtype: see `Loss`.

    Raises:
        ValueError: delta is not above 0, or the labels and the predictions differ in shape.
    """

    def __init__(
        self,
        delta: float = 1.0,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "huber_loss",
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.delta = number(delta, "delta", type(self).__name__, above=0)

    def terms(self, t: Any, y: Any, gradient: bool = True) -> Any:
        return kernels.huber(y, t, self.delta, gradient)

    def get_config(self) -> Config:
        return {**super().get_config(), "delta": self.delta}
