"""A loss is computed from logits only where the output is softmax or sigmoid of them, and nothing else."""

import copy

import numpy as np
import pytest

import cnnlite
from cnnlite import layers, losses
from tests.helpers.fused import normal

X, Y = normal(12, 4), np.arange(12) % 3


class Hot(layers.Softmax):
    """softmax of 10 x"""

    def function(self, x, out):
        return super().function(10 * x, out)

    def gradient(self, dy, x, y, out):
        return 10 * super().gradient(dy, x, y, out)


class HalfSigmoid(layers.Sigmoid):
    def function(self, x, out):
        return np.multiply(super().function(x, out), 0.5, out=out)

    def gradient(self, dy, x, y, out):
        return super().gradient(0.5 * dy, x, 2 * y, out)


class SquaredLogits(layers.Dense):
    """activation(z²)"""

    def forward(self, x, training=False):
        z = self.z = (self.prepare(x) @ self.params["kernel"]) + self.params["bias"]
        self.x = x
        return self.activation.forward(z * z, training)

    def backward(self, dy):
        dz = 2 * self.z * self.activation.backward(dy)
        self.grads["kernel"], self.grads["bias"] = self.x.T @ dz, dz.sum(axis=0)
        return dz @ self.params["kernel"].T


class WithAnActivation(layers.Layer):
    """A layer of a user's with an attribute `activation`, and nothing that the library's have beside it."""

    def __init__(self):
        super().__init__()
        self.activation = layers.Softmax()
        self.inner_layers = [self.activation]

    def build(self, input_shape):
        super().build(input_shape)
        self.add_weight("kernel", (input_shape[-1], 3))

    def forward(self, x, training=False):
        self.x = x
        return self.activation.forward(self.prepare(x) @ self.params["kernel"], training)

    def backward(self, dy):
        dz = self.activation.backward(dy)
        self.grads["kernel"] = self.x.T @ dz
        return dz @ self.params["kernel"].T


class NamedActivation(WithAnActivation):
    activation_name = "softmax"


class Tempered(cnnlite.Sequential):
    """A model whose output is mixed with 1/3 each."""

    def forward(self, x, training=False):
        return 0.5 * super().forward(x, training) + np.float32(1 / 6)

    def backward(self, dy):
        return super().backward(0.5 * dy)


def put_on_object(model):
    activation = model.layers[-1].activation
    activation.function = lambda x, out: np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True) / 2
    activation.gradient = lambda dy, x, y, out: y * (dy - 2 * (dy * y).sum(axis=-1, keepdims=True))
    return model


def stack(*tops, cls=cnnlite.Sequential):
    return cls([cnnlite.Input((4,)), layers.Dense(6, "tanh"), *tops])


NOT_FUSED = {
    "subclass of Softmax on top": lambda: stack(layers.Dense(3), Hot()),
    "subclass of Softmax inside": lambda: stack(layers.Dense(3, activation=Hot())),
    "subclass of Softmax in an Activation": lambda: stack(layers.Dense(3), layers.Activation(Hot())),
    "softmax along another axis": lambda: stack(layers.Dense(3), layers.Softmax(axis=1)),
    "subclass of Dense with another forward": lambda: stack(SquaredLogits(3, "softmax")),
    "functions put on the activation": lambda: put_on_object(stack(layers.Dense(3, "softmax"))),
    "layer of the user's with an activation": lambda: stack(WithAnActivation()),
    "layer with a name of its own": lambda: stack(NamedActivation()),
    "model with another forward": lambda: stack(layers.Dense(3, "softmax"), cls=Tempered),
    "such a model on top": lambda: stack(Tempered([layers.Dense(3, "softmax")])),
    "subclass of Softmax in a model on top": lambda: stack(cnnlite.Sequential([layers.Dense(3), Hot()])),
}
FUSED = {
    "softmax inside": lambda: stack(layers.Dense(3, "softmax")),
    "softmax on top": lambda: stack(layers.Dense(3), layers.Softmax()),
    "softmax by name": lambda: stack(layers.Dense(3), layers.Activation("softmax")),
    "model on top": lambda: stack(cnnlite.Sequential([layers.Dense(3, "softmax")])),
    "set after building": lambda: with_activation(stack(layers.Dense(3, "relu")), "softmax"),
}


def with_activation(model, activation):
    model.layers[-1].activation = activation
    return model


def compiled(make, loss="sparse_categorical_crossentropy"):
    cnnlite.utils.set_random_seed(1)
    model = make()
    model.compile(cnnlite.optimizers.SGD(0.1), loss, metrics=["accuracy"])
    return model


def assert_loss_is_that_of_the_outputs(model, y=Y):
    expected = model.loss(y, model.predict(X, verbose=0))
    for loss in (model.evaluate(X, y, verbose=0)[0], model.test_on_batch(X, y)[0]):
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
    report = cnnlite.check_gradients(model, X, y)
    assert report.ok, report
    # A step along the gradients that were just checked.
    twin = copy.deepcopy(model)
    dy = twin.loss.backward(y, twin.forward(X, training=True))
    twin.backward(dy)
    np.testing.assert_allclose(model.train_on_batch(X, y)[0], expected, rtol=1e-5)
    for after, before, gradient in zip(model.params.values(), twin.params.values(), twin.grads.values()):
        np.testing.assert_allclose(after, before - np.float32(0.1) * gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", NOT_FUSED)
def test_the_loss_of_a_top_layer_of_the_users_own_is_that_of_its_outputs(case):
    model = compiled(NOT_FUSED[case])
    assert model.fusable_activation is None
    assert_loss_is_that_of_the_outputs(model)


@pytest.mark.parametrize("case", FUSED)
def test_a_loss_is_fused_with_softmax_wherever_the_model_ends_with_it(case):
    model = compiled(FUSED[case])
    assert model.fusable_activation == "softmax"
    assert_loss_is_that_of_the_outputs(model)
    model.layers[-1].set_weights([1000 * weight for weight in model.layers[-1].get_weights()])
    if model.layers[-1].weights:  # the probabilities of the labels are then 0
        assert model.evaluate(X, Y, verbose=0)[0] > 100


def test_sigmoid_is_fused_and_a_subclass_of_it_is_not():
    y = (Y > 0).astype(np.float32)[:, np.newaxis]
    for activation, fused in (("sigmoid", "sigmoid"), (HalfSigmoid(), None)):
        model = compiled(lambda: stack(layers.Dense(1, activation)), "binary_crossentropy")  # noqa: B023
        assert model.fusable_activation == fused
        assert_loss_is_that_of_the_outputs(model, y)


def test_a_class_or_an_object_patched_after_compile_is_not_fused(monkeypatch):
    model = compiled(FUSED["softmax inside"])
    model.train_on_batch(X, Y)
    monkeypatch.setattr(layers.Softmax, "function", Hot.function)
    monkeypatch.setattr(layers.Softmax, "gradient", Hot.gradient)
    with pytest.raises(TypeError, match="obj must be an instance"):  # super() of Hot, which says that it was called
        model.evaluate(X, Y, verbose=0)
    monkeypatch.undo()
    assert model.fusable_activation == "softmax"
    put_on_object(model)
    assert_loss_is_that_of_the_outputs(model)


class Focal(losses.CategoricalCrossentropy):
    """-(1 - p)² log(p), which knows of no logits."""

    def forward(self, y_true, y_pred):
        t, p = self.prepare(y_true, y_pred)
        return -(t * (1 - p) ** 2 * np.log(p)).sum(axis=-1)

    def gradient(self, y_true, y_pred):
        t, p = self.prepare(y_true, y_pred)
        return t * (2 * (1 - p) * np.log(p) - (1 - p) ** 2 / p)


def test_a_loss_of_the_users_own_gets_outputs_and_no_logits():
    model = compiled(FUSED["softmax inside"], Focal())
    assert_loss_is_that_of_the_outputs(model, np.eye(3, dtype=np.float32)[Y])


def test_a_loss_whose_parts_are_overridden_is_not_fused(monkeypatch):
    model = compiled(FUSED["softmax inside"])
    model.evaluate(X, Y, verbose=0)
    model.loss.forward = lambda y_true, y_pred: (y_pred**2).sum(axis=-1)
    model.loss.gradient = lambda y_true, y_pred: 2 * y_pred
    assert_loss_is_that_of_the_outputs(model)
    del model.loss.forward, model.loss.gradient
    assert model._fused_loss()[1]
    monkeypatch.setattr(losses.CategoricalCrossentropy, "prepare_predictions", lambda loss, y: np.float32(0.5) * y)
    assert not model._fused_loss()[1]


def test_a_patch_of_the_class_that_a_loss_is_derived_from_holds(monkeypatch):
    model = compiled(FUSED["softmax inside"])
    before = model.evaluate(X, Y, verbose=0)[0]
    for name in ("forward", "gradient"):
        method = getattr(losses.CategoricalCrossentropy, name)
        doubled = lambda *arguments, method=method: 2 * method(*arguments)  # noqa: E731
        monkeypatch.setattr(losses.CategoricalCrossentropy, name, doubled)
    np.testing.assert_allclose(model.evaluate(X, Y, verbose=0)[0], 2 * before, rtol=1e-5)
    assert_loss_is_that_of_the_outputs(model)


@pytest.mark.parametrize("place", ["class", "object"])
def test_the_lowest_layer_is_trained_by_its_own_backward_weights_if_it_is_the_top_one_too(place):
    class Fixed(layers.Dense):
        def backward_weights(self, dy):
            super().backward_weights(dy)
            self.grads["kernel"] = np.zeros_like(self.kernel)

    layer = Fixed(3, "softmax") if place == "class" else layers.Dense(3, "softmax")
    model = compiled(lambda: cnnlite.Sequential([cnnlite.Input((4,)), layer]))
    if place == "object":
        layer.backward_weights = lambda dy: layers.Dense.backward_weights(layer, 0 * dy)
    kernel = layer.kernel.copy()
    model.train_on_batch(X, Y)
    np.testing.assert_array_equal(layer.kernel, kernel)


def test_what_is_changed_about_a_loss_after_compile_holds():
    model = compiled(FUSED["softmax inside"])
    before = model.evaluate(X, Y, verbose=0)[0]
    model.loss.label_smoothing = 0.5
    assert model.evaluate(X, Y, verbose=0)[0] != before
    assert_loss_is_that_of_the_outputs(model)
    model.loss = losses.SparseCategoricalCrossentropy(label_smoothing=0.25)
    assert_loss_is_that_of_the_outputs(model)
    model.loss.from_logits = True
    assert not model._fused_loss()[1]
    assert_loss_is_that_of_the_outputs(model)


def test_logits_of_a_layer_that_has_none_are_refused():
    with pytest.raises(ValueError, match=r"for logits, the top layer must be an activation.*Received: <Flatten"):
        stack(layers.Flatten()).forward_logits(X)


@pytest.mark.parametrize("make", [losses.CategoricalCrossentropy, losses.SparseCategoricalCrossentropy])
def test_a_loss_from_logits_trains_by_what_was_put_on_it(make, monkeypatch):
    y = np.eye(3, dtype=np.float32)[Y] if make is losses.CategoricalCrossentropy else Y
    for place in ("object", "class"):
        loss = make(from_logits=True)
        target = loss if place == "object" else make
        wrapped = {name: getattr(target, name) for name in ("forward", "gradient")}
        for name, method in wrapped.items():
            monkeypatch.setattr(target, name, lambda *arguments, method=method: 2 * method(*arguments))
        z = normal(12, 3)
        value, dz = loss.value_and_gradient(y, z)
        assert value == loss(y, z)
        np.testing.assert_array_equal(dz, loss.backward(y, z))
        monkeypatch.undo()
        np.testing.assert_allclose(value, 2 * make(from_logits=True)(y, z), rtol=1e-5)
