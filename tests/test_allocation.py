"""A training step works in the memory of the step before: it allocates nothing above 64 KiB.

Fresh memory costs its first touch, about 1 ms for 11 MB, which is more than many a kernel. What is counted is what
NumPy and compiled code allocate, with one thread, as each has scratch of its own.
"""

import tracemalloc

import numpy as np
import pytest

import cnnlite
from cnnlite import layers, optimizers
from cnnlite.callbacks import Callback
from tests.kernels.drawn import compiled_kernels_needed, threads

pytestmark = compiled_kernels_needed

BATCH, SIDE, CLASSES = 256, 28, 10
LIMIT = 64 << 10
SMALLEST_ACTIVATION = BATCH * (SIDE // 2) ** 2 * 12 * 4  # pooled images of 12 channels; most are 4 times as large

NETS = {
    "BatchNorm, ReLU, MaxPool, Dropout, Flatten": lambda: [
        layers.Conv2D(16, 3, padding="same"), layers.BatchNorm(), layers.ReLU(), layers.MaxPool(),
        layers.Dropout(0.3), layers.Flatten(), layers.Dense(CLASSES, activation="softmax"),
    ],
    "two convolutions, AveragePool, SpatialDropout2D": lambda: [
        layers.Conv2D(16, 3, activation="relu"), layers.Conv2D(16, 3, padding="same", activation="relu"),
        layers.AveragePool(), layers.SpatialDropout2D(0.2), layers.GlobalAveragePool(),
        layers.Dense(CLASSES, activation="softmax"),
    ],
    "Rescaling, AveragePool, GlobalAveragePool": lambda: [
        layers.Rescaling(1 / 255), layers.Conv2D(12, 5, padding="same", activation="relu"), layers.AveragePool(),
        layers.GlobalAveragePool(), layers.Dense(CLASSES, activation="softmax"),
    ],
    "DepthwiseConv2D, GlobalMaxPool": lambda: [
        layers.Conv2D(12, 3, padding="same", activation="tanh"),
        layers.DepthwiseConv2D(3, padding="same", activation="gelu"), layers.MaxPool(3, strides=2, padding="same"),
        layers.GlobalMaxPool(), layers.Dropout(0.1), layers.Dense(CLASSES),
    ],
    "Residual": lambda: [
        layers.Residual([layers.Conv2D(16, 3, padding="same"), layers.BatchNorm()], layers.Conv2D(16, 1)),
        layers.ReLU(), layers.Residual([layers.Conv2D(16, 3, padding="same"), layers.ReLU()]),
        layers.GlobalAveragePool(), layers.Dense(CLASSES, activation="softmax"),
    ],
    "dense layers": lambda: [
        layers.Flatten(), layers.Dense(64, activation="sigmoid"), layers.Dropout(0.5), layers.Dense(64),
        layers.LeakyReLU(), layers.BatchNorm(), layers.Dense(CLASSES, activation="softmax"),
    ],
}


class Watch(Callback):
    """Note how much is allocated at one time, on top of what there is after step 2, in steps 3 to 6."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 2:
            tracemalloc.start()
        elif batch == 6:
            self.peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()


def peak(stack, dtype="float32", one_hot=False, optimizer="adam", **arguments):
    """Return the peak of a fit's steps 3 to 6, in bytes."""
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (7 * BATCH, SIDE, SIDE, 1)).astype(dtype)
    y = generator.integers(0, CLASSES, len(x))
    model = cnnlite.Sequential([cnnlite.Input(shape=x.shape[1:]), *stack()])
    loss = cnnlite.losses.SparseCategoricalCrossentropy(from_logits=model.output_activation == "linear")
    if one_hot:
        y, loss = np.eye(CLASSES, dtype="float32")[y], "categorical_crossentropy"
    model.compile(optimizer, loss, metrics=["accuracy"])
    watch = Watch()
    try:
        with threads(1):
            model.fit(x, y, batch_size=BATCH, verbose=0, callbacks=[watch], **arguments)
    finally:
        tracemalloc.stop()
    return watch.peak


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("net", NETS)
def test_a_step_allocates_nothing_of_the_size_of_its_activations(net, dtype):
    assert peak(NETS[net], dtype) < LIMIT


@pytest.mark.parametrize("arguments", [
    {"one_hot": True},
    {"shuffle": False},
    {"dtype": "float64"},
    {"sample_weight": [0.5] * 7 * BATCH},
    {"dtype": "uint8", "one_hot": True, "shuffle": False, "class_weight": dict.fromkeys(range(CLASSES), 1.0)},
], ids=lambda arguments: ", ".join(arguments))
def test_nor_does_it_for_another_form_of_the_data(arguments):
    assert peak(NETS["Rescaling, AveragePool, GlobalAveragePool"], **arguments) < LIMIT


@pytest.mark.parametrize("make", [
    lambda: "sgd",
    lambda: optimizers.SGD(momentum=0.9, nesterov=True, weight_decay=0.1),
    lambda: optimizers.RMSprop(centered=True, momentum=0.5),
    lambda: optimizers.Adam(amsgrad=True, clipnorm=1.0),
    lambda: optimizers.AdamW(global_clipnorm=1.0),
    lambda: optimizers.Adagrad(clipvalue=0.1),
])
def test_nor_do_the_optimizers_on_weights_of_200_kilobytes(make):
    assert peak(NETS["dense layers"], optimizer=make()) < LIMIT


class Fresh(layers.Layer):
    """Hands on what it gets, in an array of its own for each step."""

    def forward(self, x, training=False):
        return x.copy()

    def backward(self, dy):
        return dy


def test_a_layer_that_allocates_is_seen():
    stack = NETS["Rescaling, AveragePool, GlobalAveragePool"]
    assert peak(lambda: [*stack()[:3], Fresh(), *stack()[3:]]) > SMALLEST_ACTIVATION > LIMIT
