"""Clip gradients by value, by the norm of each weight's gradient, or by the global norm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnnlite import kernels

if TYPE_CHECKING:
    from cnnlite.layers.flat_parameters import FlatParameters


def clip_gradient(
    parameters: FlatParameters,
    out: Any,
    clipnorm: float | None = None,
    clipvalue: float | None = None,
    global_clipnorm: float | None = None,
) -> None:
    """Write the clipped gradient of all trainable parameters into `out`; the rest of `out` is undefined.

        clipvalue          g limited to [-clipvalue, clipvalue], element by element
        clipnorm           g * clipnorm / max(‖g‖, clipnorm), for each weight (kernel, bias) with its own norm
        global_clipnorm    likewise, with the norm of all trainable gradients together

    Exactly one of the three is set. A NaN spreads to everything that shares a norm with it, as in Keras.

    The gradient and `out` are arrays, or buffers of a plan.
    """
    gradient, segments = parameters.gradient, tuple(parameters.trainable_segments())
    if clipvalue is not None:
        kernels.clip_by_value(gradient, out, clipvalue, segments)
    elif clipnorm is not None:
        kernels.clip_by_norm(gradient, out, clipnorm, _trainable_weights(parameters.slices, segments))
    elif global_clipnorm is not None:
        kernels.clip_by_global_norm(gradient, out, global_clipnorm, segments)


def _trainable_weights(slices: list[slice], segments: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    weights = [(place.start, place.stop) for place in slices]
    return tuple((a, b) for a, b in weights if any(start <= a and b <= stop for start, stop in segments))
