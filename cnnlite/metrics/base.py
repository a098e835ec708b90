"""What every metric shares: sums that grow from batch to batch."""

import numpy as np

from cnnlite import labels
from cnnlite.arguments import one_of


class Metric:
    """The base of all metrics, and of yours.

    A metric of your own defines `update_state(y_true, y_pred, sample_weight=None)`, `result()` and
    `reset_state()`. Where it is a mean over the samples, write a function and hand that to `compile` instead.

    Args:
        dtype: "float32" or "float64", as in Keras. The sums are kept in float64 whatever it says.
        name: how logs call it.
    """

    def __init__(self, dtype=None, name=None):
        owner = type(self).__name__
        self.dtype = None if dtype is None else one_of(np.dtype(dtype).name, ("float32", "float64"), "dtype", owner)
        self.name = owner if name is None else name

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Take a batch into account."""
        raise NotImplementedError(f"{type(self).__name__} must define update_state(y_true, y_pred, sample_weight).")

    def result(self):
        """Return the value over all batches since the last `reset_state`."""
        raise NotImplementedError(f"{type(self).__name__} must define result().")

    def reset_state(self):
        """Forget all batches."""
        raise NotImplementedError(f"{type(self).__name__} must define reset_state().")

    def __call__(self, y_true, y_pred, sample_weight=None):
        """Take a batch into account and return the value so far."""
        self.update_state(y_true, y_pred, sample_weight)
        return self.result()

    def get_config(self):
        """Return the arguments that make this metric again."""
        return {"name": self.name, "dtype": self.dtype}

    @classmethod
    def from_config(cls, config):
        """Make a metric from what `get_config` returned."""
        return cls(**config)


class Mean(Metric):
    """sum(weight * value) / sum(weight) over all values since the last reset; 0.0 if there were none.

    A short last batch therefore counts as what it is. Unlike in a loss, the weights are in the divisor too.

    >>> mean = Mean()
    >>> mean.update_state([1.0, 3.0, 5.0, 7.0])
    >>> mean.update_state([9.0])
    >>> mean.result()
    5.0
    """

    def __init__(self, name="mean", dtype=None):
        super().__init__(dtype, name)
        self.reset_state()

    def update_state(self, values, sample_weight=None):
        """Add values (N, ...), weighted by one number for each sample (N,) or for each value (N, ...)."""
        values = labels.number_array(values, "values", self.name)
        if sample_weight is None:
            self.total += float(values.sum(dtype=np.float64))
            self.count += float(values.size)
            return
        weights = labels.weights_for(values.shape, sample_weight, self.name)
        self.total += float((values * weights).sum(dtype=np.float64))
        self.count += float(weights.sum(dtype=np.float64)) * (values.size / weights.size if weights.size else 0.0)

    def result(self):
        return self.total / self.count if self.count else 0.0

    def reset_state(self):
        self.total = 0.0
        self.count = 0.0


class MeanMetricWrapper(Mean):
    """The mean of what a function returns for each sample.

    Args:
        fn: `fn(y_true, y_pred, **kwargs)`, which returns values (N, ...). A function that returns one number for
            the batch is taken to have averaged the samples itself, and that number counts once for each of them.
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

    def __init__(self, fn, name=None, dtype=None, **kwargs):
        super().__init__(getattr(fn, "__name__", type(fn).__name__) if name is None else name, dtype)
        self._fn = fn
        self._kwargs = kwargs

    def update_state(self, y_true, y_pred, sample_weight=None):
        values = np.asarray(self._fn(y_true, y_pred, **self._kwargs))
        if values.ndim == 0:
            values = np.broadcast_to(values, np.shape(y_pred)[:1])
        super().update_state(values, sample_weight)

    def get_config(self):
        raise ValueError(
            f"{self.name}: a metric made of a function can't be written to a file. "
            "Subclass cnnlite.metrics.Metric, or give the function to compile again after loading."
        )


class ByForm(Metric):
    """A metric that decides at its first batch which one it is, by the form of the labels, as Keras does.

    Predictions (N, 1) or (N,) are binary; labels with an axis less, or with a last axis of 1, are integers of
    classes; all others are one-hot.
    """

    def __init__(self, name, dtype=None):
        super().__init__(dtype, name)
        self.metric = None

    def choose(self, form):
        """Return the metric for labels that are "binary", "sparse" or "one-hot"."""
        raise NotImplementedError

    def update_state(self, y_true, y_pred, sample_weight=None):
        if self.metric is None:
            self.metric = self.choose(label_form(np.shape(y_true), np.shape(y_pred)))
        self.metric.update_state(y_true, y_pred, sample_weight)

    def result(self):
        return 0.0 if self.metric is None else self.metric.result()

    def reset_state(self):
        if self.metric is not None:
            self.metric.reset_state()


def label_form(labels_shape, predictions_shape):
    """Return "binary", "sparse" or "one-hot", by Keras's rule."""
    if len(predictions_shape) < 2 or predictions_shape[-1] == 1:
        return "binary"
    if len(labels_shape) < len(predictions_shape) or labels_shape[-1] == 1:
        return "sparse"
    return "one-hot"
