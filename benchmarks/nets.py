"""What is measured: networks and convolutions as plain data, from which every library builds its own."""

from typing import NamedTuple

DROPOUT = 0.5


class Net(NamedTuple):
    """A stack of layers, each a tuple of its kind and numbers, the shape of a sample, and the batch to train with."""

    input_shape: tuple
    batch: int
    layers: list


# conv: filters, size, "valid" or "same"; pool: size; dense: units. All convolutions and dense layers have a bias.
NETS = {
    "W1": Net((28, 28, 1), 128, [
        ("conv", 32, 3, "valid"), ("relu",), ("pool", 2),
        ("conv", 64, 3, "valid"), ("relu",), ("pool", 2),
        ("flatten",), ("dropout",), ("dense", 10),
    ]),
    "W2": Net((28, 28, 1), 128, [
        ("conv", 32, 3, "valid"), ("batchnorm",), ("relu",), ("pool", 2),
        ("conv", 64, 3, "valid"), ("batchnorm",), ("relu",), ("pool", 2),
        ("flatten",), ("dense", 128), ("relu",), ("dense", 10),
    ]),
    "LeNet-5": Net((28, 28, 1), 128, [
        ("conv", 6, 5, "same"), ("relu",), ("pool", 2),
        ("conv", 16, 5, "valid"), ("relu",), ("pool", 2),
        ("flatten",), ("dense", 120), ("relu",), ("dense", 84), ("relu",), ("dense", 10),
    ]),
    "MLP": Net((784,), 128, [("dense", 512), ("relu",), ("dense", 512), ("relu",), ("dense", 10)]),
}

# N, H = W, C, F, K; stride 1, no padding.
CONVOLUTIONS = [
    (128, 28, 1, 32, 3),
    (128, 13, 32, 64, 3),
    (128, 24, 32, 32, 5),
    (128, 10, 32, 64, 3),
    (128, 8, 64, 64, 3),
]
DIRECTIONS = ["forward", "kernel gradient", "input gradient"]


def shapes(net):
    """Return [(layer, shape of its input, shape of its output), ...] without the batch axis."""
    result, shape = [], net.input_shape
    for layer in net.layers:
        kind, *numbers = layer
        before = shape
        if kind == "conv":
            filters, size, padding = numbers
            shrinks = size - 1 if padding == "valid" else 0
            shape = (shape[0] - shrinks, shape[1] - shrinks, filters)
        elif kind == "pool":
            shape = (shape[0] // numbers[0], shape[1] // numbers[0], shape[2])
        elif kind == "flatten":
            shape = (shape[0] * shape[1] * shape[2],)
        elif kind == "dense":
            shape = (numbers[0],)
        result.append((layer, before, shape))
    return result


def training_flops(net):
    """Return how many additions and multiplications the matrix products of one training step take.

    A layer has three of one size: forward, gradient of the weights, gradient of the input. Nobody needs
    the last one of the lowest layer.
    """
    total, products = 0, 2
    for (kind, *numbers), before, after in shapes(net):
        if kind == "conv":
            filters, size, _ = numbers
            total += products * 2 * net.batch * after[0] * after[1] * filters * size * size * before[2]
            products = 3
        elif kind == "dense":
            total += products * 2 * net.batch * before[0] * after[0]
            products = 3
    return total
