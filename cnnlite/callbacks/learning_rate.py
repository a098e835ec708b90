"""Callbacks that change the learning rate from epoch to epoch."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable
from typing import Any

from cnnlite.callbacks.base import Callback
from cnnlite.callbacks.monitor import Monitor
from cnnlite.support.arguments import integer, number
from cnnlite.support.printing import message
from cnnlite.support.schema import COUNT, NUMBER, check_form
from cnnlite.types import Logs


class LearningRateScheduler(Callback):
    """Set the learning rate at the beginning of each epoch.

    Args:
        schedule: a function of the epoch, from 0, and the current learning rate, or of the epoch alone, that
            returns the new rate.
        verbose: 1 prints the new rate; default 0.

    The rate goes into the history as "learning_rate".

    Raises:
        TypeError: schedule is not a function of one or two arguments, or does not return a number.
        ValueError: it returns a negative number; when training begins, the optimizer already has a schedule.
    """

    adds_to_logs = ("learning_rate",)

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        if not callable(schedule):
            raise TypeError(f"LearningRateScheduler: schedule must be a function. Received: schedule={schedule!r}.")
        self.schedule = schedule
        if not _takes(schedule, 0) and not _takes(schedule, 0, 0.0):
            raise TypeError(
                "LearningRateScheduler: schedule must take the epoch, or the epoch and the current learning rate. "
                f"Received: schedule={schedule!r}, which does not."
            )
        self.verbose = verbose

    def on_train_begin(self, logs: Logs | None = None) -> None:
        _check_settable(self.model.optimizer, "LearningRateScheduler")

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        optimizer = self.model.optimizer
        if _takes(self.schedule, 0, 0.0):
            rate = self.schedule(epoch, float(optimizer.learning_rate))
        else:
            rate = self.schedule(epoch)
        optimizer.learning_rate = number(rate, "what schedule returns", "LearningRateScheduler", minimum=0)
        if self.verbose:
            message(f"Epoch {epoch + 1}: the learning rate is set to {optimizer.learning_rate:g}")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if logs is not None:
            logs["learning_rate"] = float(self.model.optimizer.learning_rate)


class ReduceLROnPlateau(Monitor):
    """Reduce the learning rate when a value has not improved for some epochs.

    Args:
        monitor: the name of the value; "val_loss" by default.
        factor: what the learning rate is multiplied by, above 0 and less than 1; default 0.1.
        patience: how many epochs in a row without improvement lead to a reduction; default 10.
        verbose: 1 prints every reduction; default 0.
        mode: "min", "max" or "auto" (default); see `Monitor`.
        min_delta: how much better the value must be to count as an improvement; default 0.0001.
        cooldown: how many epochs after a reduction are not counted; default 0.
        min_lr: the learning rate never falls below this; default 0.

    The rate goes into the history as "learning_rate".

    Raises:
        ValueError: as for `Monitor`, or a number is out of range; when training begins, the optimizer already
            has a schedule.
    """

    adds_to_logs = ("learning_rate",)

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 0.0001,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.factor = number(factor, "factor", "ReduceLROnPlateau", above=0, below=1)
        self.patience = integer(patience, "patience", "ReduceLROnPlateau", minimum=0)
        self.verbose = verbose
        self.cooldown = integer(cooldown, "cooldown", "ReduceLROnPlateau", minimum=0)
        self.min_lr = number(min_lr, "min_lr", "ReduceLROnPlateau", minimum=0)
        self._forget()

    def _forget(self) -> None:
        self.best: float | None = None
        self.wait = 0
        self.cooldown_counter = 0

    def get_state(self) -> dict[str, Any]:
        return {"best": self.best, "wait": self.wait, "cooldown_counter": self.cooldown_counter}

    def set_state(self, state: dict[str, Any]) -> None:
        form = {"best": (NUMBER, None), "wait": COUNT, "cooldown_counter": COUNT}
        check_form(state, form, "the state of ReduceLROnPlateau")
        self.best, self.wait, self.cooldown_counter = state["best"], state["wait"], state["cooldown_counter"]

    def in_cooldown(self) -> bool:
        """Return whether a reduction is still too recent for another."""
        return self.cooldown_counter > 0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        _check_settable(self.model.optimizer, "ReduceLROnPlateau")
        super().on_train_begin(logs)
        self._forget()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        optimizer = self.model.optimizer
        logs = {} if logs is None else logs
        logs["learning_rate"] = float(optimizer.learning_rate)
        value = self.value(logs, "the learning rate stays as it is")
        if value is None:
            return
        if self.in_cooldown():
            self.cooldown_counter -= 1
            self.wait = 0
        if self.improves(value, self.best):
            self.best, self.wait = value, 0
        elif not self.in_cooldown():
            self.wait += 1
            if self.wait >= self.patience and optimizer.learning_rate > self.min_lr:
                optimizer.learning_rate = max(optimizer.learning_rate * self.factor, self.min_lr)
                self.cooldown_counter, self.wait = self.cooldown, 0
                if self.verbose:
                    message(f"Epoch {epoch + 1}: the learning rate is reduced to {optimizer.learning_rate:g}")


def _check_settable(optimizer: Any, owner: str) -> None:
    if not isinstance(optimizer.learning_rate, numbers.Real):
        raise ValueError(
            f"{owner}: the optimizer must have a fixed learning rate, which this callback then changes. "
            f"Received: learning_rate={optimizer.learning_rate!r}. Use either the schedule or the callback."
        )


def _takes(function: Callable[..., Any], *arguments: float) -> bool:
    """Return whether a function takes these arguments; one without a signature is assumed to take only the first."""
    try:
        inspect.signature(function).bind(*arguments)
    except ValueError:  # a built-in function
        return len(arguments) == 1
    except TypeError:
        return False
    return True
