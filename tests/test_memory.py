"""Memory that is used again and given back: the short form of tests/stress/test_memory.py."""

import gc
import weakref

import numpy as np
import pytest

import cnnlite
from cnnlite import layers
from cnnlite.model.passes import PLANS_KEPT
from tests.helpers.fused import memory_in_use
from tests.kernels.drawn import compiled_kernels_needed
from tests.stress.growth import assert_no_growth
from tests.stress.memory import SIZE, make_data, make_model, plans_of, workspaces_of

pytestmark = compiled_kernels_needed


@pytest.mark.parametrize(("way", "rounds", "steps"), [("fit", 4, 100), ("predict", 4, 200), ("images", 4, 256),
                                                      ("delete", 4, 1)])
def test_no_memory_is_lost(way, rounds, steps):
    assert_no_growth(way, rounds, steps)


def test_a_workspace_is_as_large_as_the_largest_batch_needs_and_gone_after_a_fit():
    x, y = make_data(32)
    model, largest = make_model(), make_model()
    largest.train_on_batch(x, y)
    for size in (3, 32, 1, 17, 32):
        model.train_on_batch(x[:size], y[:size])
    assert workspaces_of(model) == workspaces_of(largest) > 0
    model.fit(x, y, batch_size=8, verbose=0)
    assert workspaces_of(model) == 0


@pytest.mark.parametrize("step", ["train_on_batch", "a pass by hand"])
def test_steps_with_images_of_different_sizes_work_in_the_same_memory(step):
    def there_and_back(model, x, y):
        if step == "train_on_batch":
            return model.train_on_batch(x, y)
        return model.backward(model(x, training=True))

    x, y = np.zeros((16, 20, 20, 3), "f4"), np.zeros((16, 4), "f4")
    found = []
    for sizes in (range(8, 20), [19]):
        before = memory_in_use()
        model = cnnlite.Sequential([layers.Conv2D(8, 3), layers.BatchNorm(), layers.GlobalAveragePool(),
                                    layers.Dense(4)])
        model.compile("sgd", "mse")
        for size in sizes:
            there_and_back(model, x[:, :size], y)
        found.append(memory_in_use() - before)
        del model
    for_all, for_the_largest = found
    assert for_the_largest > 1e5
    assert for_all == pytest.approx(for_the_largest, rel=0.1)


def test_no_batch_is_held_on_to_after_a_fit():
    class OfTheUsers(cnnlite.losses.MeanSquaredError):
        """The passes over the layers have a plan, and the step is Python's."""

    for loss in "mse", OfTheUsers():
        model = make_model()
        model.compile("sgd", loss)
        for _ in range(2):
            x, y = make_data(8)[0], np.zeros((8, 10), "f4")
            given = weakref.ref(x), weakref.ref(y)
            model.fit(x, y, verbose=0)
            del x, y
            gc.collect()
            assert [reference() for reference in given] == [None, None]
        with pytest.raises(ValueError, match="needs a forward pass in training mode"):
            model.backward(np.zeros((8, 10), "f4"))


def test_few_plans_are_kept_however_many_sizes_of_images_there_were():
    model = cnnlite.Sequential([layers.Conv2D(3, 3, padding="same", input_shape=(None, None, 1))])
    images = [np.random.default_rng(size).normal(size=(1, 4, size, 1)).astype("f4") for size in range(3, 30)]
    first = [model.predict(image, verbose=0) for image in images]
    assert len(plans_of(model)) == PLANS_KEPT < len(images)
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
