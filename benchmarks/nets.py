"""What is trained and asked: networks as plain data, from which every library builds its own."""

from typing import NamedTuple

DROPOUT = 0.5
LEAKY_RELU = ("leaky relu", 0.3)


class Net(NamedTuple):
    """The shape of a sample, the batch to train with, and a stack of layers, each a tuple of its kind and numbers."""

    input_shape: tuple
    batch: int
    layers: list


def conv(filters, size, padding="valid", bias=True):
    return ("conv", filters, size, padding, bias)


def depthwise(size, padding="valid", bias=True):
    return ("depthwise", size, padding, bias)


def dense(units, bias=True):
    return ("dense", units, bias)


def normalised(layer, activation=("relu",)):
    return [layer, ("batchnorm",), activation]


def w1(size=28, filters=32, batch=128):
    return Net((size, size, 1), batch, [
        conv(filters, 3), ("relu",), ("pool", 2),
        conv(2 * filters, 3), ("relu",), ("pool", 2),
        ("flatten",), ("dropout",), dense(10),
    ])


NETS = {
    "W1": w1(),
    "W2": Net((28, 28, 1), 128, [
        conv(32, 3), ("batchnorm",), ("relu",), ("pool", 2),
        conv(64, 3), ("batchnorm",), ("relu",), ("pool", 2),
        ("flatten",), dense(128), ("relu",), dense(10),
    ]),
    "W3": Net((28, 28, 1), 512, [
        conv(32, 5), ("relu",), conv(32, 5), ("relu",), ("batchnorm",), ("pool", 2),
        conv(64, 3), ("relu",), conv(64, 3), ("relu",), ("batchnorm",), ("pool", 2),
        ("flatten",), dense(10),
    ]),
    "LeNet-5": Net((28, 28, 1), 128, [
        conv(6, 5, "same"), ("relu",), ("pool", 2),
        conv(16, 5), ("relu",), ("pool", 2),
        ("flatten",), dense(120), ("relu",), dense(84), ("relu",), dense(10),
    ]),
    "MLP": Net((784,), 128, [dense(512), ("relu",), dense(512), ("relu",), dense(10)]),
    # An, Lee, Park, Yang and So, "An ensemble of simple convolutional neural network models for MNIST digit
    # recognition", arXiv:2008.10400: the one of their networks with 3x3 kernels.
    "M3": Net((28, 28, 1), 120, [
        *(layer for filters in range(32, 177, 16)
          for layer in [conv(filters, 3, bias=False), ("batchnorm",), ("relu",)]),
        ("flatten",), dense(10, bias=False), ("batchnorm",),
    ]),
    # VGG's pattern on small images.
    "V1": Net((32, 32, 3), 64, [
        *(layer for filters in (64, 128, 256)
          for layer in [*2 * [conv(filters, 3, "same"), ("relu",)], ("pool", 2)]),
        ("flatten",), dense(256), ("relu",), dense(10),
    ]),
    # Few images, but large ones.
    "G1": Net((180, 180, 3), 4, [
        *(layer for filters in (32, 64, 128, 128) for layer in [conv(filters, 3, "same"), ("relu",), ("pool", 2)]),
        ("flatten",), dense(64), ("relu",), dense(10),
    ]),
    # Depthwise and 1x1 convolutions in turns, as in a MobileNet.
    "S1": Net((32, 32, 3), 32, [
        *normalised(conv(32, 3, "same")),
        *normalised(depthwise(3, "same")), *normalised(conv(64, 1, "same")), ("pool", 2),
        *normalised(depthwise(3, "same")), *normalised(conv(128, 1, "same")), ("pool", 2),
        *normalised(depthwise(3, "same"), LEAKY_RELU), *normalised(conv(128, 1, "same"), LEAKY_RELU),
        ("average",), dense(10),
    ]),
}


def training(net):
    """Return the job of one training step, as it goes to the workers."""
    return {"kind": "train", "net": net, "batch": net.batch}


def inference(net, batch):
    return {"kind": "infer", "net": net, "batch": batch}


def net_of(job):
    """Return the network of a job, which has come to a worker as lists."""
    input_shape, batch, layers = job["net"]
    return Net(tuple(input_shape), batch, layers)


def stack(net, layers):
    """Return the layers of a network as objects; `layers` is a module that speaks Keras's language."""
    makers = {
        "conv": lambda filters, size, padding, bias: layers.Conv2D(filters, size, padding=padding, use_bias=bias),
        "depthwise": lambda size, padding, bias: layers.DepthwiseConv2D(size, padding=padding, use_bias=bias),
        "relu": layers.ReLU,
        "leaky relu": layers.LeakyReLU,
        "pool": layers.MaxPool2D,
        "batchnorm": layers.BatchNormalization,
        "dropout": lambda: layers.Dropout(DROPOUT),
        "flatten": layers.Flatten,
        "average": layers.GlobalAveragePooling2D,
        "dense": lambda units, bias: layers.Dense(units, use_bias=bias),
    }
    return [makers[kind](*numbers) for kind, *numbers in net.layers]


def shapes(net):
    """Return [(layer, shape of its input, shape of its output), ...] without the batch axis."""
    result, shape = [], net.input_shape
    for layer in net.layers:
        kind, *numbers = layer
        before = shape
        if kind == "conv":
            filters, size, padding, _ = numbers
            shrinks = size - 1 if padding == "valid" else 0
            shape = (shape[0] - shrinks, shape[1] - shrinks, filters)
        elif kind == "depthwise":
            size, padding, _ = numbers
            shrinks = size - 1 if padding == "valid" else 0
            shape = (shape[0] - shrinks, shape[1] - shrinks, shape[2])
        elif kind == "pool":
            shape = (shape[0] // numbers[0], shape[1] // numbers[0], shape[2])
        elif kind == "average":
            shape = shape[2:]
        elif kind == "flatten":
            shape = (shape[0] * shape[1] * shape[2],)
        elif kind == "dense":
            shape = (numbers[0],)
        result.append((layer, before, shape))
    return result


def training_flops(net):
    """Return how many additions and multiplications the products with weights of one training step take.

    A layer has three of one size: forward, gradient of the weights, gradient of the input. Nobody needs
    the last one of the lowest layer.
    """
    total, products = 0, 2
    for (kind, *numbers), before, after in shapes(net):
        if kind == "conv":
            filters, size, *_ = numbers
            total += products * 2 * net.batch * after[0] * after[1] * filters * size * size * before[2]
            products = 3
        elif kind == "depthwise":
            total += products * 2 * net.batch * after[0] * after[1] * after[2] * numbers[0] ** 2
            products = 3
        elif kind == "dense":
            total += products * 2 * net.batch * before[0] * after[0]
            products = 3
    return total
