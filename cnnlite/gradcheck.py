"""Check hand-written gradients against finite differences.

For a scalar L = sum(dy * y), with random dy, backward must return dL/dx. The difference quotient needs
forward alone. The one used here has four points,

    dL/dx ≈ (8 (L(x+h) - L(x-h)) - (L(x+2h) - L(x-2h))) / 12h,

because its error falls as h⁴, while that of (L(x+h) - L(x-h)) / 2h falls as h². Even a wide step, h = 1e-3, is
then accurate to about 1e-12, and the rounding error, which grows as h shrinks, stays at 1e-13; with two points,
no h gets below about 1e-10. A tolerance of 1e-6 thus leaves room for steep functions and none for a mistake.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnlite import random
from cnnlite.support.arguments import boolean, float_array, integer, number
from cnnlite.support.printing import for_stdout
from cnnlite.types import ArrayLike

OWNER = "check_gradients"
SHRINK = (1.0, 0.1, 0.01, 0.001)  # the steps tried, as fractions of epsilon


@dataclass
class GradientRow:
    """The result for one array: the input, or a parameter.

    `verdict` is "ok"; "wrong"; "missing" if backward did not write the gradient; "shape" if the gradient's shape
    is not its array's; or "kink" if every element that disagrees sits at a kink of the function, where there is
    no derivative to compare with. `checked` is the number of elements that were compared.
    """

    name: str
    shape: tuple[int, ...]
    checked: int
    absolute_error: float
    relative_error: float
    verdict: str


class GradientReport:
    """The result of `check_gradients`: `print` it for a table.

    Attributes:
        rows: a `GradientRow` for the input and for each parameter.
        ok: whether the verdict of every row is "ok".
        max_error: the largest relative error of all rows; infinite if a gradient is missing or not finite.
        notes: sentences on what was not checked, and on what to do.
    """

    def __init__(self, title: str, rows: list[GradientRow], notes: list[str]) -> None:
        self.title, self.rows, self.notes = title, rows, notes

    @property
    def ok(self) -> bool:
        return all(row.verdict == "ok" for row in self.rows)

    @property
    def max_error(self) -> float:
        return max(row.relative_error for row in self.rows)

    def __str__(self) -> str:
        cells: list[tuple[str, ...]] = [("name", "shape", "checked", "absolute error", "relative error", "verdict")]
        for row in self.rows:
            size = int(np.prod(row.shape))
            checked = f"{row.checked} of {size}" if row.checked < size else "all"
            errors = (f"{error:.1e}" for error in (row.absolute_error, row.relative_error))
            cells.append((for_stdout(row.name), str(row.shape), checked, *errors, row.verdict))
        widths = [max(map(len, column)) for column in zip(*cells)]
        lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in cells]
        lines.insert(1, "-" * max(map(len, lines)))
        return "\n".join([for_stdout(self.title), *lines, *map(for_stdout, self.notes)])

    __repr__ = __str__


def check_gradients(
    target: Any,
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    sample_weight: ArrayLike | None = None,
    training: bool = True,
    epsilon: float = 1e-3,
    tolerance: float = 1e-6,
    seed: int = 0,
    max_elements: int | None = None,
) -> GradientReport:
    """Compare the gradients of a layer, a model or a loss with finite differences, in float64.

    The check works on a copy of `target`, whose own weights, gradients and random state are left alone. If a
    layer is not built yet, the copy is built, with weights from `seed`. Random layers (Dropout) draw the same
    mask in every pass.

    Args:
        target: what to check.
            A layer, or anything with `forward(x, training)`, `backward(dy)` and the dicts `params` and `grads`:
            the gradients of the input and every trainable parameter, for a random dy. Layers inside it
            are found through `inner_layers`.
            A model: the same; with `y`, the gradients of a compiled model's whole loss, regularization included.
            A loss: the gradient with respect to its predictions; x is then `y_pred` and y is `y_true`.
        x: the input. Spread its values, so that none lies at a kink (0 for a ReLU, a tie for a maximum).
        y: the labels, for a loss or a compiled model.
        sample_weight: the sample weights, if there is a loss.
        training: the mode of the forward passes that backward is compared with. False is for layers that are frozen or
            do the same in both modes: it checks backward against the inference pass.
        epsilon: the step of the differences (default 1e-3). Where backward disagrees, steps down to a
            thousandth of it are tried, since a wide step may reach across a nearby kink.
        tolerance: the relative error up to which a gradient counts as right (default 1e-6). The relative error
            of an array is max|a - n| / max(max|a|, max|n|, floor), where a is the gradient from backward, n
            the difference quotient, and floor is 1e6 times the rounding error of n, for gradients that are zero.
        seed: for dy, for the weights of unbuilt layers, and for the choice of elements.
        max_elements: compare at most this many elements of each array, drawn at random; all by default.

    Returns:
        A `GradientReport`.

    Raises:
        TypeError: target is none of the above.
        ValueError: x is empty or not finite, y is missing, or forward doesn't stay in float64.

    Example:

    >>> import numpy as np
    >>> import cnnlite
    >>> class Cube(cnnlite.layers.Layer):
    ...     '''y = x³, so dx = 3 x² dy.'''
    ...     def forward(self, x, training=False):
    ...         if training:
    ...             self.remember(x)
    ...         return x**3
    ...     def backward(self, dy):
    ...         (x,) = self.recall()
    ...         return 2 * x**2 * dy
    >>> report = cnnlite.check_gradients(Cube(), np.array([[1.0, 2.0]]))
    >>> report.ok
    False
    >>> round(report.max_error, 6)
    0.333333
    """
    x = _checked_input(x)
    boolean(training, "training", OWNER)
    number(epsilon, "epsilon", OWNER, above=0)
    number(tolerance, "tolerance", OWNER, above=0)
    integer(seed, "seed", OWNER, minimum=0)
    if max_elements is not None:
        integer(max_elements, "max_elements", OWNER)
    if isinstance(target, type) or not (hasattr(target, "backward") and hasattr(target, "forward")):
        raise TypeError(
            f"{OWNER}: the target must be a layer, a model or a loss, with forward and backward. "
            f"Received: {target!r}."
        )
    # A separate stream: users draw x from default_rng(0) too, and if dy equals x, a kernel gradient x.T @ dy that
    # is transposed by mistake passes.
    rng = np.random.default_rng([seed, 0xD1FF])
    library_state = random._library.state
    try:
        random.set_random_seed(seed)
        with np.errstate(all="ignore"):  # a step may leave the domain of a logarithm; a smaller one won't
            # The copy leaves out a training loop's buffers, which every forward pass would overwrite.
            target = copy.deepcopy(target)
            problem: _LayerProblem | _LossProblem
            if hasattr(target, "params"):
                problem = _LayerProblem(target, x, y, sample_weight, training, rng)
            else:
                problem = _LossProblem(target, x, y, sample_weight)
            rows = _compare(problem, epsilon, tolerance, rng, max_elements)
    finally:
        random._library.state = library_state
    notes = problem.notes + [_ADVICE[verdict] for verdict in _ADVICE if any(row.verdict == verdict for row in rows)]
    name = getattr(target, "name", None) or type(target).__name__
    return GradientReport(f"Gradients of {name} against finite differences with step {epsilon:g}", rows, notes)


_ADVICE = {
    "kink": "kink: the function has no derivative at x. Spread the inputs so that no value is 0 before a "
            "ReLU and no two are equal before a maximum, for example with random normal numbers.",
    "missing": "missing: backward has not assigned this gradient. Write self.grads[name] = ..., which replaces the "
               "old value; don't add to it.",
    "shape": "shape: backward returned a gradient that doesn't have the shape of its array.",
}


def _checked_input(x):
    x = np.array(float_array(x, np.float64, "x", OWNER))
    if x.size == 0:
        raise ValueError(f"{OWNER}: x must have at least one element. Received: shape={x.shape}.")
    if not np.isfinite(x).all():
        raise ValueError(f"{OWNER}: x must be finite. Received: x with NaN or infinity.")
    return x


class _LossProblem:
    """L = loss(y_true, x). A problem has `arrays` to perturb, `evaluate`, the factors `dy`, and `gradients`."""

    def __init__(self, loss, x, y, sample_weight):
        if y is None:
            raise ValueError(f"{OWNER}: a loss needs labels. Received: y=None. Pass predictions as x and labels as y.")
        if getattr(loss, "dtype", None) is not None:
            loss.dtype = "float64"
        self.loss, self.y, self.sample_weight = loss, y, sample_weight
        self.arrays = {"y_pred": x}
        self.dy = np.ones(())
        self.notes: list[str] = []

    def evaluate(self):
        return np.float64(self.loss(self.y, self.arrays["y_pred"].copy(), sample_weight=self.sample_weight))

    def gradients(self):
        return {"y_pred": self.loss.backward(self.y, self.arrays["y_pred"].copy(), sample_weight=self.sample_weight)}


class _LayerProblem:
    """L = sum(dy * layer(x)) with a random dy, or a model's whole loss where there are labels."""

    def __init__(self, layer, x, y, sample_weight, training, rng):
        self.layer, self.training, self.y, self.sample_weight = layer, training, y, sample_weight
        self.loss = getattr(layer, "loss", None) if y is not None else None
        if y is not None and not hasattr(self.loss, "backward"):
            raise ValueError(f"{OWNER}: y needs a compiled loss. Received: a target without one. Compile the model.")
        self.parts = list(layer.walk()) if hasattr(layer, "walk") else [layer]
        self._prepare_parts()
        # This pass builds what is not built yet; that must then become float64 too.
        (layer if callable(layer) else layer.forward)(x.copy(), training=training)
        self.parts = list(layer.walk()) if hasattr(layer, "walk") else [layer]
        self._prepare_parts()
        self.arrays = {"x": x}
        self.owners = {}
        frozen = []
        for path, part in layer.named_layers() if hasattr(layer, "named_layers") else [("", layer)]:
            for key, array in part.params.items():
                name = key if part is layer else f"{path}/{key}"
                if getattr(part, "trainable", True):
                    self.arrays[name], self.owners[name] = array, (part, key)
                else:
                    frozen.append(name)
        self.notes = [f"Frozen, and so not checked: {', '.join(frozen)}."] if frozen else []
        self.random_states = [(part, part.random.state) for part in self.parts if hasattr(part, "random")]
        self.states = [(array, array.copy()) for part in self.parts for array in getattr(part, "state", {}).values()]
        self.dy = np.ones(()) if self.loss is not None else rng.normal(size=self._forward(training).shape)

    def _prepare_parts(self):
        for part in self.parts:
            for kind in ("params", "grads", "state"):
                arrays = getattr(part, f"_{kind}", None) or getattr(part, kind, {})
                bind = getattr(arrays, "bind", arrays.__setitem__)
                for key, array in list(arrays.items()):
                    bind(key, np.array(array, np.float64))
        for part in self.parts:
            # A model derives its dtype from its layers.
            if hasattr(part, "dtype") and not isinstance(getattr(type(part), "dtype", None), property):
                part.dtype = np.dtype(np.float64)

    def _forward(self, training):
        # Every pass starts from the same random numbers and the same running averages.
        for part, state in self.random_states:
            part.random.state = state
        for array, value in self.states:
            array[...] = value
        # Copied both ways: a layer may return its input, which the next step changes.
        y = np.array(self.layer.forward(self.arrays["x"].copy(), training=training))
        if y.dtype != np.float64:
            raise ValueError(
                f"{OWNER}: forward must stay in float64, or rounding hides the gradient. Received: an output of "
                f"{y.dtype}. Compute in the dtype of x, and list layers inside a layer in its inner_layers."
            )
        return y

    def evaluate(self):
        y = self._forward(self.training)
        if self.loss is None:
            return y
        return np.float64(self.loss(self.y, y, sample_weight=self.sample_weight) + self.layer.regularization_loss())

    def gradients(self):
        for part, _ in self.owners.values():
            for array in getattr(part, "grads", {}).values():
                array[...] = np.nan  # what backward doesn't assign must not pass as right
        y = self._forward(training=True)
        dy = self.dy if self.loss is None else self.loss.backward(self.y, y, sample_weight=self.sample_weight)
        found = {"x": self.layer.backward(dy.copy())}
        if self.loss is not None:
            self.layer.add_regularization_gradients()
        return found | {name: getattr(part, "grads", {}).get(key) for name, (part, key) in self.owners.items()}


def _compare(problem, epsilon, tolerance, rng, max_elements):
    """Return a row for each of the problem's arrays."""
    # Copied, since the forward passes below may overwrite what backward returned.
    gradients = {name: None if array is None else np.array(array, np.float64)
                 for name, array in problem.gradients().items()}
    start = problem.evaluate()
    rounding = np.finfo(np.float64).eps * float(np.abs(problem.dy * start).sum()) / epsilon
    rows = []
    for name, array in problem.arrays.items():
        gradient = gradients[name]
        if gradient is None or (gradient.size and np.isnan(gradient).all() and name in getattr(problem, "owners", {})):
            rows.append(GradientRow(name, array.shape, 0, np.inf, np.inf, "missing"))
            continue
        if gradient.shape != array.shape:
            rows.append(GradientRow(name, array.shape, 0, np.inf, np.inf, "shape"))
            continue
        places = np.arange(array.size)
        if max_elements is not None and array.size > max_elements:
            places = np.sort(rng.choice(array.size, max_elements, replace=False))
        rows.append(_compare_array(problem, name, gradient.ravel()[places], places, start, epsilon, tolerance,
                                   floor=16 * rounding / 1e-6))
    return rows


def _compare_array(problem, name, analytic, places, start, epsilon, tolerance, floor):
    array = problem.arrays[name]

    def moved(place, step):
        before = array.flat[place]
        array.flat[place] = before + step
        value = problem.evaluate()
        array.flat[place] = before
        return value

    def quotient(place, h):
        near = moved(place, h) - moved(place, -h)
        far = moved(place, 2 * h) - moved(place, -2 * h)
        # Subtract before summing: sums of y itself would lose the digits that make up the difference.
        return float((problem.dy * (8 * near - far)).sum()) / (12 * h)

    def slopes(place, h):
        return [float((problem.dy * (moved(place, step) - start)).sum()) / step for step in (-h, h)]

    def is_kink(place, gradient):
        # At a smooth point, the slopes to the left and right converge as the step shrinks; at a kink they don't.
        # Even there, a gradient that isn't between the two is wrong.
        (left, right), (wide_left, wide_right) = (slopes(place, epsilon * part) for part in (0.01, 0.1))
        jump = abs(right - left)
        slack = tolerance * max(scale, jump)
        between = min(left, right) - slack <= gradient <= max(left, right) + slack
        return between and jump > 0.5 * abs(wide_right - wide_left) and jump > slack

    numeric = np.array([quotient(place, epsilon) for place in places])
    errors = np.abs(analytic - numeric)
    scale = _largest(floor, analytic)
    for i in np.flatnonzero(~(errors <= 0.1 * tolerance * scale)):
        for part in SHRINK[1:]:
            again = quotient(places[i], epsilon * part)
            error = abs(analytic[i] - again)
            if not error >= errors[i] and not np.isnan(error):
                numeric[i], errors[i] = again, error
            if errors[i] <= 0.1 * tolerance * scale:
                break
    errors = np.where(np.isfinite(errors), errors, np.inf)
    scale = _largest(floor, analytic, numeric)
    bad = np.flatnonzero(errors > tolerance * scale)
    verdict = "ok"
    if len(bad):
        verdict = "kink" if all(is_kink(places[i], analytic[i]) for i in bad) else "wrong"
    worst = float(errors.max(initial=0.0))
    return GradientRow(name, array.shape, len(places), worst, worst / scale, verdict)


def _largest(floor, *arrays):
    """Return the largest finite magnitude among the elements, at least `floor` and above 0."""
    sizes = np.abs(np.concatenate(arrays))
    return float(sizes[np.isfinite(sizes)].max(initial=max(floor, np.finfo(np.float64).tiny)))
