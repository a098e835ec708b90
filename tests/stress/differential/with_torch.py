"""What PyTorch makes of a network of cnnlite's, in float64, with the attributes and patches that its layers have."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from cnnlite import layers
from tests.stress.differential.twists import INNER, Patches

EPSILON = 1e-7  # where cnnlite and Keras clip probabilities


class Mirror:
    """A model of cnnlite's in PyTorch, with weights of its own that start as the model's are now.

    Losses are computed from probabilities, which are clipped near 0 and 1. A loss from logits is not, so where there
    are such probabilities (`saturated`) the two may differ.

    Args:
        model: the model.
        patches: what has been put on its layers.
        blur: by which share each weight and input is changed at random, to see how much the result depends on it.
    """

    def __init__(self, model: Any, patches: Patches, blur: float = 0.0, seed: int = 0) -> None:
        self.model, self.patches, self.blur = model, patches, blur
        self.generator = np.random.default_rng(seed)
        self.params: dict[str, torch.Tensor] = {}
        self.state: dict[str, torch.Tensor] = {}
        self.paths: dict[int, str] = {}
        self.saturated = False  # whether a loss has met a probability near 0 or 1
        self.random = {id(layer): layer.random.state for layer in model.walk() if hasattr(layer, "random")}
        for path, layer in model.named_layers():
            self.paths[id(layer)] = path
            for name, array in layer.params.items():
                self.params[f"{path}/{name}"] = self._tensor(array).requires_grad_(layer.trainable)
            for name, array in layer.state.items():
                self.state[f"{path}/{name}"] = self._tensor(array)

    def _tensor(self, array: Any) -> torch.Tensor:
        array = np.array(array, np.float64)
        if self.blur:
            array *= 1 + self.blur * self.generator.uniform(-1, 1, array.shape)
        return torch.tensor(array)

    def predict(self, x: Any) -> Any:
        with torch.no_grad():
            return self.apply(self.model, self._tensor(x), False).numpy()

    def loss(self, x: Any, y: Any, training: bool = False) -> torch.Tensor:
        """Return the loss with its penalties; in training the moving statistics go on."""
        p = self.apply(self.model, self._tensor(x), training)
        value = self._loss(p, torch.tensor(np.array(y)))
        for layer in self.model.walk():
            for name, penalty in layer.regularizers.items() if layer.trainable else ():  # as in Keras
                value = value + float(penalty.l2) * (self.params[f"{self.paths[id(layer)]}/{name}"] ** 2).sum()
        return value

    def _loss(self, p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss = self.model.loss
        if type(loss).__name__ == "MeanSquaredError":
            return ((p - y) ** 2).mean()
        if loss.from_logits:
            return F.cross_entropy(p.reshape(-1, p.shape[-1]), y.reshape(-1))
        if type(loss).__name__ == "BinaryCrossentropy":
            p = self._clipped(p)
            return -(y * torch.log(p) + (1 - y) * torch.log(1 - p)).mean()
        p = self._clipped(p / p.sum(-1, keepdim=True))
        return F.nll_loss(torch.log(p).reshape(-1, p.shape[-1]), y.reshape(-1))

    def _clipped(self, p: torch.Tensor) -> torch.Tensor:
        near = 10 * EPSILON
        self.saturated = not bool(((p > near) & (p < 1 - near)).all())
        return torch.clamp(p, EPSILON, 1 - EPSILON)

    def train(self, x: Any, y: Any, rate: float) -> dict[str, Any]:
        """Make a step of gradient descent; return the loss, the gradients, and weights and statistics after it."""
        loss = self.loss(x, y, training=True)
        if loss.requires_grad:
            loss.backward()
        result = {"loss": np.array(loss.detach())}
        for name, tensor in self.params.items():
            gradient = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
            if tensor.requires_grad:
                result[f"gradient of {name}"] = gradient.numpy()
            result[name] = (tensor.detach() - rate * gradient).numpy()
        return result | {name: tensor.numpy() for name, tensor in self.state.items()}

    def apply(self, layer: Any, x: torch.Tensor, training: bool) -> torch.Tensor:
        """Return the output of a layer, with its patches."""
        for _ in range(self.patches.doublings(layer, "prepare")):
            x = x + x.detach()
        y: torch.Tensor = self._rule(layer)(layer, x, training)
        return y * 2 ** self.patches.doublings(layer, "forward")

    def _rule(self, layer: Any) -> Callable[..., torch.Tensor]:
        if isinstance(layer, layers.ActivationLayer):
            return self._activation
        for kind in type(layer).__mro__:
            rule = getattr(self, f"_{kind.__name__}", None)
            if rule is not None:
                return rule
        raise KeyError(f"no rule for {layer!r}")

    def _of(self, layer: Any, name: str) -> torch.Tensor | None:
        path = f"{self.paths.get(id(layer))}/{name}"
        if path not in self.params:
            return self.state.get(path)
        weight = self.params[path]
        for _ in range(self.patches.doublings(layer, "_weight_gradients")):
            weight = weight + (weight - weight.detach())  # the same value, and twice the gradient
        return weight

    # The layers.

    def _Sequential(self, model: Any, x: torch.Tensor, training: bool) -> torch.Tensor:
        for layer in model.layers:
            x = self.apply(layer, x, training)
        return x

    def _Residual(self, layer: Any, x: torch.Tensor, training: bool) -> torch.Tensor:
        return self.apply(layer.body, x, training) + (
            x if layer.shortcut is None else self.apply(layer.shortcut, x, training))

    def _activation(self, layer: Any, x: torch.Tensor, training: bool) -> torch.Tensor:
        x = x * INNER ** self.patches.doublings(layer, "function")
        if isinstance(layer, layers.Activation):  # it calls what is inside by `function` alone
            return self._activation(layer.activation, x, training)
        return ACTIVATIONS[next(kind for kind in type(layer).__mro__ if kind in ACTIVATIONS)](layer, x)

    def _Dense(self, layer: Any, x: torch.Tensor, training: bool) -> torch.Tensor:
        z = x @ self._of(layer, "kernel")
        return self.apply(layer.activation, z + self._of(layer, "bias") if layer.use_bias else z, training)

    def _Conv2D(self, layer: Any, x: torch.Tensor, training: bool) -> torch.Tensor:
        kernel = self._of(layer, "kernel").permute(3, 2, 0, 1).contiguous()
        return self._convolve(layer, x, kernel, layer.groups, training)

    def _DepthwiseConv2D(self, layer: Any, x: torch.Tensor, training: bool) -> torch.Tensor:
        kernel = self._of(layer, "kernel")
        height, width, channels, multiplier = kernel.shape
        kernel = kernel.permute(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width).contiguous()
        return self._convolve(layer, x, kernel, channels, training)

    def _convolve(self, layer: Any, x: torch.Tensor, kernel: Any, groups: int, training: bool) -> torch.Tensor:
        window = tuple(1 + (size - 1) * d for size, d in zip(kernel.shape[2:], layer.dilation_rate))
        x = _padded(x.permute(0, 3, 1, 2), window, layer.strides, layer.padding, 0.0)
        z = F.conv2d(x, kernel, self._of(layer, "bias"), layer.strides, 0, layer.dilation_rate, groups)
        return self.apply(layer.activation, z.permute(0, 2, 3, 1), training)

    def _BatchNorm(self, layer: Any, x: torch.Tensor, training: bool) -> torch.Tensor:
        mean, variance = self._of(layer, "moving_mean"), self._of(layer, "moving_variance")
        assert mean is not None
        assert variance is not None
        if training and layer.trainable:
            axes = tuple(range(x.ndim - 1))
            batch_mean, batch_variance = x.mean(axes), x.var(axes, unbiased=False)
            for moving, value in ((mean, batch_mean), (variance, batch_variance)):
                moving.mul_(layer.momentum).add_((1 - layer.momentum) * value.detach())
            mean, variance = batch_mean, batch_variance
        y = (x - mean) / torch.sqrt(variance + layer.epsilon)
        y = y * self._of(layer, "gamma") if layer.scale else y
        return y + self._of(layer, "beta") if layer.center else y

    def _MaxPool(self, layer: Any, x: torch.Tensor, training: bool) -> torch.Tensor:
        x = _padded(x.permute(0, 3, 1, 2), layer.pool_size, layer.strides, layer.padding, -math.inf)
        return F.max_pool2d(x, layer.pool_size, layer.strides).permute(0, 2, 3, 1)

    def _AveragePool(self, layer: Any, x: torch.Tensor, training: bool) -> torch.Tensor:
        x = x.permute(0, 3, 1, 2)
        total, pixels = (
            F.avg_pool2d(_padded(values, layer.pool_size, layer.strides, layer.padding, 0.0), layer.pool_size,
                         layer.strides) for values in (x, torch.ones_like(x))
        )
        return (total / pixels).permute(0, 2, 3, 1)

    def _GlobalMaxPool(self, layer: Any, x: torch.Tensor, training: bool) -> torch.Tensor:
        n, _, _, channels = x.shape
        # Not amax, which shares the gradient among equal values.
        y = F.max_pool2d(x.permute(0, 3, 1, 2), x.shape[1:3]).permute(0, 2, 3, 1)
        return y if layer.keepdims else y.reshape(n, channels)

    def _GlobalAveragePool(self, layer: Any, x: torch.Tensor, training: bool) -> torch.Tensor:
        return x.mean((1, 2), keepdim=layer.keepdims)

    def _Flatten(self, layer: Any, x: torch.Tensor, training: bool) -> torch.Tensor:
        return x.reshape(len(x), -1)

    def _Reshape(self, layer: Any, x: torch.Tensor, training: bool) -> torch.Tensor:
        return x.reshape(len(x), *layer.target_shape)

    def _Rescaling(self, layer: Any, x: torch.Tensor, training: bool) -> torch.Tensor:
        return x * torch.tensor(layer.scale) + torch.tensor(layer.offset)

    def _ZeroPadding2D(self, layer: Any, x: torch.Tensor, training: bool) -> torch.Tensor:
        (top, bottom), (left, right) = layer.padding
        return F.pad(x, (0, 0, left, right, top, bottom))

    def _Dropout(self, layer: Any, x: torch.Tensor, training: bool) -> torch.Tensor:
        if not training or layer.rate == 0:
            return x
        # The mask that the layer is about to draw, from a layer of the library's own in the same state.
        kind = layers.SpatialDropout2D if isinstance(layer, layers.SpatialDropout2D) else layers.Dropout
        twin = kind(layer.rate, dtype=layer.dtype)
        twin.random.state = self.random[id(layer)]
        mask = twin.draw_mask(np.ones(tuple(x.shape), layer.dtype))
        return x * torch.tensor(np.array(mask, np.float64))


def _padded(x: torch.Tensor, window: Any, strides: Any, padding: str, value: float) -> torch.Tensor:
    """Return images (N, C, H, W) with what "same" puts around them."""
    if padding == "valid":
        return x
    sides = []
    for size, length, stride in zip(x.shape[2:], window, strides):
        missing = max(0, (-(-size // stride) - 1) * stride + length - size)
        sides.append((missing // 2, missing - missing // 2))
    return F.pad(x, (*sides[1], *sides[0]), value=value)


def _relu(layer: Any, x: torch.Tensor) -> torch.Tensor:
    below = layer.negative_slope * (x - layer.threshold)
    y = torch.where(x > layer.threshold, x, below)
    return y if layer.max_value is None else torch.clamp(y, max=layer.max_value)


ACTIVATIONS: dict[type, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    layers.Linear: lambda layer, x: x,
    layers.ReLU: _relu,
    layers.LeakyReLU: lambda layer, x: torch.where(x > 0, x, layer.negative_slope * x),
    layers.ELU: lambda layer, x: torch.where(x > 0, x, layer.alpha * torch.expm1(torch.clamp(x, max=0))),
    layers.GELU: lambda layer, x: F.gelu(x, approximate="tanh" if layer.approximate else "none"),
    layers.SiLU: lambda layer, x: F.silu(x),
    layers.Sigmoid: lambda layer, x: torch.sigmoid(x),
    layers.Tanh: lambda layer, x: torch.tanh(x),
    layers.Softplus: lambda layer, x: torch.logaddexp(x, torch.zeros_like(x)),  # F.softplus(1000, threshold=inf) is inf
    layers.Softmax: lambda layer, x: torch.softmax(x, -1),
    layers.LogSoftmax: lambda layer, x: torch.log_softmax(x, -1),
}
