"""The losses as metrics: means over the samples, weighted by `sample_weight`, without regularisation."""

from __future__ import annotations

from typing import Any

from cnnlite import losses
from cnnlite.metrics.base import Average, ByForm, Metric
from cnnlite.types import Array, ArrayLike, Config, DTypeLike, Shape


class LossMetric(Average):
    """The mean of a loss over the samples.

    Unlike the loss itself, it divides by the sum of the weights, not by the number of samples, as in Keras.

    Args:
        loss: a loss, or its name.
        name: by default the loss's name.
        dtype: see `Metric`.

    >>> from cnnlite.losses import Huber
    >>> metric = LossMetric(Huber())
    >>> metric.update_state([[0.0], [1.0]], [[0.0], [3.0]], sample_weight=[1, 3])
    >>> metric.result()
    1.125
    """

    def __init__(self, loss: Any, name: str | None = None, dtype: DTypeLike | None = None) -> None:
        self.loss = losses.get(loss)
        super().__init__(dtype, self.loss.name if name is None else name)

    def check(self, y_true: ArrayLike, output_shape: Shape) -> None:
        self.loss.check(y_true, output_shape)

    def values(self, y_true: ArrayLike, y_pred: ArrayLike) -> Array:
        return self.loss.forward(y_true, y_pred)

    def get_config(self) -> Config:
        return {**super().get_config(), "loss": losses.serialize(self.loss)}


class _NamedLossMetric(LossMetric):
    """A `LossMetric` with a fixed loss, and the named `arguments` of the loss as its own."""

    arguments: tuple[str, ...] = ()

    def get_config(self) -> Config:
        arguments = {argument: getattr(self.loss, argument) for argument in self.arguments}
        return {"name": self.name, "dtype": self.dtype, **arguments}


class CategoricalCrossentropy(_NamedLossMetric):
    """The mean of `cnnlite.losses.CategoricalCrossentropy`.

    Shapes, errors, and all arguments but name and dtype are the loss's.

    >>> metric = CategoricalCrossentropy()
    >>> metric.update_state([[0, 1, 0], [0, 0, 1]], [[0.05, 0.95, 0], [0.1, 0.8, 0.1]])
    >>> round(metric.result(), 3)
    1.177
    """

    arguments = ("from_logits", "label_smoothing")

    def __init__(
        self,
        name: str | None = "categorical_crossentropy",
        dtype: DTypeLike | None = None,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
    ) -> None:
        super().__init__(losses.CategoricalCrossentropy(from_logits, label_smoothing, axis), name, dtype)


class SparseCategoricalCrossentropy(_NamedLossMetric):
    """The mean of `cnnlite.losses.SparseCategoricalCrossentropy`.

    Shapes, errors, and all arguments but name and dtype are the loss's.

    >>> metric = SparseCategoricalCrossentropy()
    >>> metric.update_state([1, 2], [[0.05, 0.95, 0], [0.1, 0.8, 0.1]])
    >>> round(metric.result(), 3)
    1.177
    """

    arguments = ("from_logits", "label_smoothing")

    def __init__(
        self,
        name: str | None = "sparse_categorical_crossentropy",
        dtype: DTypeLike | None = None,
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
        label_smoothing: float = 0.0,
    ) -> None:
        loss = losses.SparseCategoricalCrossentropy(
            from_logits, ignore_class, axis=axis, label_smoothing=label_smoothing
        )
        super().__init__(loss, name, dtype)


class BinaryCrossentropy(_NamedLossMetric):
    """The mean of `cnnlite.losses.BinaryCrossentropy`.

    Shapes, errors, and all arguments but name and dtype are the loss's.

    >>> metric = BinaryCrossentropy()
    >>> metric.update_state([[0], [1]], [[0.4], [0.6]])
    >>> round(metric.result(), 3)
    0.511
    """

    arguments = ("from_logits", "label_smoothing")

    def __init__(
        self,
        name: str | None = "binary_crossentropy",
        dtype: DTypeLike | None = None,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(losses.BinaryCrossentropy(from_logits, label_smoothing), name, dtype)


class MeanSquaredError(_NamedLossMetric):
    """The mean of `cnnlite.losses.MeanSquaredError`, with its shapes and errors; name, dtype: see `Metric`."""

    def __init__(self, name: str | None = "mean_squared_error", dtype: DTypeLike | None = None) -> None:
        super().__init__(losses.MeanSquaredError(), name, dtype)


class MeanAbsoluteError(_NamedLossMetric):
    """The mean of `cnnlite.losses.MeanAbsoluteError`, with its shapes and errors; name, dtype: see `Metric`."""

    def __init__(self, name: str | None = "mean_absolute_error", dtype: DTypeLike | None = None) -> None:
        super().__init__(losses.MeanAbsoluteError(), name, dtype)


class Huber(_NamedLossMetric):
    """The mean of `cnnlite.losses.Huber`, with its `delta`, shapes and errors; name, dtype: see `Metric`."""

    arguments = ("delta",)

    def __init__(self, name: str | None = "huber", dtype: DTypeLike | None = None, delta: float = 1.0) -> None:
        super().__init__(losses.Huber(delta), name, dtype)


class CrossentropyByForm(ByForm):
    """What "crossentropy" stands for: binary, categorical or sparse, depending on the labels.

    Args:
        name, dtype: see `Metric`.
        from_logits: whether the predictions are logits. `get` takes this from the loss.
    """

    def __init__(
        self,
        name: str | None = "crossentropy",
        dtype: DTypeLike | None = None,
        from_logits: bool = False,
    ) -> None:
        super().__init__(name, dtype, from_logits)

    def choose(self, form: str) -> Metric:
        if form == "binary":
            return BinaryCrossentropy(self.name, from_logits=self.from_logits)
        kind = SparseCategoricalCrossentropy if form == "sparse" else CategoricalCrossentropy
        return kind(self.name, from_logits=self.from_logits)
