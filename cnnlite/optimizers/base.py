"""What all optimizers share: the learning rate, clipping, weight decay, the slots, and what files hold."""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cnnlite import schedules
from cnnlite.optimizers.clipping import clip_gradient
from cnnlite.optimizers.settings import CHECKS, LIMITS, Check, check_only_limit, refuse_unknown
from cnnlite.support.arguments import integer, number
from cnnlite.support.floating import arithmetic
from cnnlite.support.interrupts import deferred_signals
from cnnlite.types import Array, Config, Shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from cnnlite.layers.base import Layer
    from cnnlite.layers.flat_parameters import FlatParameters
    from cnnlite.schedules import LearningRateSchedule

VANISHING = 1e-45  # below every positive float32


class Optimizer:
    """The base class of all optimizers, with the arguments that they share.

    A subclass defines `update(p, g, slots, learning_rate, decay)` and, if it keeps anything from step to step, sets
    `slot_names` and defines `initial_slots()`.

    All arguments may be assigned to at any time (`optimizer.learning_rate = 0.01`); they are checked as in the
    constructor, and take effect at the next step.

    Args:
        learning_rate: a number of at least 0, or a `LearningRateSchedule`.
        weight_decay: before each step, weights shrink by the fraction learning_rate * weight_decay, independently
            of the gradient and its averages (Loshchilov and Hutter, 2019). None for no decay. Unlike an L2
            regularizer, it does not enter the loss.
        clipnorm: the largest norm that the gradient of one weight (a kernel, a bias) may have.
        clipvalue: the largest magnitude that an element of the gradient may have.
        global_clipnorm: the largest norm that the whole gradient may have. Only one of the three can be set.
            Without any, gradients above 1e19 have squares that float32 can't hold: optimizers that divide by an
            average of squares then take no step, or give NaN, as in Keras and PyTorch.
        name: its name in summaries and files.

    Raises:
        ValueError: a number is out of range, or two of the three limits are set.
        TypeError: an argument that must be a number is not one.
        AttributeError: a name that is assigned to is not an attribute of the optimizer (`optimizer.lr`).

    Attributes:
        iterations: how many steps have been taken.
        slots: the vectors kept from step to step, by name.
    """

    slot_names: tuple[str, ...] = ()
    _checks: ClassVar[Mapping[str, Check]] = CHECKS  # of the settable attributes, by name

    weight_decay: float | None = None
    clipnorm: float | None = None
    clipvalue: float | None = None
    global_clipnorm: float | None = None
    iterations: int = 0
    slots: dict[str, np.ndarray] = None  # type: ignore[assignment]  # __init__ makes it
    _learning_rate: Any = None
    _built_for: tuple[Any, ...] | None = None
    _parameters: Any = None  # weak references: to the parameters, and to the layers that own them
    _owners: list[Any] | None = None
    _clipped: Array | None = None
    _warned_of_nan = False

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        name: str | None = None,
    ) -> None:
        self.name = type(self).__name__.lower() if name is None else name
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.clipnorm, self.clipvalue, self.global_clipnorm = clipnorm, clipvalue, global_clipnorm
        self.iterations = 0
        self.slots = {}

    if not TYPE_CHECKING:  # a type checker would then accept any name

        def __setattr__(self, name, value):
            check = self._checks.get(name)
            if check is None:
                refuse_unknown(self, name, value)
                super().__setattr__(name, value)
                return
            value = check(value, name, type(self).__name__)
            if name in LIMITS:
                check_only_limit(self, name, value)
            if self._built_for is None:
                super().__setattr__(name, value)
            else:
                self._set_after_build(name, value)

    def __delattr__(self, name: str) -> None:
        if name in self._checks:
            raise AttributeError(f"{type(self).__name__}: {name} can't be deleted. Set it to another value.")
        super().__delattr__(name)

    # What an optimizer defines.

    def initial_slots(self) -> dict[str, float]:
        """Return the slots in use, a subset of `slot_names`, with the initial value of each vector."""
        return {}

    def update(self, p: Array, g: Array, slots: list[Array], learning_rate: float, decay: float) -> None:
        """Update a segment of the parameters and of the slots in place.

        The slots are in the order of `slot_names`; an unused one has length 0. `decay` is the fraction that p loses
        before the step.
        """
        raise NotImplementedError(f"{type(self).__name__} must define update(p, g, slots, learning_rate, decay).")

    # What training calls.

    @property
    def learning_rate(self) -> Any:
        """A float, or the schedule that gives one for each step."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float | LearningRateSchedule | dict[str, Any]) -> None:
        if isinstance(value, (schedules.LearningRateSchedule, dict)):
            self._learning_rate = schedules.get(value)
        else:
            self._learning_rate = number(value, "learning_rate", type(self).__name__, minimum=0)

    def current_learning_rate(self) -> float:
        """Return the learning rate of the next step, as a float."""
        if isinstance(self._learning_rate, schedules.LearningRateSchedule):
            rate = float(self._learning_rate(self.iterations))
            if not 0 <= rate < math.inf:
                raise ValueError(
                    f"{type(self).__name__}: a schedule must return finite numbers of at least 0. Received: {rate} "
                    f"from {type(self._learning_rate).__name__} at step {self.iterations}."
                )
            return rate
        return self._learning_rate

    @property
    def is_built(self) -> bool:
        """Whether the optimizer belongs to the weights of a model."""
        return self._built_for is not None

    def build(self, parameters: FlatParameters) -> None:
        """Create the slots for the parameters of a model; does nothing if they exist already.

        Raises:
            ValueError: it was built for other parameters.
        """
        if self._parameters is not None and self._parameters() is parameters:
            return
        layout = (list(parameters.names), [(place.start, place.stop) for place in parameters.slices],
                  parameters.vector.dtype)
        owners = parameters.owners
        if self._built_for is not None:
            others = self._owners is not None and not (
                len(owners) == len(self._owners) and all(mine() is owner for mine, owner in zip(self._owners, owners))
            )
            if self._built_for != layout or others:
                raise ValueError(
                    f"{type(self).__name__}: an optimizer belongs to the weights it was first used with, "
                    f"{_summary(self._built_for)}. Received: {'others, ' if others else ''}{_summary(layout)}. "
                    "Compile the model with a new optimizer."
                )
        self._parameters, self._owners = weakref.ref(parameters), [weakref.ref(owner) for owner in owners]
        if self._built_for is not None:
            return
        vector = parameters.vector
        with arithmetic():
            self.slots = {name: np.full_like(vector, value) for name, value in self.initial_slots().items()}
        self._built_for = layout

    def _set_after_build(self, name: str, value: Any) -> None:
        """Set a checked attribute; slots that come into use start afresh, and slots no longer needed are dropped."""
        before, old = self.initial_slots(), getattr(self, name)
        super().__setattr__(name, value)
        after = self.initial_slots()
        if any(before[slot] != start for slot, start in after.items() if slot in before):
            super().__setattr__(name, old)
            raise ValueError(
                f"{type(self).__name__}: {name} must be set before the first step. Received: {name}={value!r} after "
                f"{self.iterations} steps. Compile the model with a new optimizer."
            )
        if before.keys() != after.keys():
            _, slices, dtype = self._built_for  # type: ignore[misc]  # it is built
            size = slices[-1][1] if slices else 0
            with arithmetic():
                self.slots = {
                    slot: self.slots[slot] if slot in self.slots else np.full(size, start, dtype)
                    for slot, start in after.items()
                }

    def takes(self, named_layers: list[tuple[str, Layer]]) -> bool:
        """Return whether the optimizer belongs to the weights of these layers, or to none yet."""
        if self._built_for is None:
            return True
        weights = [(f"{path}/{key}", layer, array.size) for path, layer in named_layers
                   for key, array in layer.params.items()]
        names, places, _ = self._built_for
        owners = [layer for _, layer, _ in weights] if self._owners is None else [owner() for owner in self._owners]
        return (
            names == [name for name, _, _ in weights]
            and [stop - start for start, stop in places] == [size for _, _, size in weights]
            and all(mine is layer for mine, (_, layer, _) in zip(owners, weights))
        )

    def step(self, parameters: FlatParameters) -> None:
        """Update the trainable parts of `parameters.vector` by one step along `parameters.gradient`."""
        self.build(parameters)
        learning_rate, decay = self.next_rates()
        vector, gradient = parameters.vector, parameters.gradient
        limits = self.limits()
        if limits:
            if self._clipped is None:
                self._clipped = np.empty_like(vector)
            clip_gradient(parameters, self._clipped, **limits)
            gradient = self._clipped
        # The weights and the step count must change together, in a user's own loop too.
        with deferred_signals(), arithmetic():
            for start, stop in parameters.trainable_segments():
                slots = [self.slots[name][start:stop] if name in self.slots else vector[:0] for name in self.slot_names]
                self.update(vector[start:stop], gradient[start:stop], slots, learning_rate, decay)
            self._count_step()
            parameters.note_step()
        self._look_for_nan(parameters)

    def next_rates(self) -> tuple[float, float]:
        """Return the learning rate of the next step, and the fraction that weights lose before it."""
        learning_rate = self.current_learning_rate()
        return learning_rate, learning_rate * (self.weight_decay or 0.0)

    def limits(self) -> dict[str, float]:
        """Return the gradient limit by name, if one is set."""
        return {limit: value for limit in LIMITS if (value := getattr(self, limit)) is not None}

    def finish_step(self, parameters: FlatParameters) -> None:
        """Record that a plan has taken a step."""
        self._count_step()
        self._look_for_nan(parameters)

    def _count_step(self) -> None:
        vars(self)["iterations"] += 1  # not through __setattr__, which would check it

    def _look_for_nan(self, parameters: FlatParameters) -> None:
        epsilon = vars(self).get("epsilon")
        if self._warned_of_nan or not isinstance(epsilon, (int, float)) or epsilon >= VANISHING:
            return
        if np.isfinite(parameters.vector).all() or not np.isfinite(parameters.gradient).all():
            return
        self._warned_of_nan = True
        warnings.warn(
            f"{type(self).__name__}: a weight became NaN or infinite in step {self.iterations}, although the gradients "
            f"are finite. With epsilon={epsilon:g} nothing keeps the divisor above 0 where a gradient was "
            "always 0. Use an epsilon above 0; the default is 1e-7.",
            stacklevel=2,
        )

    # What files hold.

    def get_config(self) -> Config:
        """Return the arguments that recreate this optimizer, as plain values that JSON can hold."""
        rate = self._learning_rate
        return {
            "name": self.name,
            "learning_rate": schedules.serialize(rate) if isinstance(rate, schedules.LearningRateSchedule) else rate,
            "weight_decay": self.weight_decay,
            **{limit: getattr(self, limit) for limit in LIMITS},
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Make an optimizer from what `get_config` returned."""
        return cls(**config)

    def state(self) -> dict[str, Any]:
        """Return copies of what training resumes from: "iterations", each slot, and a fixed "learning_rate"."""
        state = {"iterations": self.iterations, **{name: slot.copy() for name, slot in self.slots.items()}}
        if not isinstance(self._learning_rate, schedules.LearningRateSchedule):
            state["learning_rate"] = self._learning_rate
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state()` returned, bit for bit; call `build` first.

        A saved learning rate replaces a fixed one; a schedule stays, and continues at the saved step.

        Raises:
            ValueError: the state belongs to another optimizer or to other weights.
        """
        owner = type(self).__name__
        slots = {key: np.asarray(state[key]) for key in state if key not in ("iterations", "learning_rate")}
        forms = {name: (slot.shape, slot.dtype) for name, slot in slots.items()}
        expected = {name: (slot.shape, slot.dtype) for name, slot in self.slots.items()}
        if forms != expected or "iterations" not in state:
            raise ValueError(
                f"{owner}: the state must hold iterations and {_forms(expected)}. "
                f"Received: {', '.join(state) or 'nothing'}, with {_forms(forms)}. "
                "Use the optimizer with which it was saved, built for the same weights."
            )
        iterations = integer(np.asarray(state["iterations"]).item(), "iterations", owner, minimum=0)
        if iterations >= 2**63:
            raise ValueError(f"{owner}: iterations must be less than 2**63. Received: iterations={iterations}.")
        learning_rate = self._learning_rate
        if "learning_rate" in state and not isinstance(learning_rate, schedules.LearningRateSchedule):
            learning_rate = number(state["learning_rate"], "learning_rate", owner, minimum=0)
        self.learning_rate = learning_rate
        self.iterations = iterations
        for name, slot in slots.items():
            self.slots[name][...] = slot

    def __getstate__(self) -> dict[str, Any]:
        # A copied or unpickled optimizer belongs to the first weights of the same names and shapes that it gets.
        return {**vars(self), "_parameters": None, "_owners": None}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} learning_rate={self._learning_rate}, iterations={self.iterations}>"


def _summary(layout: tuple[Any, ...]) -> str:
    names, slices, dtype = layout
    return f"{len(names)} weights with {slices[-1][1] if slices else 0} numbers of {dtype}"


def _forms(forms: dict[str, tuple[Shape, np.dtype[Any]]]) -> str:
    return ", ".join(f"{name} {shape} {dtype}" for name, (shape, dtype) in forms.items()) or "no slots"
