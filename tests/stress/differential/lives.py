"""Leads the life of a network: what is done to it, and what it says at each step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cnnlite import Sequential, fusion, layers
from tests.stress.differential.nets import Net, make
from tests.stress.differential.twists import Patches, has

SAMPLES = 33
Observations = list[tuple[str, dict[str, Any]]]  # for each step what was done, and the arrays that came of it

# Attributes that a user may change after a layer is built, with values to change them to.
CHANGES: dict[str, list[Any]] = {
    "activation": ["relu", "tanh", None], "alpha": [0.7], "epsilon": [0.1], "max_value": [2.0, None],
    "momentum": [0.75], "negative_slope": [0.1], "offset": [np.array(0.5)], "padding": ["same", "valid"],
    "pool_size": [(1, 2), (3, 3)], "rate": [0.75, 0.0], "scale": [np.array(1.5)], "strides": [(1, 1), (2, 1)],
    "threshold": [0.25], "trainable": [False, True],
}
# Values that make no sense where they are set, or that the weights of a built layer don't fit.
SPOILS: dict[str, list[Any]] = {
    "axis": [0, 5], "depth_multiplier": [3, -1], "dilation_rate": [(-1, -1), (0, 1), 3], "filters": [1, 64, -2, "a"],
    "groups": [3, 8, 0], "kernel_size": [(9, 9), (0, 1), 2], "momentum": [2.0, "a"], "padding": ["full", None],
    "pool_size": [(0, 0), (-1, 2), "a"], "rate": [2.0, None], "strides": [(0, 0), (-1, -1), 0, (1,)],
    "units": [1, 99, 0],
}


class Life:
    """A network that is led through events.

    Args:
        net: what it is.
        events: what is done to it.
        follow: the weights at the beginning of each step of another life, to be taken over, so that one step is
            compared at a time; None to go on from one's own.
        judge: called with this life after each step that says something; it may compare. Called before with None.

    Attributes:
        observations: what each step came to.
        starts: the weights at the beginning of each step.
    """

    def __init__(self, net: Net, events: Sequence[Any], follow: list[Any] | None = None, judge: Any = None) -> None:
        self.model, self.net, self.judge = make(net), net, judge
        self.patches = Patches()
        self.observations: Observations = []
        self.starts: list[Any] = []
        generator = np.random.default_rng(net.seed + 1)
        self.x = generator.normal(size=(SAMPLES, *net.shape)).astype(net.dtype)
        self.y = self._targets(generator)
        try:
            for i, event in enumerate(events):
                if follow is not None:
                    self.model.set_weights(follow[i])
                self.starts.append(self.model.get_weights())
                getattr(self, f"_{event[0]}")(*event[1:])
        finally:
            self.patches.take_away()

    def _targets(self, generator: np.random.Generator) -> Any:
        shape = (SAMPLES, *(self.model.output_shape or ())[1:])
        if self.net.loss == "mse":
            return generator.normal(size=shape)
        if self.net.loss == "yes or no":
            return generator.integers(0, 2, shape)
        return generator.integers(0, shape[-1], shape[:-1])

    def _say(self, what: str, run: Callable[[], dict[str, Any]], *judged: Any) -> None:
        """Note what a step comes to, or that it is refused with a sentence."""
        expect = None if self.judge is None else self.judge.before(self)
        try:
            result = run()
        except (ValueError, TypeError) as error:
            _check_sentence(error)
            self.observations.append((f"{what}, refused", {}))
            return
        if expect is not None:
            expect(what, result, *judged)
        self.observations.append((what, result))

    # Events.

    def _call(self, n: int, times: int) -> None:
        for i in range(times):
            x = self.x[i * n % SAMPLES :][:n]
            self._say("call", lambda x=x: {"y": self.model(x)}, x)

    def _predict(self, n: int) -> None:
        self._say("predict", lambda: {"y": self.model.predict(self.x[:n], batch_size=7, verbose=0)}, self.x[:n])

    def _sizes(self, sizes: Sequence[int]) -> None:
        """Call with one number of samples after the other, none among them."""
        for n in sizes:
            x = self.x[:n]
            self._say("call", lambda x=x: {"y": self.model(x)}, x)

    def _by_hand(self, n: int, more: int) -> None:
        """Go up in training mode and come down, once or several times; in between others may be asked for."""
        x = self.x[:n]

        def run() -> dict[str, Any]:
            y = self.model.forward(x, training=True)
            dy = np.linspace(-1, 1, y.size).reshape(y.shape).astype(y.dtype)
            result = {"y": y.copy(), "dx": self.model.backward(dy)}
            gradients = self._gradients()
            for _ in range(more):
                self.model(self.x[:3])
                assert np.array_equal(self.model.backward(dy), result["dx"], equal_nan=True)
            self.model.backward_weights(dy)
            assert all(np.array_equal(array, gradients[name], equal_nan=True)
                       for name, array in self._gradients().items())
            assert np.array_equal(result["y"], y, equal_nan=True)
            return result | gradients

        self._say("by hand", run)

    def _gradients(self) -> dict[str, Any]:
        return {f"gradient of {path}/{name}": array.copy() for path, layer in self.model.named_layers()
                if layer.trainable for name, array in layer.grads.items()}

    def _weighted(self, n: int) -> None:
        weights = np.linspace(0, 2, n)
        self._say("weighted", lambda: {
            "loss": np.array(self.model.train_on_batch(self.x[:n], self.y[:n], sample_weight=weights))})

    def _otherwise(self, how: str, n: int) -> None:
        """Make a step in another mode, between those in this one."""
        x, y = self.x[:n], self.y[:n]
        if how == "apart":
            with fusion.disabled():
                self._say("train apart", lambda: {"loss": np.array(self.model.train_on_batch(x, y))})
            return
        self.model.run_eagerly = True
        try:
            self._say("train eagerly", lambda: {"loss": np.array(self.model.train_on_batch(x, y))})
        finally:
            self.model.run_eagerly = False

    def _inside(self, n: int) -> None:
        """Call the model inside of another one, then by itself."""
        outer = Sequential([self.model, layers.Rescaling(2.0, dtype=self.net.dtype)])
        outer.dtype = self.model.dtype
        x = self.x[:n]
        self._say("inside", lambda: {"y": outer(x), "alone": self.model(x)})

    def _evaluate(self, n: int) -> None:
        x, y = self.x[:n], self.y[:n]
        self._say("evaluate", lambda: {"loss": np.array(self.model.evaluate(x, y, batch_size=n, verbose=0))}, x, y)

    def _train(self, n: int) -> None:
        x, y = self.x[:n], self.y[:n]

        def run() -> dict[str, Any]:
            result = {"loss": np.array(self.model.train_on_batch(x, y))}
            for path, layer in self.model.named_layers():
                gradients = layer.grads if layer.trainable else {}
                for prefix, arrays in (("", layer.params), ("", layer.state), ("gradient of ", gradients)):
                    result |= {f"{prefix}{path}/{name}": array.copy() for name, array in arrays.items()}
            return result

        self._say("train", run, x, y)

    def _edit(self, which: int, how: str) -> None:
        """Change a weight behind the model's back, or before its eyes."""
        owners = [layer for _, layer in self.model.named_layers() if layer.params]
        if not owners:
            return
        layer = owners[which % len(owners)]
        name = list(layer.params)[which // 7 % len(layer.params)]
        array = layer.params[name]
        if how == "in place":
            array *= array.dtype.type(0.5)
        elif how == "a view":
            array.reshape(-1)[which % array.size] += array.dtype.type(0.25)
        elif how == "assign":
            layer.params[name] = array + array.dtype.type(0.125)
        elif how == "update":
            layer.params.update({name: array * array.dtype.type(-1)})
        else:
            self.model.set_weights([weight * weight.dtype.type(0.75) for weight in self.model.get_weights()])

    def _change(self, which: int, value: int) -> None:
        """Change an attribute, if the model can go on with the new value; a refusal changes nothing."""
        choices = [(layer, name) for layer in self._all_layers() for name in CHANGES if hasattr(layer, name)]
        choices = [(layer, name) for layer, name in choices if not (
            isinstance(layer, (layers.BatchNorm, layers.ZeroPadding2D, layers.Activation, Sequential)) and name in (
                "scale", "padding", "activation"))]
        if choices:
            layer, name = choices[which % len(choices)]
            self._set(layer, name, CHANGES[name][value % len(CHANGES[name])], keeps=True)

    def _spoil(self, which: int, value: int) -> None:
        """Set an attribute to what makes no sense, look what the model says, and set it back."""
        choices = [(layer, name) for layer in self._all_layers() for name in SPOILS if hasattr(layer, name)]
        if choices:
            layer, name = choices[which % len(choices)]
            self._set(layer, name, SPOILS[name][value % len(SPOILS[name])], keeps=False)

    def _set(self, layer: Any, name: str, value: Any, keeps: bool) -> None:
        before = getattr(layer, name)
        outcome = "kept"
        try:
            setattr(layer, name, value)
            shape = self.model(self.x[:2]).shape
            self.model.train_on_batch(self.x[:2], self.y[:2])
            assert shape == (2, *(self.model.output_shape or ())[1:])
        except (ValueError, TypeError, AttributeError) as error:
            _check_sentence(error)
            outcome = "refused"
        if outcome == "refused" or not keeps:
            setattr(layer, name, before)
        self.observations.append((f"{name} = {value!r}, {outcome}", {}))

    def _patch(self, which: int, what: str, where: str) -> None:
        choices = [layer for layer in self._all_layers() if has(type(layer), what)]
        if not choices:
            return
        layer = choices[which % len(choices)]
        if where == "object":
            self.patches.put_on_object(layer, what)
            return
        kind = next(kind for kind in type(layer).__mro__ if not hasattr(kind, "twist"))
        if kind.__name__ != "Sequential":  # the model itself is one
            self.patches.put_on_class(kind, what)

    def _unpatch(self) -> None:
        self.patches.take_away()

    def _copy(self) -> None:
        self.patches.take_away()  # what was put on an object calls that object, and a copy would share it
        self.model = copy.deepcopy(self.model)

    def _all_layers(self) -> list[Any]:
        """Return all layers below the model, those inside of others included."""
        return [layer for layer in self.model.walk() if layer is not self.model]


def _check_sentence(error: Exception) -> None:
    assert len(str(error).split()) > 3, repr(error)


def lead(net: Net, events: Sequence[Any], follow: list[Any] | None = None) -> Observations:
    """Return what a life comes to."""
    return Life(net, events, follow).observations
