"""Memory that is used again and given back: the short form of tests/stress/test_memory.py."""

import gc
import weakref

import numpy as np
import pytest

import cnnlite
from cnnlite import layers, passes
from tests.fused import plans_of
from tests.kernels.drawn import compiled_kernels_needed
from tests.stress.growth import assert_no_growth
from tests.stress.memory import SIZE, make_data, make_model, memory_of

pytestmark = compiled_kernels_needed


@pytest.mark.parametrize(("way", "rounds", "steps"), [("fit", 4, 100), ("predict", 4, 200), ("delete", 4, 1)])
def test_no_memory_is_lost(way, rounds, steps):
    assert_no_growth(way, rounds, steps)


def test_memory_is_as_large_as_the_largest_batch_needs_and_gone_after_a_fit():
    x, y = make_data(32)
    model, largest = make_model(), make_model()
    largest.train_on_batch(x, y)
    for size in (3, 32, 1, 17, 32):
        model.train_on_batch(x[:size], y[:size])
    assert memory_of(model) == memory_of(largest) > 0
    model.fit(x, y, batch_size=8, verbose=0)
    assert memory_of(model) == 0


def test_what_is_made_of_weights_is_kept_once_for_each_plan_however_many_sizes_of_images_there_were():
    model = cnnlite.Sequential([layers.Conv2D(3, 3, padding="same", input_shape=(None, None, 1))])
    images = [np.random.default_rng(size).normal(size=(1, 4, size, 1)).astype("f4") for size in range(3, 30)]
    first = [model.predict(image, verbose=0) for image in images]
    plans = [made.plan for made in plans_of(model).values()]
    assert len(plans) == passes.PLANS_KEPT
    for _ in range(5):
        model.layers[0].kernel[...] *= 1
        model.predict(images[-1], verbose=0)
    assert [made.plan for made in plans_of(model).values()] == plans
    assert all(plan._snapshot.workspace is not None for plan in plans)
    for image, y in zip(reversed(images), reversed(first)):
        np.testing.assert_array_equal(model.predict(image, verbose=0), y)


def test_an_error_in_a_step_keeps_no_model_alive():
    x, y = make_data(8)

    class Fails(layers.Layer):
        def forward(self, x, training=False):
            if training:
                raise ArithmeticError
            return x

        def backward(self, dy):
            return dy

    def fails():
        model = cnnlite.Sequential([cnnlite.Input(shape=(SIZE, SIZE, 1)), layers.Conv2D(4, 3), Fails(),
                                    layers.Flatten(), layers.Dense(10)])
        model.compile("adam", "mse")
        with pytest.raises(ArithmeticError):
            model.fit(x, np.eye(10)[y], verbose=0)
        return [weakref.ref(thing) for thing in (model, *model.walk())]

    references = fails()
    gc.collect()
    assert all(reference() is None for reference in references)
