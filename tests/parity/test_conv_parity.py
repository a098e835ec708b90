"""Convolutions, Dense and whole small models against PyTorch and Keras: values, gradients and training."""

import numpy as np
import pytest

import cnnlite
from cnnlite import layers

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("same_weights_in_every_run")]
torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")

RNG = np.random.default_rng
EPSILON = {"float32": 1e-5, "float64": 1e-12}

# kernel_size, strides, padding, dilation_rate, groups
CASES = [
    (3, 1, "valid", 1, 1),
    (3, 1, "same", 1, 1),
    ((2, 3), 1, "same", 1, 1),
    ((5, 10), 1, "same", 1, 1),
    (4, 2, "same", 1, 1),
    ((4, 3), (2, 1), "valid", 1, 2),
    (2, 3, "valid", 1, 1),
    (1, 2, "same", 1, 2),
    (2, 1, "same", (2, 3), 2),
    (3, 1, "valid", (1, 2), 1),
]


def normal(shape, dtype="float32", seed=0):
    return RNG(seed).normal(size=shape).astype(dtype)


def assert_close(mine, theirs, epsilon):
    """Assert that two arrays differ by at most `epsilon` of the largest number in them.

    A sum that cancels to 0 (the gradient of the bias before a softmax) has no size to relate to; there both
    sides must be nothing but rounding.
    """
    theirs = theirs.detach().numpy() if hasattr(theirs, "detach") else np.asarray(theirs)
    assert mine.shape == theirs.shape
    assert mine.dtype == theirs.dtype
    size = np.abs(theirs).max()
    if size < 1e-6:
        assert np.abs(mine).max() < 1e-6
    else:
        assert np.abs(mine - theirs).max() <= epsilon * size


def in_torch(x, kernel, bias, strides, pads, dilation, groups):
    """Return the convolution of (N, H, W, C) tensors by torch, which wants (N, C, H, W) and (F, C, KH, KW)."""
    (top, bottom), (left, right) = pads
    image = torch.nn.functional.pad(x.permute(0, 3, 1, 2), (left, right, top, bottom))
    y = torch.nn.functional.conv2d(image, kernel.permute(3, 2, 0, 1), bias, strides, 0, dilation, groups)
    return y.permute(0, 2, 3, 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("kernel_size", "strides", "padding", "dilation_rate", "groups"), CASES)
def test_conv2d_is_that_of_pytorch(kernel_size, strides, padding, dilation_rate, groups, dtype):
    layer = layers.Conv2D(6, kernel_size, strides, padding, None, dilation_rate, groups, "tanh",
                          bias_initializer="random_normal", dtype=dtype)
    compare_with_torch(layer, normal((2, 9, 20, 4), dtype), groups, lambda kernel: kernel)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("kernel_size", "channels", "filters"), [
    (3, 16, 64), (3, 64, 33), (5, 17, 32), (5, 64, 64), (2, 32, 17), (4, 19, 48),
])
def test_conv2d_with_many_channels_is_that_of_pytorch(kernel_size, channels, filters, padding, dtype):
    """These go by Winograd's method."""
    layer = layers.Conv2D(filters, kernel_size, padding=padding, activation="tanh", bias_initializer="random_normal",
                          dtype=dtype)
    compare_with_torch(layer, normal((17, 13, 12, channels), dtype), 1, lambda kernel: kernel)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("kernel_size", "strides", "padding", "dilation_rate"), [case[:4] for case in CASES])
def test_depthwise_conv2d_is_that_of_pytorch(kernel_size, strides, padding, dilation_rate, dtype):
    layer = layers.DepthwiseConv2D(kernel_size, strides, padding, 2, None, dilation_rate, "tanh",
                                   bias_initializer="random_normal", dtype=dtype)
    compare_with_torch(layer, normal((2, 9, 20, 4), dtype), 4, lambda kernel: kernel.reshape(*kernel.shape[:2], 1, 8))


def compare_with_torch(layer, x, groups, as_grouped):
    y = layer(x, training=True)
    dy = normal(y.shape, x.dtype, seed=1)
    dx = layer.backward(dy)
    tensors = [torch.tensor(array, requires_grad=True) for array in (x, *layer.weights)]
    theirs = torch.tanh(in_torch(tensors[0], as_grouped(tensors[1]), tensors[2], *layer.geometry(x.shape), groups))
    theirs.backward(torch.tensor(dy))
    epsilon = EPSILON[x.dtype.name]
    assert_close(y, theirs, epsilon)
    for mine, tensor in zip((dx, *layer.grads.values()), tensors):
        assert_close(mine, tensor.grad, epsilon)


def compare_with_keras(mine, theirs, x):
    """Give a layer of Keras the weights of mine, and compare values and gradients."""
    y = mine(x, training=True)
    dy = normal(y.shape, seed=1)
    dx = mine.backward(dy)
    theirs.build(x.shape)
    theirs.set_weights(mine.get_weights())
    tensor = torch.tensor(x, requires_grad=True)
    reference = theirs(tensor)
    reference.backward(torch.tensor(dy))
    assert mine.compute_output_shape(x.shape) == tuple(theirs.compute_output_shape(x.shape))
    assert_close(y, reference, 1e-5)
    assert_close(dx, tensor.grad, 1e-5)
    for gradient, weight in zip(mine.grads.values(), theirs.trainable_weights):
        assert_close(gradient, weight.value.grad, 1e-5)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize(("kernel_size", "strides", "padding", "dilation_rate", "groups"), CASES)
def test_conv2d_is_that_of_keras(kernel_size, strides, padding, dilation_rate, groups, data_format):
    arguments = {
        "filters": 6, "kernel_size": kernel_size, "strides": strides, "padding": padding, "groups": groups,
        "dilation_rate": dilation_rate, "data_format": data_format, "activation": "tanh",
        "bias_initializer": "random_normal",
    }
    x = normal((2, 11, 20, 4) if data_format == "channels_last" else (2, 4, 11, 20))
    compare_with_keras(layers.Conv2D(**arguments), keras.layers.Conv2D(**arguments), x)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize(("strides", "padding", "dilation_rate"), [
    (1, "valid", 1), (1, "same", 1), (2, "same", 1), (1, "same", 2),
])
def test_depthwise_conv2d_is_that_of_keras(strides, padding, dilation_rate, data_format):
    arguments = {
        "kernel_size": (2, 3), "strides": strides, "padding": padding, "depth_multiplier": 2,
        "dilation_rate": dilation_rate, "data_format": data_format, "activation": "sigmoid",
        "bias_initializer": "random_normal",
    }
    x = normal((2, 9, 8, 3) if data_format == "channels_last" else (2, 3, 9, 8))
    compare_with_keras(layers.DepthwiseConv2D(**arguments), keras.layers.DepthwiseConv2D(**arguments), x)


@pytest.mark.parametrize("activation", [None, "relu", "tanh", "sigmoid", "softmax", "gelu", "silu", "elu", "softplus"])
@pytest.mark.parametrize("use_bias", [True, False])
def test_dense_is_that_of_keras(activation, use_bias):
    arguments = {"units": 7, "activation": activation, "use_bias": use_bias, "bias_initializer": "random_normal"}
    compare_with_keras(layers.Dense(**arguments), keras.layers.Dense(**arguments), normal((4, 3, 5)))


@pytest.mark.parametrize("activation", ["relu", "softmax", "gelu", "leaky_relu", "log_softmax"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_the_activation_of_a_convolution_is_that_of_keras(activation, data_format):
    arguments = {"filters": 5, "kernel_size": 3, "activation": activation, "data_format": data_format}
    compare_with_keras(layers.Conv2D(**arguments), keras.layers.Conv2D(**arguments), normal((2, 6, 7, 6)))


# Whole models.


def stack(library, sequential):
    """Return the same small network from either library."""
    return sequential([
        library.Input(shape=(12, 10, 2)) if library is keras else cnnlite.Input(shape=(12, 10, 2)),
        library.layers.Conv2D(6, 3, padding="same", use_bias=False),
        library.layers.BatchNormalization(),
        library.layers.ReLU(),
        library.layers.MaxPooling2D(),
        library.layers.Conv2D(8, (3, 2), strides=2, padding="same", activation="relu"),
        library.layers.Flatten(),
        library.layers.Dense(5, activation="softmax"),
    ])


def data(n=16):
    return normal((n, 12, 10, 2), seed=2), RNG(3).integers(5, size=n)


def pair_of_models():
    cnnlite.utils.set_random_seed(0)
    mine, theirs = stack(cnnlite, cnnlite.Sequential), stack(keras, keras.Sequential)
    theirs.set_weights(mine.get_weights())
    return mine, theirs


def test_a_small_model_has_the_loss_and_the_gradients_of_keras():
    mine, theirs = pair_of_models()
    x, y = data()
    loss = cnnlite.losses.SparseCategoricalCrossentropy()
    y_pred = mine.forward(x, training=True)
    mine.backward(loss.backward(y, y_pred))
    reference = keras.losses.SparseCategoricalCrossentropy()(y, theirs(torch.tensor(x), training=True))
    reference.backward()
    assert loss(y, y_pred) == pytest.approx(reference.item(), rel=1e-5)
    for gradient, weight in zip(mine.grads.values(), theirs.trainable_weights):
        assert_close(gradient, weight.value.grad, 2e-5)


@pytest.mark.parametrize(("name", "arguments"), [("SGD", {"learning_rate": 0.05, "momentum": 0.9}),
                                                 ("Adam", {"learning_rate": 0.003})])
def test_five_steps_of_training_are_those_of_keras(name, arguments):
    mine, theirs = pair_of_models()
    x, y = data()
    mine.compile(getattr(cnnlite.optimizers, name)(**arguments), "sparse_categorical_crossentropy")
    theirs.compile(getattr(keras.optimizers, name)(**arguments), "sparse_categorical_crossentropy")
    for _ in range(5):
        assert mine.train_on_batch(x, y) == pytest.approx(float(theirs.train_on_batch(x, y)), rel=1e-4)
    for array, reference in zip(mine.get_weights(), theirs.get_weights()):
        np.testing.assert_allclose(array, reference, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(mine.predict(x, verbose=0), theirs.predict(x, verbose=0), atol=1e-4)


class Torch(torch.nn.Module):
    """The same network in PyTorch, on images (N, C, H, W)."""

    def __init__(self, weights):
        super().__init__()
        first, gamma, beta, _, _, second, bias, kernel, top_bias = [torch.tensor(array) for array in weights]
        self.conv_1 = torch.nn.Conv2d(2, 6, 3, padding=1, bias=False)
        # PyTorch's momentum is what is new, not what is kept.
        self.norm = torch.nn.BatchNorm2d(6, eps=1e-3, momentum=0.01)
        self.conv_2 = torch.nn.Conv2d(6, 8, (3, 2), stride=2)
        self.top = torch.nn.Linear(8 * 3 * 3, 5)
        with torch.no_grad():
            self.conv_1.weight.copy_(first.permute(3, 2, 0, 1))
            self.norm.weight.copy_(gamma)
            self.norm.bias.copy_(beta)
            self.conv_2.weight.copy_(second.permute(3, 2, 0, 1))
            self.conv_2.bias.copy_(bias)
            self.top.weight.copy_(kernel.T)
            self.top.bias.copy_(top_bias)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv_1(x.permute(0, 3, 1, 2))))
        x = torch.nn.functional.max_pool2d(x, 2)
        x = torch.nn.functional.pad(x, (0, 1, 0, 1))  # (6, 5) to (3, 3) at stride 2: 1 row and 1 column too few
        x = torch.relu(self.conv_2(x))
        return self.top(x.permute(0, 2, 3, 1).flatten(1))

    def gradients(self):
        """Return them in the order and the form of cnnlite."""
        grads = [parameter.grad for parameter in self.parameters()]
        for i in (0, 3):
            grads[i] = grads[i].permute(2, 3, 1, 0)
        grads[5] = grads[5].T
        return grads


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_loss_gradients_and_five_steps_are_those_of_pytorch(name):
    cnnlite.utils.set_random_seed(0)
    mine = stack(cnnlite, cnnlite.Sequential)
    theirs = Torch(mine.get_weights())
    x, y = data()
    if name == "SGD":
        mine.compile(cnnlite.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy")
        optimizer = torch.optim.SGD(theirs.parameters(), 0.05, momentum=0.9)
    else:
        mine.compile(cnnlite.optimizers.Adam(0.003, epsilon=1e-8), "sparse_categorical_crossentropy")
        optimizer = torch.optim.Adam(theirs.parameters(), 0.003, eps=1e-8)
    for step in range(5):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(theirs(torch.tensor(x)), torch.tensor(y))
        loss.backward()
        assert mine.train_on_batch(x, y) == pytest.approx(loss.item(), rel=1e-5 if step == 0 else 1e-4)
        if step == 0:
            for gradient, reference in zip(mine.grads.values(), theirs.gradients()):
                assert_close(gradient, reference, 2e-5)
        optimizer.step()
