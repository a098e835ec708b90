"""Models of many layers: the cost of making, saving and loading one is linear in their number, not quadratic."""

import sys

import numpy as np
import pytest

import cnnlite
from cnnlite import layers

FEW, MANY = 60, 240


def lines_run(function):
    """Return the number of lines of Python that a call executes."""
    count = 0

    def count_lines(frame, event, argument):
        nonlocal count
        count += event == "line"
        return count_lines

    before = sys.gettrace()
    sys.settrace(count_lines)
    try:
        function()
    finally:
        sys.settrace(before)
    return count


def stack(number):
    return [cnnlite.Input((3,)), layers.Dense(2), *(layers.ReLU() for _ in range(number))]


def prepared(action, number, path):
    """Return a function that does only the action, on a model with `number` layers."""
    made = stack(number)
    if action == "make":
        return lambda: cnnlite.Sequential(made)
    if action == "nest":
        return lambda: cnnlite.Sequential([cnnlite.Sequential(made)])
    model = cnnlite.Sequential(made)
    if action == "save":
        return lambda: model.save(path)
    if action == "clone":
        return lambda: cnnlite.models.clone_model(model)
    if action == "clone by a function":
        return lambda: cnnlite.models.clone_model(
            model, clone_function=lambda layer: type(layer).from_config(layer.get_config())
        )
    model.save(path)
    return lambda: cnnlite.load_model(path)


@pytest.mark.parametrize("action", ["make", "nest", "clone", "clone by a function", "save", "load"])
def test_four_times_as_many_layers_take_about_four_times_as_much(action, path):
    few, many = (lines_run(prepared(action, number, path)) for number in (FEW, MANY))
    assert many < 1.3 * MANY / FEW * few


def test_many_layers_are_numbered_as_ever():
    model = cnnlite.Sequential([
        layers.ReLU(name="re_lu_2"), *(layers.ReLU() for _ in range(3)), layers.Dropout(0.5), layers.ReLU()
    ])
    assert [layer.name for layer in model.layers] == ["re_lu_2", "re_lu", "re_lu_1", "re_lu_3", "dropout", "re_lu_4"]
    model.add(layers.ReLU())
    model.pop()
    model.add(layers.ReLU())
    assert model.layers[-1].name == "re_lu_5"


def test_a_layer_that_comes_twice_among_many_is_refused():
    twice = layers.ReLU()
    for again in (twice, cnnlite.Sequential([twice])):
        with pytest.raises(ValueError, match=r"a layer can be in a stack only once. Received: 're_lu'"):
            cnnlite.Sequential([layers.Flatten(), twice, layers.Dropout(0.5), again])
    with pytest.raises(ValueError, match=r"the names of layers must differ. Received: a second layer called 'a'"):
        cnnlite.Sequential([layers.ReLU(name="a"), layers.ReLU(), layers.ReLU(name="a")])


def test_an_add_of_a_subclass_is_called_for_each_layer_and_may_change_the_stack():
    class Doubled(cnnlite.Sequential):
        def add(self, layer):
            super().add(layer)
            if isinstance(layer, layers.Dense):
                super().add(layers.ReLU())
            if isinstance(layer, layers.Dropout):
                self.pop()

    model = Doubled([cnnlite.Input((3,)), layers.Dense(4), layers.Dropout(0.5), layers.Dense(2)])
    assert [type(layer).__name__ for layer in model.layers] == ["Dense", "ReLU", "Dense", "ReLU"]
    assert model.layers[2].kernel.shape == (4, 2)
    assert model.predict(np.ones((1, 3)), verbose=0).shape == (1, 2)
