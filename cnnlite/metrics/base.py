"""What all metrics share: sums that accumulate over batches."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnlite.data import labels
from cnnlite.support.arguments import one_of, real_array, text
from cnnlite.support.floating import arithmetic
from cnnlite.support.schema import check_form
from cnnlite.types import Array, ArrayLike, Config, DTypeLike, Shape

if TYPE_CHECKING:
    from typing_extensions import Self


class Metric:
    """The base class of all metrics, including your own.

    A metric of your own defines `update_state(y_true, y_pred, sample_weight=None)`, `result()` and
    `reset_state()`. If it is a mean over the samples, pass a function to `compile` instead.

    Args:
        dtype: "float32" or "float64", as in Keras. The sums are kept in float64 in any case.
        name: its name in logs.
    """

    def __init__(self, dtype: DTypeLike | None = None, name: str | None = None) -> None:
        owner = type(self).__name__
        self.dtype = None if dtype is None else one_of(np.dtype(dtype).name, ("float32", "float64"), "dtype", owner)
        self.name = owner if name is None else text(name, "name", owner)

    def check(self, y_true: ArrayLike, output_shape: Shape) -> None:
        """Raise a ValueError if these labels don't fit predictions of `output_shape` (None, ..., K).

        `fit` calls this with all labels before it starts. A metric of your own may define it.
        """

    # Any, so that a metric of your own may declare that it takes only np.ndarray.
    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Accumulate a batch."""
        raise NotImplementedError(f"{type(self).__name__} must define update_state(y_true, y_pred, sample_weight).")

    def result(self) -> float:
        """Return the value over all batches since the last `reset_state`."""
        raise NotImplementedError(f"{type(self).__name__} must define result().")

    def reset_state(self) -> None:
        """Forget all batches."""
        raise NotImplementedError(f"{type(self).__name__} must define reset_state().")

    def get_state(self) -> Config:
        """Return what the metric has accumulated, for `set_state` in another process.

        By default, all its attributes that are not callable. A metric of your own that keeps anything but numbers,
        strings, arrays, and lists, tuples and dicts of them must define both methods.
        """
        return {
            name: value.get_state() if isinstance(value, Metric) else value
            for name, value in vars(self).items() if isinstance(value, Metric) or not callable(value)
        }

    def set_state(self, state: Config) -> None:
        """Restore what `get_state` returned; a ValueError if it can't be the state of this metric."""
        check_form(state, {str: object}, f"the state of {self.name}")
        for name, value in state.items():
            mine = getattr(self, name, None)
            if isinstance(mine, Metric):
                mine.set_state(value)
            elif hasattr(type(self), name) or not _alike(value, mine):
                raise ValueError(f"the state of {self.name} has another {name}: {value!r:.100}")
            else:
                setattr(self, name, value)

    def __call__(self, *args: Any, **kwargs: Any) -> float:
        """Accumulate a batch, as `update_state` does, and return the value so far."""
        self.update_state(*args, **kwargs)
        return self.result()

    def get_config(self) -> Config:
        """Return the arguments that recreate this metric."""
        return {"name": self.name, "dtype": self.dtype}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Make a metric from what `get_config` returned."""
        return cls(**config)


def _alike(value: Any, present: Any) -> bool:
    """Return whether a value from a file can replace `present`."""
    if isinstance(present, np.ndarray):
        return isinstance(value, np.ndarray) and (value.shape, value.dtype) == (present.shape, present.dtype)
    if isinstance(present, numbers.Real) and not isinstance(present, bool):
        return isinstance(value, numbers.Real) and not isinstance(value, bool)
    return present is None or value is None or type(value) is type(present)


class Average(Metric):
    """sum(weight * value) / sum(weight) over the samples; 0.0 before the first. A subclass defines `values`.

    Unlike a loss, it divides by the sum of the weights, as in Keras. NaN in, NaN out.
    """

    def __init__(self, dtype: DTypeLike | None = None, name: str | None = None) -> None:
        super().__init__(dtype, name)
        self.reset_state()

    def values(self, y_true: ArrayLike, y_pred: ArrayLike) -> Array:
        """Return the values (N, ...) of a batch."""
        raise NotImplementedError(f"{type(self).__name__} must define values(y_true, y_pred).")

    def update_state(self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None) -> None:
        # A diverging model shows in the result, not in NumPy's warnings.
        with arithmetic():
            self.add(self.values(y_true, y_pred), sample_weight)

    def add(self, values: ArrayLike, sample_weight: ArrayLike | None = None) -> None:
        """Add values (N, ...), with one weight per sample (N,) or per value (N, ...)."""
        values = labels.number_array(values, "values", self.name)
        weights = np.ones((1,) * values.ndim)
        if sample_weight is not None:
            weights = labels.weights_for(values.shape, sample_weight, self.name)
        self.total += float((values * weights).sum(dtype=np.float64))
        self.count += float(np.broadcast_to(weights, values.shape).sum(dtype=np.float64))

    def result(self) -> float:
        return self.total / self.count if self.count else 0.0

    def reset_state(self) -> None:
        self.total = 0.0
        self.count = 0.0

    def get_state(self) -> Config:
        return {"total": self.total, "count": self.count}


class Mean(Average):
    """The mean of plain numbers, rather than of labels and predictions.

    >>> mean = Mean()
    >>> mean.update_state([1.0, 3.0, 5.0, 7.0])
    >>> mean.update_state([9.0])
    >>> mean.result()
    5.0

    Args:
        name, dtype: see `Metric`.
    """

    def __init__(self, name: str | None = "mean", dtype: DTypeLike | None = None) -> None:
        super().__init__(dtype, name)

    # Values instead of labels and predictions, as in Keras: so it can't be used where another metric is expected.
    def update_state(  # type: ignore[override]
        self, values: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> None:
        self.add(values, sample_weight)


class MeanMetricWrapper(Average):
    """The mean of what a function returns for each sample.

    Args:
        fn: `fn(y_true, y_pred, **kwargs)`, which returns values (N, ...). If it returns one number for the
            batch, that is taken as the mean over the samples, and counts once for each of them.
        name: by default the name of the function.
        dtype: see `Metric`.
        **kwargs: passed on to the function.

    >>> import numpy as np
    >>> def largest_error(y_true, y_pred):
    ...     return np.abs(y_true - y_pred).max(axis=-1)
    >>> metric = MeanMetricWrapper(largest_error)
    >>> metric.update_state(np.zeros((2, 2)), np.array([[1.0, 2.0], [4.0, 3.0]]))
    >>> metric.name, metric.result()
    ('largest_error', 3.0)
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        name: str | None = None,
        dtype: DTypeLike | None = None,
        **kwargs: Any,
    ) -> None:
        if not callable(fn):
            raise TypeError(f"MeanMetricWrapper: fn must be a function of y_true and y_pred. Received: fn={fn!r}.")
        super().__init__(dtype, getattr(fn, "__name__", type(fn).__name__) if name is None else name)
        self.fn = fn
        self.arguments = kwargs

    def values(self, y_true: ArrayLike, y_pred: ArrayLike) -> Array:
        values = real_array(self.fn(y_true, y_pred, **self.arguments), "the values", self.name)
        return values if values.ndim else np.broadcast_to(values, np.shape(y_pred)[:1])

    def get_config(self) -> Config:
        """Return the arguments that recreate this metric; `fn` is in it as an object, which a file stores by name."""
        return {**super().get_config(), "fn": self.fn, **self.arguments}


class ByForm(Metric):
    """A metric that is chosen at its first batch by the form of the labels, as in Keras.

    Predictions (N, 1) or (N,) are binary; labels with one axis fewer, or with a last axis of 1, are class
    indices; all others are one-hot.

    Args:
        name, dtype: see `Metric`.
        from_logits: whether the predictions are logits, which a subclass passes on to the metric that it chooses.
    """

    def __init__(self, name: str | None, dtype: DTypeLike | None = None, from_logits: bool = False) -> None:
        super().__init__(dtype, name)
        self.from_logits = from_logits
        self.metric: Metric | None = None
        self._form = ""

    def choose(self, form: str) -> Metric:
        """Return the metric for labels that are "binary", "sparse" or "one-hot"."""
        raise NotImplementedError(f"{type(self).__name__} must define choose(form).")

    def check(self, y_true: ArrayLike, output_shape: Shape) -> None:
        self.choose(label_form(np.shape(y_true), output_shape)).check(y_true, output_shape)

    def update_state(self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None) -> None:
        if self.metric is None:
            y_true = labels.number_array(y_true, "y_true", self.name)
            y_pred = labels.number_array(y_pred, "y_pred", self.name)
            self._form = label_form(y_true.shape, y_pred.shape)
            self.metric = self.choose(self._form)
        self.metric.update_state(y_true, y_pred, sample_weight)

    def result(self) -> float:
        return 0.0 if self.metric is None else self.metric.result()

    def reset_state(self) -> None:
        if self.metric is not None:
            self.metric.reset_state()

    def get_state(self) -> Config:
        return {} if self.metric is None else {"form": self._form, "sums": self.metric.get_state()}

    def set_state(self, state: Config) -> None:
        if state:
            check_form(state, {"form": str, "sums": object}, f"the state of {self.name}")
            if state["form"] not in ("binary", "sparse", "one-hot"):
                raise ValueError(f"the state of {self.name} has another form: {state['form']:.100}")
            self._form = state["form"]
            self.metric = self.choose(self._form)
            self.metric.set_state(state["sums"])

    def get_config(self) -> Config:
        return {**super().get_config(), "from_logits": self.from_logits}


def label_form(labels_shape: Shape, predictions_shape: Shape) -> str:
    """Return "binary", "sparse" or "one-hot", by Keras's rule."""
    if len(predictions_shape) < 2 or predictions_shape[-1] == 1:
        return "binary"
    if len(labels_shape) < len(predictions_shape) or labels_shape[-1] == 1:
        return "sparse"
    return "one-hot"
