"""Keep gradients from being too large, by value, by the norm of each weight, or by the norm of all together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from cnnlite.floating import arithmetic
from cnnlite.types import Array

if TYPE_CHECKING:
    from cnnlite.parameters import FlatParameters


def clip_gradient(
    parameters: FlatParameters,
    out: Array,
    clipnorm: float | None = None,
    clipvalue: float | None = None,
    global_clipnorm: float | None = None,
) -> None:
    """Write the clipped gradient of all trainable parameters into `out`; the rest of `out` holds nothing of use.

        clipvalue          g limited to [-clipvalue, clipvalue], each number for itself
        clipnorm           g * clipnorm / max(‖g‖, clipnorm), for each weight (kernel, bias) with its own norm
        global_clipnorm    the same with the norm of all trainable gradients together

    Exactly one of the three is set. A NaN spreads over all that shares a norm with it, as in Keras.
    """
    gradient, segments = parameters.gradient, parameters.trainable_segments()
    if clipvalue is not None:
        for start, stop in segments:
            np.clip(gradient[start:stop], -clipvalue, clipvalue, out=out[start:stop])
        return
    # An infinite norm times 0 is NaN, and has to be: the step that follows must not look healthy.
    with arithmetic():
        if clipnorm is not None:
            for start, stop in _trainable_weights(parameters.slices, segments):
                norm = _norm(gradient[start:stop], out[start:stop])
                _scale(gradient[start:stop], clipnorm / np.maximum(norm, clipnorm), out[start:stop])
        elif global_clipnorm is not None:
            norm = math.hypot(*(_norm(gradient[start:stop], out[start:stop]) for start, stop in segments))
            factor = global_clipnorm / np.maximum(norm, global_clipnorm) if math.isfinite(norm) else math.nan
            for start, stop in segments:
                _scale(gradient[start:stop], factor, out[start:stop])


def _trainable_weights(slices: list[slice], segments: list[tuple[int, int]]) -> list[tuple[int, int]]:
    weights = [(place.start, place.stop) for place in slices]
    return [(a, b) for a, b in weights if any(start <= a and b <= stop for start, stop in segments)]


def _norm(g: Array, scratch: Array) -> float:
    # np.dot would be shorter, but hands long vectors to the threads of BLAS, whose number changes the bits.
    norm = math.sqrt(np.multiply(g, g, out=scratch).sum())
    largest = float(np.abs(g).max()) if norm == math.inf else 0.0
    if 0 < largest < math.inf:  # only the squares were too large
        np.divide(g, g.dtype.type(largest), out=scratch)
        norm = largest * math.sqrt(np.multiply(scratch, scratch, out=scratch).sum(dtype=np.float64))
    return norm


def _scale(g: Array, factor: float, out: Array) -> None:
    np.multiply(g, g.dtype.type(factor), out=out)
