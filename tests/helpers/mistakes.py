"""A layer and a loss with selectable mistakes, for the tests of check_gradients."""

import numpy as np

from cnnlite.layers import Layer


class Affine(Layer):
    """y = x @ kernel + bias, with a selectable mistake in its gradients."""

    def __init__(self, mistake=None, **kwargs):
        super().__init__(**kwargs)
        self.mistake = mistake

    def build(self, input_shape):
        super().build(input_shape)
        self.add_weight("kernel", (input_shape[-1], input_shape[-1]))
        self.add_weight("bias", (input_shape[-1],), "zeros")

    def forward(self, x, training=False):
        x = self.prepare(x)
        if training:
            self.remember(x)
        return x @ self.params["kernel"] + self.params["bias"]

    def backward(self, dy):
        (x,) = self.recall()
        kernel, bias = x.T @ dy, dy.sum(axis=0)
        if self.mistake == "kernel times 1.0001":
            kernel *= 1.0001
        elif self.mistake == "kernel transposed":
            kernel = kernel.T
        elif self.mistake == "kernel divided by the batch":
            kernel /= len(x)
        elif self.mistake == "one element of the kernel":
            kernel[2, 1] *= 1.00001
        elif self.mistake == "bias averaged":
            bias = dy.mean(axis=0)
        elif self.mistake == "bias with the wrong sign":
            bias = -bias
        self.grads["kernel"] = kernel
        if self.mistake != "bias missing":
            self.grads["bias"] = bias
        if self.mistake == "bias added to what was there":
            self.grads["bias"] += bias
        dx = dy @ self.params["kernel"].T
        if self.mistake == "dx transposed":
            return dx.T
        if self.mistake == "no dx":
            return None
        if self.mistake == "dx with a NaN":
            dx[0, 0] = np.nan
        return dx * (1 + 1e-5 * (self.mistake == "dx times 1.00001"))


class SquaredError:
    """mean over samples of Σ (y_pred - y_true)²"""

    name = "squared_error"

    def __init__(self, factor=2.0):
        self.factor = factor

    def forward(self, y_true, y_pred):
        return np.square(y_pred - y_true).sum(axis=-1)

    def __call__(self, y_true, y_pred, sample_weight=None):
        losses = self.forward(y_true, y_pred)
        return float((losses if sample_weight is None else losses * sample_weight).mean())

    def backward(self, y_true, y_pred, sample_weight=None):
        weight = np.ones(len(y_pred)) if sample_weight is None else sample_weight
        return self.factor * (y_pred - y_true) * weight[:, None] / len(y_pred)


def verdicts(report):
    """Return {name: verdict}."""
    return {row.name: row.verdict for row in report.rows}
