"""Where the first NaN or infinity of a training step comes from: the layer that made it out of finite numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnlite import fusion, regularizers
from cnnlite.layers.activation import leaving_out
from cnnlite.layers.overrides import class_keeps, keeps
from cnnlite.layers.parts import is_ours
from cnnlite.layers.pass_memory import separate_memory
from cnnlite.layers.residual import Residual
from cnnlite.layers.weights import only_reading
from cnnlite.support.printing import for_stdout
from cnnlite.types import Array, ArrayLike

if TYPE_CHECKING:
    from cnnlite.layers.base import Layer


@dataclass(frozen=True)
class NonFinite:
    """The first array with a NaN or an infinity in it; its `str` is a sentence.

    Attributes:
        kind: "input", "target", "weight", "output", "loss", "penalty" or "gradient".
        layer: the path of the layer ("block/conv2d"); None for an input, a target and the loss.
        name: the weight itself, or the one that the gradient or penalty belongs to ("kernel"); None if there is none.
        value: the first non-finite number: nan, inf or -inf.
        index: its index in the array.
        count: how many non-finite numbers the array has.
        size: how many numbers the array has.
    """

    kind: str
    layer: str | None
    name: str | None
    value: float
    index: tuple[int, ...]
    count: int
    size: int

    def __str__(self) -> str:
        weight = f"{self.layer}/{self.name}"
        gradient = f"the gradient of the weight {weight}" if self.name else f"the gradient that {self.layer} returned"
        what = {
            "input": "the input x",
            "target": "the targets y",
            "weight": f"the weight {weight}",
            "output": f"the output of {self.layer}",
            "loss": "the loss",
            "penalty": f"the penalty on {weight}",
            "gradient": gradient if self.layer else "the gradient of the loss with respect to the outputs",
        }[self.kind]
        if not self.index:
            return for_stdout(f"{what} is {self.value}")
        place = ", ".join(map(str, self.index))
        return for_stdout(f"{what} is {self.value} at [{place}], {self.count} of {self.size} not finite")


def find_nonfinite(
    model: Any, x: ArrayLike, y: ArrayLike | None = None, sample_weight: ArrayLike | None = None
) -> NonFinite | None:
    """Return the first NaN or infinity that a batch produces in a model, or None if there is none.

    The search follows the computation: up the layers, checking the weights of each before its output, to the loss,
    and back down with the gradients. So it reports where the trouble starts: everything before was finite.
    The model is left as it was, including its gradients, moving averages and random states.

    Args:
        model: a `Sequential`.
        x: a batch of samples.
        y: their targets. With targets, the search runs a training step, with the compiled loss and the gradients;
            without, it runs what `predict` does.
        sample_weight: the sample weights for the loss.

    Raises:
        ValueError: the model is not built or compiled, or x or y do not fit it.

    Example:

    >>> import numpy as np
    >>> import cnnlite
    >>> model = cnnlite.Sequential([
    ...     cnnlite.Input((2,)), cnnlite.layers.Dense(3, name="first"), cnnlite.layers.Dense(1, name="second")])
    >>> model.get_layer("second").bias = [np.nan]
    >>> print(cnnlite.utils.find_nonfinite(model, np.ones((4, 2))))
    the weight second/bias is nan at [0], 1 of 1 not finite
    """
    training = y is not None
    if training:
        model._require_loss("find_nonfinite")
    with np.errstate(all="ignore"):
        batch = model.prepare(x)
        for kind, array in (("input", batch), ("target", np.asarray(0 if y is None else y))):
            if array.dtype.kind == "f" and not is_finite(array):
                return _first(array, kind)
        with left_as_it_was(model), fusion.disabled():
            return _pass(model, batch, y, sample_weight, training)


def _pass(model: Any, x: Array, y: Any, sample_weight: Any, training: bool) -> NonFinite | None:
    loss: Any = None
    from_logits = False
    if training:
        loss, from_logits = model._fused_loss()
    return next(_look(model, x, y, sample_weight, training, loss, from_logits), None)


def _look(
    model: Any, x: Array, y: Any, sample_weight: Any, training: bool, loss: Any, from_logits: bool
) -> Iterator[NonFinite]:
    """Run the pass, and yield whatever is not finite as it turns up."""
    left_out = model.activation if from_logits else None
    x = yield from _up(model, "", x, training, left_out)
    if not training:
        return
    value, dy = loss.value_and_gradient(y, x, sample_weight)
    if not np.isfinite(value):
        yield _first(np.asarray(value), "loss")
    for path, layer in _leaves(model):
        for name, penalty in layer.regularizers.items() if layer.trainable else ():
            weight = (layer._params if regularizers.is_traceable(penalty) else layer.params)[name]
            arrays = np.asarray(penalty(weight)), penalty.gradient(weight)
            if not all(map(is_finite, arrays)):
                yield _first(arrays[0], "penalty", path, name)
    if not is_finite(dy):
        yield _first(dy, "gradient")
    yield from _down(model, "", dy, left_out, needs_dx=False)


def _up(layer: Any, path: str, x: Array, training: bool, left_out: Any) -> Generator[NonFinite, None, Array]:
    """Run a layer forward, checking every layer inside it; return its output."""
    parts = _parts(layer, path)
    if parts is not None and _is_residual(layer):
        outputs = []
        for name, branch in parts:
            outputs.append((yield from _up(branch, name, x, training, left_out)))
        x = outputs[0] + (outputs[1] if len(outputs) > 1 else x)
    elif parts is not None:
        for name, inner in parts:
            x = yield from _up(inner, name, x, training, left_out)
        return x
    else:
        # In training, a BatchNorm does not use its moving averages.
        arrays = layer._params if training and layer.trainable else {**layer._params, **layer._state}
        for name, array in arrays.items():
            if not is_finite(array):
                yield _first(array, "weight", path, name)
        with _as_in_a_step(layer, left_out):
            x = layer.forward(x, training=training)
    if not is_finite(x):
        yield _first(x, "output", path)
    return x


def _down(layer: Any, path: str, dy: Array, left_out: Any, needs_dx: bool) -> Generator[NonFinite, None, Array]:
    """Run a layer backward, as far down as there are weights to train; return its dx if needed."""
    parts = _parts(layer, path)
    if not needs_dx and not _learns(layer):
        return dy
    if parts is not None and _is_residual(layer):
        gradients = []
        for name, branch in parts:
            gradients.append((yield from _down(branch, name, dy, left_out, needs_dx)))
        if needs_dx:
            dy = gradients[0] + (gradients[1] if len(gradients) > 1 else dy)
    elif parts is not None:
        for i in range(len(parts) - 1, -1, -1):
            learns_below = any(_learns(inner) for _, inner in parts[:i])
            name, inner = parts[i]
            dy = yield from _down(inner, name, dy, left_out, needs_dx or learns_below)
        return dy
    else:
        with _as_in_a_step(layer, left_out):
            if needs_dx:
                dy = layer.backward(dy)
            else:
                layer.backward_weights(dy)
        for name, gradient in layer._grads.items() if layer.trainable else ():
            if not is_finite(gradient):
                yield _first(gradient, "gradient", path, name)
    if needs_dx and not is_finite(dy):
        yield _first(dy, "gradient", path)
    return dy


@contextlib.contextmanager
def _as_in_a_step(layer: Any, left_out: Any) -> Iterator[None]:
    """Run a layer as a training step does; reading a library layer's weights doesn't mark them as handed out."""
    with leaving_out(left_out), only_reading() if is_ours(layer) else contextlib.nullcontext():
        yield


def _learns(layer: Any) -> bool:
    return any(part.trainable and part._params for part in layer.walk())


def _leaves(layer: Any, path: str = "") -> list[tuple[str, Any]]:
    """Return [(path, layer), ...] of the innermost layers, in the order in which they run."""
    parts = _parts(layer, path)
    return [(path, layer)] if parts is None else [leaf for name, inner in parts for leaf in _leaves(inner, name)]


def _parts(layer: Any, path: str) -> list[tuple[str, Any]] | None:
    """Return [(path, layer), ...] of the layers that a model or a Residual runs; None for other layers."""
    if not path:  # the model itself
        return layer.named_inner_layers()
    runs_its_layers = hasattr(layer, "forward_logits") and class_keeps(type(layer), "forward")
    if not runs_its_layers and not _is_residual(layer):
        return None
    return [(f"{path}/{name}", inner) for name, inner in layer.named_inner_layers()]


def _is_residual(layer: Any) -> bool:
    return isinstance(layer, Residual) and keeps(layer, "forward", "backward")


def is_finite(array: Array) -> bool:
    """Return whether all numbers of an array are finite."""
    with np.errstate(all="ignore"):  # the sum may overflow although all are finite; only then check each
        return bool(np.isfinite(array.sum())) or bool(np.isfinite(array).all())


def _first(array: Array, kind: str, layer: str | None = None, name: str | None = None) -> NonFinite:
    bad = ~np.isfinite(array)
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), array.shape)) if array.ndim else ()
    return NonFinite(kind, layer, name, float(array[index]), index, int(bad.sum()), array.size)


# What a pass changes in a model besides its weights.


@contextlib.contextmanager
def left_as_it_was(model: Layer) -> Iterator[None]:
    """Restore what passes change: gradients, moving averages, random states, and what layers keep for backward."""
    kept = passing_state(model)
    gradients = [(array, array.copy()) for layer in model.walk() for array in layer._grads.values()]
    try:
        with separate_memory():
            yield
    finally:
        put_back(kept)
        for array, values in gradients:
            array[...] = values


def passing_state(model: Layer) -> list[Any]:
    """Return what forward passes change in training (moving averages and random states), for `put_back`."""
    return [
        (layer, {name: array.copy() for name, array in layer._state.items()},
         layer.random.state if hasattr(layer, "random") else None)
        for layer in model.walk() if layer._state or hasattr(layer, "random")
    ]


def put_back(kept: list[Any]) -> None:
    for layer, state, random_state in kept:
        for name, array in state.items():
            layer._state[name][...] = array
        if random_state is not None:
            layer.random.state = random_state
