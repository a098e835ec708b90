"""How users make a layer compute otherwise: a subclass, a method put on an object, one put on a class.

Four changes, each easy to say in PyTorch too:

    forward             the output is doubled, and so is the gradient that goes back
    function            an activation f(x) is f(3 x), with its gradient
    prepare             the input is doubled, of which backward knows nothing
    _weight_gradients   the gradients of the layer's own weights are doubled
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cnnlite.layers import ActivationLayer

INNER = 3  # an activation f(x) becomes f(INNER x)


def twisted(kind: type, twist: str) -> type:
    """Return a subclass of a layer that computes otherwise; the class itself where it has no such method."""
    if not has(kind, twist):
        return kind

    def of_the_class_below(name: str) -> Any:
        return lambda self, *arguments: getattr(super(Twisted, self), name)(*arguments)

    Twisted = type(f"Twisted{kind.__name__}", (kind,), {})
    for name, method in _methods(twist, of_the_class_below).items():
        setattr(Twisted, name, method)
    Twisted.twist = twist  # type: ignore[attr-defined]
    return Twisted


def has(kind: type, what: str) -> bool:
    """Return whether a class of layers has what one of the changes is about."""
    return issubclass(kind, ActivationLayer) if what == "function" else hasattr(kind, what)


def _times(array: Any, factor: int) -> Any:
    array = np.asarray(array)
    with np.errstate(over="ignore"):  # of networks whose numbers grow to infinity, in every way of computing them
        return array * array.dtype.type(factor)


class Patches:
    """The methods that were put on objects and classes, to be taken away again.

    Each calls what its class has at that time, so that those of an object and of its class add up.
    """

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []
        self.objects: set[tuple[int, str]] = set()
        self.classes: set[tuple[type, str]] = set()
        self._own: set[tuple[type, str]] = set()  # of `classes`, where the method in question was not inherited
        self._kept: list[Any] = []  # so that no other object gets the id of one in `objects`

    def put_on_object(self, layer: Any, what: str) -> None:
        if (id(layer), what) in self.objects:
            return
        self._kept.append(layer)
        self.objects.add((id(layer), what))
        methods = _methods(what, lambda name: lambda self, *arguments: getattr(type(self), name)(self, *arguments))
        for name, method in methods.items():
            setattr(layer, name, method.__get__(layer))
            self._undo.append(lambda name=name: delattr(layer, name))

    def put_on_class(self, kind: type, what: str) -> None:
        if (kind, what) in self.classes:
            return
        self.classes.add((kind, what))
        if what in vars(kind):
            self._own.add((kind, what))

        def present(name: str) -> Any:
            if name in vars(kind):
                return vars(kind)[name]
            return lambda self, *arguments: getattr(super(kind, self), name)(*arguments)

        for name, method in _methods(what, present).items():
            self._undo.append(_put(kind, name, method))

    def take_away(self) -> None:
        while self._undo:
            self._undo.pop()()
        self.objects.clear()
        self.classes.clear()
        self._own.clear()

    def doublings(self, layer: Any, what: str) -> int:
        """Return how many of the patches and subclasses that do `what` a layer goes through."""
        if not has(type(layer), what):
            return 0
        count = int((id(layer), what) in self.objects)
        for kind in type(layer).__mro__:
            if vars(kind).get("twist") == what:
                count += 1
            elif (kind, what) in self.classes:
                count += 1
                if (kind, what) in self._own:
                    break
            elif what in vars(kind):
                break
        return count



def _methods(what: str, present: Callable[[str], Any]) -> dict[str, Any]:
    """Return the methods that make one of the changes; `present(name)` is what a layer does without it."""
    if what == "forward":
        forward, backward = present("forward"), present("backward")

        def doubled(self: Any, x: Any, training: bool = False) -> Any:
            return _times(forward(self, x, training), 2)

        def doubled_backward(self: Any, dy: Any) -> Any:
            return backward(self, _times(dy, 2))

        def backward_weights(self: Any, dy: Any) -> None:
            self.backward(dy)

        return {"forward": doubled, "backward": doubled_backward, "backward_weights": backward_weights}
    if what == "function":
        function, gradient = present("function"), present("gradient")

        def inner(self: Any, x: Any, out: Any) -> Any:
            return function(self, _times(x, INNER), out)

        def inner_gradient(self: Any, dy: Any, x: Any, y: Any, out: Any) -> Any:
            return _times(gradient(self, dy, _times(x, INNER), y, out), INNER)

        return {"function": inner, "gradient": inner_gradient}
    if what == "_weight_gradients":
        weight_gradients = present("_weight_gradients")

        def doubled_gradients(self: Any, *arguments: Any) -> Any:
            dz = weight_gradients(self, *arguments)
            for gradient in self.grads.values() if self.trainable else ():
                gradient *= 2
            return dz

        return {"_weight_gradients": doubled_gradients}
    prepare = present("prepare")

    def doubled_input(self: Any, x: Any) -> Any:
        return _times(prepare(self, x), 2)

    return {"prepare": doubled_input}


def _put(kind: type, name: str, function: Any) -> Callable[[], None]:
    """Set a method of a class, and return what sets it back."""
    if name in vars(kind):
        before = vars(kind)[name]
        setattr(kind, name, function)
        return lambda: setattr(kind, name, before)
    setattr(kind, name, function)
    return lambda: delattr(kind, name)
