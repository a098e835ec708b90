"""What every loss shares: the mean over a batch, sample weights, and checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cnnlite import config, kernels, reference
from cnnlite.data import labels
from cnnlite.engine.buffers import is_buffer
from cnnlite.engine.graph import stages_of
from cnnlite.support.arguments import float_array, one_of, text
from cnnlite.support.as_written import AsWritten
from cnnlite.support.floating import arithmetic
from cnnlite.types import Array, ArrayLike, Config, DTypeLike, Shape

if TYPE_CHECKING:
    from typing_extensions import Self


class Loss:
    """The base class of all losses, including your own.

    A loss of your own defines `forward`, which reduces the last axis, and `gradient`, its derivative
    with respect to each prediction:

    >>> import numpy as np
    >>> import cnnlite
    >>> class LogCosh(cnnlite.losses.Loss):
    ...     '''mean(log(cosh(y_pred - y_true)))'''
    ...     def forward(self, y_true, y_pred):
    ...         y_true, y_pred = self.prepare(y_true, y_pred)
    ...         return np.log(np.cosh(y_pred - y_true)).mean(axis=-1)
    ...     def gradient(self, y_true, y_pred):
    ...         y_true, y_pred = self.prepare(y_true, y_pred)
    ...         return np.tanh(y_pred - y_true) / y_pred.shape[-1]
    >>> round(LogCosh()([[0.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [0.0, 0.0]]), 4)
    0.1084

    Args:
        name: what logs and errors call it.
        reduction: "sum_over_batch_size" (default), the sum divided by the number of per-sample losses, weighted or
            not; "sum"; or "none" (also None), with which a call returns the individual losses, and which can't be
            used for training.
        dtype: "float32" or "float64" to compute in; by default that of the predictions.

    Attributes:
        fused_activation: "softmax" or "sigmoid" if the loss can be computed more accurately from the input of that
            activation, the logits, than from its output; `on_logits()` does so. None otherwise.
    """

    def __init__(
        self,
        name: str | None = None,
        reduction: str | None = "sum_over_batch_size",
        dtype: DTypeLike | None = None,
    ) -> None:
        owner = type(self).__name__
        self.name = owner if name is None else text(name, "name", owner)
        reduction = "none" if reduction is None else reduction
        self.reduction = one_of(reduction, ("sum_over_batch_size", "sum", "none"), "reduction", owner)
        self.dtype = None if dtype is None else one_of(np.dtype(dtype).name, ("float32", "float64"), "dtype", owner)

    # Any, so that a loss of your own may annotate these as np.ndarray.

    def forward(self, y_true: Any, y_pred: Any) -> Array:
        """Return the losses (N, ...) of predictions (N, ..., K)."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(y_true, y_pred).")

    def gradient(self, y_true: Any, y_pred: Any) -> Array:
        """Return the derivative (N, ..., K) of every loss (N, ...) with respect to its predictions."""
        raise NotImplementedError(f"{type(self).__name__} must define gradient(y_true, y_pred).")

    def __call__(self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None) -> Any:
        """Return the loss of a batch as a float; 0.0 for an empty one.

        Args:
            y_true: the labels.
            y_pred: the predictions (N, ..., K).
            sample_weight: factors of the losses, one per sample (N,) or one per loss (N, ...). The sum is
                divided by the number of losses, not by the sum of the weights, as in Keras.
        """
        # A diverging model shows in the loss, as inf or NaN, and not in NumPy's warnings.
        with arithmetic():
            return self._reduce(self.forward(y_true, y_pred), sample_weight)

    def backward(self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None) -> Array:
        """Return d loss(y_true, y_pred, sample_weight) / d y_pred, in the shape and dtype of y_pred."""
        self._require_reduction()
        with arithmetic():
            return self._scale(self.gradient(y_true, y_pred), y_pred, sample_weight)

    def value_and_gradient(
        self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> tuple[float, Array]:
        """Return the loss of a batch and its gradient: what a call and `backward` return, for a training step."""
        return self(y_true, y_pred, sample_weight), self.backward(y_true, y_pred, sample_weight)

    def _reduce(self, losses: Array, sample_weight: ArrayLike | None) -> Any:
        """Reduce the losses (N, ...) as `reduction` says."""
        if sample_weight is not None:
            weights = labels.weights_for(losses.shape, sample_weight, self.name)
            losses = losses * weights.astype(losses.dtype)
        if self.reduction == "none":
            return losses
        return float(reference.mean_loss(losses, mean=self._takes_mean)[0])

    def _scale(self, gradient: Array, y_pred: ArrayLike, sample_weight: ArrayLike | None) -> Array:
        """Return the gradient of the reduced loss, from the gradients of the per-sample losses."""
        weights = None
        if sample_weight is not None:
            weights = labels.weights_for(gradient.shape[:-1], sample_weight, self.name)
        gradient = reference.scale_gradient(gradient, weights, self._takes_mean)
        return gradient.reshape(np.shape(y_pred)).astype(self._dtype_of(y_pred), copy=False)

    def _require_reduction(self) -> None:
        if self.reduction == "none":
            raise ValueError(
                f"{self.name}: the gradient needs a loss that is one number. Received: reduction='none'. "
                "Use reduction='sum_over_batch_size' or 'sum'."
            )

    @property
    def _takes_mean(self) -> bool:
        return self.reduction == "sum_over_batch_size"

    def _dtype_of(self, y_pred: ArrayLike) -> np.dtype[Any]:
        dtype = getattr(y_pred, "dtype", None)
        return dtype if dtype in (np.float32, np.float64) else np.dtype(config.floatx())

    def check(self, y_true: ArrayLike, output_shape: Shape) -> None:
        """Raise a ValueError if these labels don't fit predictions of `output_shape` (None, ..., K).

        `fit` calls this with all labels before it starts. Here they must have the shape of the predictions and
        be finite; override it in a loss of your own that takes other labels.
        """
        labels.finite_labels(labels.same_shape(y_true, at_least_2d(output_shape), self.name), self.name)

    def prepare(self, y_true: ArrayLike, y_pred: ArrayLike) -> tuple[Array, Array]:
        """Return labels and predictions (N, ..., K) as arrays of the same dtype and shape.

        Predictions (N,) become (N, 1).
        """
        y_pred = self.prepare_predictions(y_pred)
        y_true = labels.same_shape(y_true, y_pred.shape, self.name)
        return y_true.astype(y_pred.dtype, copy=False), y_pred

    def prepare_predictions(self, y_pred: ArrayLike) -> Array:
        """Return predictions (N, ..., K) as a contiguous array of the dtype to compute in."""
        y_pred = float_array(y_pred, self.dtype or self._dtype_of(y_pred), "y_pred", self.name)
        return y_pred.reshape(at_least_2d(y_pred.shape))

    @property
    def fused_activation(self) -> str | None:
        """The activation whose input this loss accepts in place of its output (see `on_logits`); None for most."""
        return None

    def on_logits(self) -> Loss:
        """Return the same loss for predictions that have not been through `fused_activation`."""
        raise ValueError(f"{self.name}: this loss has no activation to be fused with.")

    def get_config(self) -> Config:
        """Return the arguments that recreate this loss."""
        return {"name": self.name, "reduction": self.reduction, "dtype": self.dtype}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Make a loss from what `get_config` returned."""
        return cls(**config)


class KernelLoss(Loss):
    """A loss of the library: a kernel computes every loss and its gradient, from targets in the form that it takes.

        t = loss.prepare_targets(y_true, y_pred.shape, y_pred.dtype)
        value, dy = loss.value_and_gradient(t, y_pred, weights)         # on buffers: adds stages to a plan
        value, dy = loss.value_and_gradient(y_true, y_pred, weights)    # on arrays: prepares them itself
    """

    def terms(self, t: Any, y: Any, gradient: bool = True) -> Any:
        """Return the losses (N, ...) for prepared targets and predictions, and their gradient if `gradient` is True."""
        raise NotImplementedError(f"{type(self).__name__} must define terms(t, y, gradient=True).")

    def prepare_targets(self, y_true: ArrayLike, output_shape: Shape, dtype: DTypeLike) -> Array:
        """Check labels against predictions of a shape (N, ..., K), and return them in the form that the kernel takes.

        Call it within `floating.arithmetic`. Raises a ValueError if they don't fit.
        """
        t = labels.same_shape(y_true, at_least_2d(output_shape), self.name)
        return t.astype(dtype, copy=False)

    def prepare_weights(self, sample_weight: ArrayLike, output_shape: Shape, dtype: DTypeLike) -> Array:
        """Check weights against predictions of a shape (N, ..., K), and return them as kernels take them, (N, ...)."""
        shape = at_least_2d(output_shape)[:-1]
        weights = labels.leading_weights(shape, sample_weight, self.name).astype(dtype, copy=False)
        return weights if weights.ndim else np.full(shape[:1], weights)

    def prepare(self, y_true: ArrayLike, y_pred: ArrayLike) -> tuple[Array, Array]:
        y_pred = self.prepare_predictions(y_pred)
        return self.prepare_targets(y_true, y_pred.shape, y_pred.dtype), y_pred

    def _prepared(self, y_true: ArrayLike, y_pred: ArrayLike) -> tuple[Any, Any]:
        return self.prepare(y_true, y_pred)

    def forward(self, y_true: ArrayLike, y_pred: ArrayLike) -> Array:
        return self.terms(*self._prepared(y_true, y_pred), gradient=False)

    def gradient(self, y_true: ArrayLike, y_pred: ArrayLike) -> Array:
        return self.terms(*self._prepared(y_true, y_pred))[1]

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        if is_buffer(y_pred):
            with stages_of(self.name):
                losses = self.terms(y_true, y_pred.reshape(at_least_2d(y_pred.shape)), gradient=False)
                return kernels.mean_loss(losses, sample_weight, self._takes_mean)
        return super().__call__(y_true, y_pred, sample_weight)

    def value_and_gradient(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tuple[Any, Any]:
        self._require_reduction()
        if is_buffer(y_pred):
            with stages_of(self.name):
                losses, dy = self.terms(y_true, y_pred.reshape(at_least_2d(y_pred.shape)))
                dy = kernels.scale_gradient(dy, sample_weight, self._takes_mean, out=dy)
                return kernels.mean_loss(losses, sample_weight, self._takes_mean), dy.reshape(y_pred.shape)
        if not is_as_written(self):
            return super().value_and_gradient(y_true, y_pred, sample_weight)
        with arithmetic():
            losses, dy = self.terms(*self._prepared(y_true, y_pred))
            return self._reduce(losses, sample_weight), self._scale(dy, y_pred, sample_weight)

    def _reduce(self, losses: Array, sample_weight: ArrayLike | None) -> Any:
        if self.reduction == "none" or not is_as_written(self):
            return super()._reduce(losses, sample_weight)
        weights = self._weights(losses, losses.shape, sample_weight)
        return float(kernels.mean_loss(losses, weights, self._takes_mean)[0])

    def _scale(self, gradient: Array, y_pred: ArrayLike, sample_weight: ArrayLike | None) -> Array:
        if not is_as_written(self):
            return super()._scale(gradient, y_pred, sample_weight)
        weights = self._weights(gradient, gradient.shape[:-1], sample_weight)
        gradient = kernels.scale_gradient(gradient, weights, self._takes_mean, out=gradient)
        return gradient.reshape(np.shape(y_pred)).astype(self._dtype_of(y_pred), copy=False)

    def _weights(self, like: Array, shape: Shape, sample_weight: ArrayLike | None) -> Array | None:
        return None if sample_weight is None else self.prepare_weights(sample_weight, (*shape, 1), like.dtype)


# The methods that a plan's stages replace. A subclass, a patched class or an object may override any of them.
is_as_written = AsWritten(
    "forward", "gradient", "backward", "value_and_gradient", "__call__", "prepare", "prepare_predictions",
    "prepare_targets", "prepare_weights", "terms", "_prepared", "_reduce", "_scale", "_takes_mean", "_weights",
)


def is_traceable(loss: Loss, dtype: DTypeLike) -> bool:
    """Return whether a plan whose arrays have that dtype may contain this loss as stages.

    Others, written or patched by the user, are called with arrays.
    """
    return is_as_written(loss) and (loss.dtype is None or loss.dtype == np.dtype(dtype))


def at_least_2d(shape: Shape) -> Shape:
    """Return (N, 1) for (N,), and any other shape as it is."""
    return (*shape, 1) if len(shape) == 1 else tuple(shape)
