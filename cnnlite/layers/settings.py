"""The arguments of layers that are also attributes: checked whenever they are set, in `__init__` and later.

Compiled code computes addresses from these values without checking them again. So an invalid value is refused when it
is set, and so is any change to a setting that the weights of a built layer depend on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from cnnlite import config, regularizers
from cnnlite.support.arguments import one_of

if TYPE_CHECKING:
    from cnnlite.layers.base import Layer

T = TypeVar("T")
Check = Callable[[Any, str, str], T]  # takes the value, its name and its owner, as in arguments.py


class Setting(Generic[T]):
    """An attribute that holds what `check` returns for the value that it is set to.

    With `strides = Setting(pair)` in its class, `layer.strides = 2` is checked and converted as the argument is. There
    is no `__get__`, so that reading costs nothing: the value is in the layer's `__dict__`.

    Args:
        check: returns the value to keep, or raises.
        fixed: whether the weights depend on the setting, so that it can't change once the layer is built.
    """

    def __init__(self, check: Check[T], *, fixed: bool = False) -> None:
        self.check, self.fixed = check, fixed

    def __set_name__(self, owner: type[Layer], name: str) -> None:
        self.name = name

    if TYPE_CHECKING:

        def __get__(self, layer: Layer | None, owner: type[Layer] | None = None) -> T: ...

    def __set__(self, layer: Layer, value: Any) -> None:
        name, values = self.name, vars(layer)
        value = self.check(value, name, type(layer).__name__)
        if name not in values:  # in __init__, which checks them all together at its end
            values[name] = value
            return
        before = values[name]
        if self.fixed and layer.built and value != before:
            raise ValueError(
                f"{layer.name}: {name} can't change once the layer is built, as its weights were made for "
                f"{name}={before!r}. Received: {name}={value!r}. Make a new {type(layer).__name__}."
            )
        values[name] = value
        try:
            layer.check_settings()
        except BaseException:
            values[name] = before
            raise


class RegularizerSetting(Setting["regularizers.Regularizer | None"]):
    """The penalty on a weight, as a name or an object; it applies as soon as it is set and the weight exists."""

    def __init__(self, weight: str) -> None:
        super().__init__(made_by(regularizers.get))
        self.weight = weight

    def __set__(self, layer: Layer, value: Any) -> None:
        super().__set__(layer, value)
        if self.weight in layer._params:
            layer.regularizers.pop(self.weight, None)
            if vars(layer)[self.name] is not None:
                layer.regularizers[self.weight] = vars(layer)[self.name]


class DTypeSetting(Setting["np.dtype[Any]"]):
    """The dtype of a layer and of the layers inside it, which must match the weights, if there are any."""

    def __init__(self) -> None:
        super().__init__(float_dtype)

    def __set__(self, layer: Layer, value: Any) -> None:
        dtype = self.check(value, self.name, type(layer).__name__)
        # Not models, which take their dtype from their layers.
        inner_layers = [inner for inner in getattr(layer, "inner_layers", ()) if "dtype" in vars(inner)]
        for owner in (layer, *inner_layers):
            weights = [*vars(owner).get("_params", {}).values(), *vars(owner).get("_state", {}).values()]
            if any(array.dtype != dtype for array in weights):
                raise ValueError(
                    f"{owner.name}: dtype can't change once the layer is built, as its weights are "
                    f"{weights[0].dtype}. Received: dtype={dtype.name!r}. Make a new layer, and copy the weights to it "
                    "with set_weights."
                )
        vars(layer)[self.name] = dtype
        for inner in inner_layers:
            inner.dtype = dtype


def float_dtype(value: Any, name: str, owner: str) -> np.dtype[Any]:
    """Return float32 or float64, given as a string, a dtype or a class; None for `cnnlite.config.floatx()`."""
    value = config.floatx() if value is None else value
    value = getattr(value, "name", getattr(value, "__name__", value))
    return np.dtype(one_of(value, ("float32", "float64"), name, owner))


def image_layout(value: Any, name: str, owner: str) -> str:
    """Return "channels_last" or "channels_first"; None for `cnnlite.config.image_data_format()`."""
    value = config.image_data_format() if value is None else value
    return one_of(value, ("channels_last", "channels_first"), name, owner)


def optional(check: Check[T]) -> Check[T | None]:
    """Return a check that lets None pass."""
    return lambda value, name, owner: None if value is None else check(value, name, owner)


def made_by(get: Callable[[Any], T]) -> Check[T]:
    """Return a check that turns a name, a config or an object into an object with `get`."""
    return lambda value, name, owner: get(value)
