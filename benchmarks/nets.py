"""The networks to train and to run, as plain data from which every library builds its own model."""

import math
from typing import NamedTuple

DROPOUT = 0.5
LEAKY_RELU = ("leaky relu", 0.3)


class Net(NamedTuple):
    """The shape of a sample, the batch size, and a stack of layers, each a tuple of its kind and arguments."""

    input_shape: tuple
    batch: int
    layers: list


def conv(filters, size, padding="valid", bias=True, strides=1):
    return ("conv", filters, size, padding, bias, strides)


def depthwise(size, padding="valid", bias=True):
    return ("depthwise", size, padding, bias)


def pool(size, strides=None, padding="valid"):
    return ("pool", size, strides or size, padding)


def dense(units, bias=True):
    return ("dense", units, bias)


def residual(body, shortcut=()):
    """Return the sum of a stack of layers and a shortcut around it: the identity, or another stack."""
    return ("residual", body, list(shortcut))


def normalised(layer, activation=("relu",)):
    return [layer, ("batchnorm",), activation]


def w1(size=28, filters=32, batch=128):
    return Net((size, size, 1), batch, [
        conv(filters, 3), ("relu",), pool(2),
        conv(2 * filters, 3), ("relu",), pool(2),
        ("flatten",), ("dropout",), dense(10),
    ])


def basic_block(filters, strides, projects):
    """Return a block of ResNet-18, with a projection shortcut where the body changes the shape."""
    body = [*normalised(conv(filters, 3, "same", bias=False, strides=strides)),
            conv(filters, 3, "same", bias=False), ("batchnorm",)]
    projection = [conv(filters, 1, "same", bias=False, strides=strides), ("batchnorm",)]
    return [residual(body, projection if projects else ()), ("relu",)]


def resnet18(size=224, filters=64, classes=1000):
    """Return the network of He, Zhang, Ren and Sun, "Deep residual learning for image recognition", arXiv:1512.03385.

    Padding is "same" as each library defines it, so with a stride of 2 the odd pixel is not on the same side in all.
    """
    return Net((size, size, 3), 8, [
        *normalised(conv(filters, 7, "same", bias=False, strides=2)), pool(3, 2, "same"),
        *(layer for stage in range(4) for block in range(2)
          for layer in basic_block(filters * 2**stage, 2 if stage and not block else 1, projects=stage and not block)),
        ("average",), dense(classes),
    ])


NETS = {
    "W1": w1(),
    "W2": Net((28, 28, 1), 128, [
        conv(32, 3), ("batchnorm",), ("relu",), pool(2),
        conv(64, 3), ("batchnorm",), ("relu",), pool(2),
        ("flatten",), dense(128), ("relu",), dense(10),
    ]),
    "W3": Net((28, 28, 1), 512, [
        conv(32, 5), ("relu",), conv(32, 5), ("relu",), ("batchnorm",), pool(2),
        conv(64, 3), ("relu",), conv(64, 3), ("relu",), ("batchnorm",), pool(2),
        ("flatten",), dense(10),
    ]),
    "LeNet-5": Net((28, 28, 1), 128, [
        conv(6, 5, "same"), ("relu",), pool(2),
        conv(16, 5), ("relu",), pool(2),
        ("flatten",), dense(120), ("relu",), dense(84), ("relu",), dense(10),
    ]),
    "MLP": Net((784,), 128, [dense(512), ("relu",), dense(512), ("relu",), dense(10)]),
    # An, Lee, Park, Yang and So, "An ensemble of simple convolutional neural network models for MNIST digit
    # recognition", arXiv:2008.10400: their network with 3x3 kernels.
    "M3": Net((28, 28, 1), 120, [
        *(layer for filters in range(32, 177, 16)
          for layer in [conv(filters, 3, bias=False), ("batchnorm",), ("relu",)]),
        ("flatten",), dense(10, bias=False), ("batchnorm",),
    ]),
    # VGG's pattern on small images.
    "V1": Net((32, 32, 3), 64, [
        *(layer for filters in (64, 128, 256)
          for layer in [*2 * [conv(filters, 3, "same"), ("relu",)], pool(2)]),
        ("flatten",), dense(256), ("relu",), dense(10),
    ]),
    # Few images, but large ones.
    "G1": Net((180, 180, 3), 4, [
        *(layer for filters in (32, 64, 128, 128) for layer in [conv(filters, 3, "same"), ("relu",), pool(2)]),
        ("flatten",), dense(64), ("relu",), dense(10),
    ]),
    # Alternating depthwise and 1x1 convolutions, as in MobileNet.
    "S1": Net((32, 32, 3), 32, [
        *normalised(conv(32, 3, "same")),
        *normalised(depthwise(3, "same")), *normalised(conv(64, 1, "same")), pool(2),
        *normalised(depthwise(3, "same")), *normalised(conv(128, 1, "same")), pool(2),
        *normalised(depthwise(3, "same"), LEAKY_RELU), *normalised(conv(128, 1, "same"), LEAKY_RELU),
        ("average",), dense(10),
    ]),
}

EVERY_NET = {**NETS, "ResNet-18": resnet18()}  # ResNet-18 belongs to the topic `large`


def training(net):
    """Return the job of one training step, as sent to the workers."""
    return {"kind": "train", "net": net, "batch": net.batch}


def inference(net, batch):
    return {"kind": "infer", "net": net, "batch": batch}


def net_of(job):
    """Return the network of a job, which reaches the worker as nested lists."""
    input_shape, batch, layers = job["net"]
    return Net(tuple(input_shape), batch, layers)


def stack(net, layers):
    """Return the layers of a network as objects; `layers` is a module with Keras's class names."""
    return objects(net.layers, layers)


def objects(stack, layers):
    makers = {
        "conv": lambda filters, size, padding, bias, strides: layers.Conv2D(
            filters, size, strides, padding=padding, use_bias=bias),
        "depthwise": lambda size, padding, bias: layers.DepthwiseConv2D(size, padding=padding, use_bias=bias),
        "relu": layers.ReLU,
        "leaky relu": layers.LeakyReLU,
        "pool": layers.MaxPool2D,
        "batchnorm": layers.BatchNormalization,
        "dropout": lambda: layers.Dropout(DROPOUT),
        "flatten": layers.Flatten,
        "average": layers.GlobalAveragePooling2D,
        "dense": lambda units, bias: layers.Dense(units, use_bias=bias),
        # cnnlite only; Keras has no such layer.
        "residual": lambda body, shortcut: layers.Residual(objects(body, layers), objects(shortcut, layers) or None),
    }
    return [makers[kind](*numbers) for kind, *numbers in stack]


def shapes(net):
    """Return [(layer, input shape, output shape), ...] without the batch axis."""
    return shapes_of(net.layers, net.input_shape)


def shapes_of(layers, shape):
    result = []
    for layer in layers:
        before = shape
        shape = shape_after(layer, shape)
        result.append((layer, before, shape))
    return result


def shape_after(layer, shape):
    kind, *numbers = layer
    if kind == "conv":
        filters, size, padding, _, strides = numbers
        return (*window_steps(shape, size, strides, padding), filters)
    if kind == "depthwise":
        size, padding, _ = numbers
        return (*window_steps(shape, size, 1, padding), shape[2])
    if kind == "pool":
        size, strides, padding = numbers
        return (*window_steps(shape, size, strides, padding), shape[2])
    if kind == "residual":
        return shapes_of(numbers[0], shape)[-1][2]
    if kind == "average":
        return shape[2:]
    if kind == "flatten":
        return (math.prod(shape),)
    if kind == "dense":
        return (numbers[0],)
    return shape


def window_steps(shape, size, strides, padding):
    """Return how many windows fit into an image, vertically and horizontally."""
    return tuple(-(-n // strides) if padding == "same" else (n - size) // strides + 1 for n in shape[:2])


def every_layer(shapes):
    """Yield layers and their shapes, with every residual replaced by the layers inside it."""
    for layer, before, after in shapes:
        if layer[0] == "residual":
            for branch in layer[1:]:
                yield from every_layer(shapes_of(branch, before))
        else:
            yield layer, before, after


def training_flops(net):
    """Return the additions and multiplications of all products with weights in one training step.

    A layer has three of equal size: forward, gradient of the weights, gradient of the input. The lowest
    layer doesn't need the last.
    """
    total, products = 0, 2
    for (kind, *numbers), before, after in every_layer(shapes(net)):
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
