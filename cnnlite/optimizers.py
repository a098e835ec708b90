"""How gradients become steps. Names, arguments, defaults and formulas are those of Keras.

A model holds all its parameters in one flat vector, so an optimizer is a few vectors of the same length
(its slots, such as Adam's averages) and one loop over them, which is in `cnnlite/kernels/optimizers.py`.

>>> import cnnlite
>>> optimizer = cnnlite.optimizers.Adam(learning_rate=1e-3, clipnorm=1.0)
>>> schedule = cnnlite.optimizers.schedules.CosineDecay(0.1, decay_steps=1000)
>>> optimizer = cnnlite.optimizers.SGD(schedule, momentum=0.9, nesterov=True)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnlite import kernels, schedules
from cnnlite.arguments import boolean, number
from cnnlite.clipping import clip_gradient
from cnnlite.identifiers import from_identifier
from cnnlite.types import Array, Config, Shape

if TYPE_CHECKING:
    from typing_extensions import Self

    from cnnlite.parameters import FlatParameters
    from cnnlite.schedules import LearningRateSchedule


class Optimizer:
    """The base of all optimizers, with the arguments that they share.

    One of your own sets `slot_names` and defines `initial_slots()` where it keeps something from step to step,
    and `update(p, g, slots, learning_rate, decay)`.

    Args:
        learning_rate: a number of at least 0, or a `LearningRateSchedule`. It may be assigned to at any time.
        weight_decay: before each step, weights lose the share learning_rate * weight_decay of themselves,
            apart from the gradient and its averages (Loshchilov and Hutter, 2019). None for none. Unlike an L2
            regularizer it takes no part in the loss.
        clipnorm: the largest norm that the gradient of one weight (a kernel, a bias) may have.
        clipvalue: the largest size that one number of the gradient may have.
        global_clipnorm: the largest norm that the whole gradient may have. Only one of the three can be set.
        name: what summaries and files call it.

    Attributes:
        iterations: how many steps were made.
        slots: the vectors kept from step to step, by name.
    """

    slot_names: tuple[str, ...] = ()

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        name: str | None = None,
    ) -> None:
        owner = type(self).__name__
        self.name = owner.lower() if name is None else name
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        if weight_decay is not None:
            self.weight_decay = number(weight_decay, "weight_decay", owner, minimum=0)
        limits = {"clipnorm": clipnorm, "clipvalue": clipvalue, "global_clipnorm": global_clipnorm}
        self._clipping = {
            key: number(limit, key, owner, above=0) for key, limit in limits.items() if limit is not None
        }
        if len(self._clipping) > 1:
            raise ValueError(
                f"{owner}: only one of clipnorm, clipvalue and global_clipnorm can be set. "
                f"Received: {', '.join(f'{key}={limit}' for key, limit in self._clipping.items())}."
            )
        self.iterations = 0
        self.slots: dict[str, np.ndarray] = {}
        self._built_for: tuple[Any, ...] | None = None
        self._clipped: Array | None = None

    # What an optimizer defines.

    def initial_slots(self) -> dict[str, float]:
        """Return those of `slot_names` that are in use, each with the number that its vector starts from."""
        return {}

    def update(self, p: Array, g: Array, slots: list[Array], learning_rate: float, decay: float) -> None:
        """Change a stretch of the parameters in place, and of the slots: a list in the order of `slot_names`.

        A slot that is not in use has length 0. `decay` is the share that p loses before the step.
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
        """Return the learning rate of the next step, a float."""
        if isinstance(self._learning_rate, schedules.LearningRateSchedule):
            return float(self._learning_rate(self.iterations))
        return self._learning_rate

    def build(self, parameters: FlatParameters) -> None:
        """Create the slots for the parameters of a model; does nothing if that has happened.

        Raises:
            ValueError: it was built for others.
        """
        layout = (list(parameters.names), [(place.start, place.stop) for place in parameters.slices],
                  parameters.vector.dtype)
        if self._built_for == layout:
            return
        if self._built_for is not None:
            raise ValueError(
                f"{type(self).__name__}: an optimizer belongs to the weights it was first used with, "
                f"{_summary(self._built_for)}. Received: {_summary(layout)}. Compile the model with a new optimizer."
            )
        vector = parameters.vector
        self.slots = {name: np.full_like(vector, value) for name, value in self.initial_slots().items()}
        self._clipped = np.empty_like(vector) if self._clipping else None
        self._built_for = layout

    def step(self, parameters: FlatParameters) -> None:
        """Change `parameters.vector` by one step along `parameters.gradient`, where it is trainable."""
        self.build(parameters)
        learning_rate = self.current_learning_rate()
        decay = learning_rate * (self.weight_decay or 0.0)
        vector, gradient = parameters.vector, parameters.gradient
        if self._clipped is not None:
            clip_gradient(parameters, self._clipped, **self._clipping)
            gradient = self._clipped
        for start, stop in parameters.trainable_segments():
            slots = [self.slots[name][start:stop] if name in self.slots else vector[:0] for name in self.slot_names]
            self.update(vector[start:stop], gradient[start:stop], slots, learning_rate, decay)
        self.iterations += 1

    # What files hold.

    def get_config(self) -> Config:
        """Return the arguments that make this optimizer again, as plain values that JSON can hold."""
        rate = self._learning_rate
        return {
            "name": self.name,
            "learning_rate": schedules.serialize(rate) if isinstance(rate, schedules.LearningRateSchedule) else rate,
            "weight_decay": self.weight_decay,
            **{key: self._clipping.get(key) for key in ("clipnorm", "clipvalue", "global_clipnorm")},
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Make an optimizer from what `get_config` returned."""
        return cls(**config)

    def state(self) -> dict[str, Any]:
        """Return copies of all that training goes on from: "iterations", each slot, and a fixed "learning_rate"."""
        state = {"iterations": self.iterations, **{name: slot.copy() for name, slot in self.slots.items()}}
        if not isinstance(self._learning_rate, schedules.LearningRateSchedule):
            state["learning_rate"] = self._learning_rate
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state()` returned, bit for bit; call `build` first.

        A saved learning rate takes the place of a fixed one; a schedule stays, at the saved step.

        Raises:
            ValueError: the state is of another optimizer or of other weights.
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
        learning_rate = self._learning_rate
        if "learning_rate" in state and not isinstance(learning_rate, schedules.LearningRateSchedule):
            learning_rate = float(state["learning_rate"])
        iterations = int(state["iterations"])
        self.learning_rate = learning_rate
        self.iterations = iterations
        for name, slot in slots.items():
            self.slots[name][...] = slot

    def __repr__(self) -> str:
        return f"<{type(self).__name__} learning_rate={self._learning_rate}, iterations={self.iterations}>"


class SGD(Optimizer):
    """Gradient descent, with momentum if it is above 0.

        p -= learning_rate * g                                        without momentum
        m = momentum * m - learning_rate * g;  p += m                 with it
        m as above;  p += momentum * m - learning_rate * g            with Nesterov's, which looks one step ahead

    Args:
        learning_rate: default 0.01.
        momentum: from 0 to below 1, by default 0.
        nesterov: default False; without momentum it changes nothing.
        weight_decay, clipnorm, clipvalue, global_clipnorm, name: see `Optimizer`.
    """

    slot_names = ("momentum",)

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
        self.momentum = number(momentum, "momentum", type(self).__name__, minimum=0, below=1)
        self.nesterov = boolean(nesterov, "nesterov", type(self).__name__)

    def initial_slots(self) -> dict[str, float]:
        return {"momentum": 0.0} if self.momentum > 0 else {}

    def update(self, p: Array, g: Array, slots: list[Array], learning_rate: float, decay: float) -> None:
        (momentum,) = slots
        kernels.sgd_step(p, g, momentum, learning_rate, self.momentum, self.nesterov, decay)

    def get_config(self) -> Config:
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}


class RMSprop(Optimizer):
    """Each weight's gradient divided by the root of a running average of its square (Tieleman and Hinton, 2012).

        v = rho * v + (1 - rho) * g²
        p -= learning_rate * g / sqrt(v + epsilon)

    Args:
        learning_rate: default 0.001.
        rho: how much of the average stays at each step, from 0 to below 1; default 0.9.
        momentum: from 0 to below 1, by default 0; above 0 the steps are added up as m = momentum * m + step.
        epsilon: keeps the divisor from 0; default 1e-7. It stands under the root (PyTorch adds it after the root).
        centered: True divides by the deviation instead: v less the square of the average gradient.
        weight_decay, clipnorm, clipvalue, global_clipnorm, name: see `Optimizer`.
    """

    slot_names = ("velocity", "average_gradient", "momentum")

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
        owner = type(self).__name__
        self.rho = number(rho, "rho", owner, minimum=0, below=1)
        self.momentum = number(momentum, "momentum", owner, minimum=0, below=1)
        self.epsilon = number(epsilon, "epsilon", owner, minimum=0)
        self.centered = boolean(centered, "centered", owner)

    def initial_slots(self) -> dict[str, float]:
        in_use = {"velocity": True, "average_gradient": self.centered, "momentum": self.momentum > 0}
        return {name: 0.0 for name in self.slot_names if in_use[name]}

    def update(self, p: Array, g: Array, slots: list[Array], learning_rate: float, decay: float) -> None:
        velocity, average_gradient, momentum = slots
        kernels.rmsprop_step(p, g, velocity, average_gradient, momentum, learning_rate, self.rho, self.momentum,
                             self.epsilon, decay)

    def get_config(self) -> Config:
        return {**super().get_config(), "rho": self.rho, "momentum": self.momentum, "epsilon": self.epsilon,
                "centered": self.centered}


class Adam(Optimizer):
    """Running averages of the gradient and of its square, both corrected for their start from 0.

        m += (1 - beta_1) * (g - m)
        v += (1 - beta_2) * (g² - v)
        p -= learning_rate * sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (sqrt(v) + epsilon)

    at step t = 1, 2, ... This is the form at the end of section 2 of Kingma and Ba (2015), so epsilon is not
    quite that of PyTorch: ours equals PyTorch's epsilon times sqrt(1 - beta_2**t).

    Args:
        learning_rate: default 0.001.
        beta_1, beta_2: how much of each average stays at each step, from 0 to below 1; defaults 0.9 and 0.999.
        epsilon: keeps the divisor from 0; default 1e-7.
        amsgrad: True divides by the largest v so far (Reddi et al., 2018).
        weight_decay, clipnorm, clipvalue, global_clipnorm, name: see `Optimizer`.
    """

    slot_names = ("momentum", "velocity", "velocity_hat")

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
        owner = type(self).__name__
        self.beta_1 = number(beta_1, "beta_1", owner, minimum=0, below=1)
        self.beta_2 = number(beta_2, "beta_2", owner, minimum=0, below=1)
        self.epsilon = number(epsilon, "epsilon", owner, minimum=0)
        self.amsgrad = boolean(amsgrad, "amsgrad", owner)

    def initial_slots(self) -> dict[str, float]:
        return {name: 0.0 for name in self.slot_names if self.amsgrad or name != "velocity_hat"}

    def update(self, p: Array, g: Array, slots: list[Array], learning_rate: float, decay: float) -> None:
        t = self.iterations + 1
        alpha = learning_rate * math.sqrt(1 - self.beta_2**t) / (1 - self.beta_1**t)
        momentum, velocity, velocity_hat = slots
        kernels.adam_step(p, g, momentum, velocity, velocity_hat, alpha, self.beta_1, self.beta_2, self.epsilon, decay)

    def get_config(self) -> Config:
        return {**super().get_config(), "beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon,
                "amsgrad": self.amsgrad}


class AdamW(Adam):
    """Adam with a weight decay, by default 0.004 (Loshchilov and Hutter, 2019)."""

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
        weight_decay = number(weight_decay, "weight_decay", type(self).__name__, minimum=0)
        super().__init__(learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay, clipnorm, clipvalue,
                         global_clipnorm, name=name)


class Adagrad(Optimizer):
    """Each weight's gradient divided by the root of the sum of all its squares so far (Duchi et al., 2011).

        s += g²
        p -= learning_rate * g / sqrt(s + epsilon)

    Args:
        learning_rate: default 0.001. The paper's figures correspond to 1.0.
        initial_accumulator_value: what s starts from, at least 0; default 0.1.
        epsilon: keeps the divisor from 0; default 1e-7. It stands under the root (PyTorch adds it after the root).
        weight_decay, clipnorm, clipvalue, global_clipnorm, name: see `Optimizer`.
    """

    slot_names = ("accumulator",)

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
        owner = type(self).__name__
        self.initial_accumulator_value = number(
            initial_accumulator_value, "initial_accumulator_value", owner, minimum=0
        )
        self.epsilon = number(epsilon, "epsilon", owner, minimum=0)

    def initial_slots(self) -> dict[str, float]:
        return {"accumulator": self.initial_accumulator_value}

    def update(self, p: Array, g: Array, slots: list[Array], learning_rate: float, decay: float) -> None:
        (accumulator,) = slots
        kernels.adagrad_step(p, g, accumulator, learning_rate, self.epsilon, decay)

    def get_config(self) -> Config:
        return {**super().get_config(), "initial_accumulator_value": self.initial_accumulator_value,
                "epsilon": self.epsilon}


AdaGrad = Adagrad

OPTIMIZERS = {"sgd": SGD, "rmsprop": RMSprop, "adam": Adam, "adamw": AdamW, "adagrad": Adagrad}


def get(identifier: Any) -> Optimizer:
    """Return the optimizer that a name ("adam"), a config or an optimizer stands for."""
    optimizer = from_identifier(identifier, OPTIMIZERS, Optimizer, "optimizer")
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be a name or an Optimizer. Received: {identifier!r}.")
    return optimizer


def serialize(optimizer: Optimizer) -> Config:
    """Return {"class_name", "config"} for an optimizer."""
    return {"class_name": type(optimizer).__name__, "config": optimizer.get_config()}


def _summary(layout: tuple[Any, ...]) -> str:
    names, slices, dtype = layout
    return f"{len(names)} weights with {slices[-1][1] if slices else 0} numbers of {dtype}"


def _forms(forms: dict[str, tuple[Shape, np.dtype[Any]]]) -> str:
    return ", ".join(f"{name} {shape} {dtype}" for name, (shape, dtype) in forms.items()) or "no slots"
