"""Residual: the sum of its branches, its gradients, and the shapes, layers and dtypes that it takes."""

import contextlib
import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnnlite
from cnnlite import check_gradients, fusion, layers
from cnnlite.layers import BatchNorm, Conv2D, Dense, Dropout, Flatten, Linear, MaxPool, ReLU, Residual
from tests.helpers.residuals import CASES, SHAPE, convolution, model_of, normal

pytestmark = pytest.mark.usefixtures("same_weights_in_every_run")


@pytest.fixture(params=CASES)
def make(request):
    return CASES[request.param]


# What it computes.


def test_gradients_are_those_of_finite_differences(make):
    report = check_gradients(make(), normal(2, *SHAPE), max_elements=6)
    assert report.ok, report
    report = check_gradients(model_of(make), normal(2, *SHAPE), np.array([0, 2]), max_elements=6)
    assert report.ok, report


KEEPING = st.sampled_from([
    lambda: convolution(), ReLU, lambda: MaxPool(3, 1, "same"), lambda: layers.DepthwiseConv2D(3, padding="same"),
    lambda: BatchNorm(momentum=0.5), lambda: Residual(convolution()), lambda: Dropout(0.5, seed=2), Linear,
])
branches = st.lists(KEEPING, min_size=1, max_size=4)


@settings(max_examples=25, deadline=None)
@given(body=branches, shortcut=st.none() | branches, training=st.booleans(), eager=st.booleans())
def test_it_is_the_sum_of_what_the_branches_give_and_so_are_the_gradients(body, shortcut, training, eager):
    residual = Residual([make() for make in body], None if shortcut is None else [make() for make in shortcut])
    x, dy = normal(3, *SHAPE), normal(3, *SHAPE, seed=1)
    residual.build(x.shape)
    twin = copy.deepcopy(residual)
    with cnnlite.reference_mode() if eager else contextlib.nullcontext():
        y = residual(x, training=training)
        around = x if shortcut is None else twin.shortcut(x, training)
        np.testing.assert_array_equal(y, twin.body(x, training) + around)
        if training:
            dx = residual.backward(dy)
            around = dy if shortcut is None else twin.shortcut.backward(dy)
            np.testing.assert_array_equal(dx, twin.body.backward(dy) + around)
            for name, gradient in residual.grads.items():
                np.testing.assert_array_equal(gradient, twin.grads[name], err_msg=name)
    np.testing.assert_array_equal((x, dy), (normal(3, *SHAPE), normal(3, *SHAPE, seed=1)))


def test_layers_that_run_as_one_in_a_branch_give_what_they_give_one_by_one():
    residual = Residual([convolution(), BatchNorm(), ReLU(), convolution(), ReLU(), MaxPool(3, 1, "same")])
    x, dy = normal(3, *SHAPE), normal(3, *SHAPE, seed=1)
    residual.build(x.shape)
    twin = copy.deepcopy(residual)
    with fusion.disabled():
        expected = [twin(x), twin(x, training=True), twin.backward(dy), *twin.grads.values()]
    for mine, theirs in zip((residual(x), residual(x, training=True), residual.backward(dy), *residual.grads.values()),
                            expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_block_of_resnet_agrees_with_pytorch():
    torch = pytest.importorskip("torch")
    residual = Residual(
        [convolution(4, 3, 2, use_bias=False), BatchNorm(), ReLU(), convolution(4, use_bias=False), BatchNorm()],
        [Conv2D(4, 1, 2, use_bias=False), BatchNorm()], dtype="float64")
    x, dy = normal(2, 7, 7, 3, dtype="float64"), normal(2, 4, 4, 4, seed=1, dtype="float64")
    residual.build(x.shape)

    def conv(layer, strides, padding):
        theirs = torch.nn.Conv2d(*layer.kernel.shape[2:], layer.kernel.shape[0], strides, padding, bias=False)
        theirs.weight.data = torch.tensor(np.ascontiguousarray(layer.kernel.transpose(3, 2, 0, 1)))
        return theirs

    def norm():
        return torch.nn.BatchNorm2d(4, eps=BatchNorm().epsilon, dtype=torch.float64)

    body, shortcut = residual.body.layers, residual.shortcut.layers
    first, second, by = conv(body[0], 2, 1), conv(body[3], 1, 1), conv(shortcut[0], 2, 0)
    theirs = torch.nn.Sequential(first, norm(), torch.nn.ReLU(), second, norm())
    around = torch.nn.Sequential(by, norm())
    inputs = torch.tensor(x.transpose(0, 3, 1, 2)).requires_grad_()
    outputs = theirs(inputs) + around(inputs)
    outputs.backward(torch.tensor(dy.transpose(0, 3, 1, 2)))

    y = residual(x, training=True)
    np.testing.assert_allclose(y, outputs.detach().numpy().transpose(0, 2, 3, 1), atol=1e-10)
    np.testing.assert_allclose(residual.backward(dy), inputs.grad.numpy().transpose(0, 2, 3, 1), atol=1e-9)
    for mine, other in ((body[0], first), (body[3], second), (shortcut[0], by)):
        np.testing.assert_allclose(mine.grads["kernel"], other.weight.grad.numpy().transpose(2, 3, 1, 0), atol=1e-9)


def test_eager_mode_computes_the_same(make):
    residual, x = make(), normal(2, *SHAPE)
    residual.dtype = "float64"
    y = residual(x)
    with cnnlite.reference_mode():
        np.testing.assert_allclose(residual(x), y, rtol=1e-10, atol=1e-10)


def test_backward_weights_fills_the_same_gradients(make):
    residual, x = make(), normal(2, *SHAPE)
    y = residual(x, training=True)
    residual.backward(np.ones_like(y))
    expected = {name: array.copy() for name, array in residual.grads.items()}
    for array in residual.grads.values():
        array[...] = np.nan
    assert residual.backward_weights(np.ones_like(y)) is None
    for name, array in expected.items():
        np.testing.assert_array_equal(residual.grads[name], array, err_msg=name)


class Stem(Conv2D):
    """A convolution that says what is asked of it."""

    asked: list[str]

    def backward(self, dy):
        self.asked.append("backward")
        return super().backward(dy)

    def backward_weights(self, dy):
        self.asked.append("backward_weights")
        super().backward_weights(dy)


def test_at_the_bottom_of_a_model_neither_branch_computes_the_gradient_of_its_input():
    stems = [Stem(3, 1), Stem(3, 1)]
    for stem in stems:
        stem.asked = []
    model = model_of(lambda: Residual([stems[0], ReLU()], [Residual([stems[1]])]))
    model.train_on_batch(normal(4, *SHAPE), np.arange(4) % 3)
    assert [stem.asked for stem in stems] == [["backward_weights"]] * 2
    for stem in stems:
        stem.trainable = False
        stem.asked.clear()
    model.train_on_batch(normal(4, *SHAPE), np.arange(4) % 3)
    assert [stem.asked for stem in stems] == [[], []]


def test_the_input_and_the_gradient_are_left_as_they_were_and_results_are_arrays_of_their_own():
    residual, x, dy = Residual([Linear(), Dropout(0.0)]), normal(2, 4), normal(2, 4, seed=1)
    for training in (False, True):
        y = residual(x, training=training)
        np.testing.assert_array_equal(y, 2 * x)
        y[...] = 0
    dx = residual.backward(dy)
    np.testing.assert_array_equal(dx, 2 * dy)
    dx[...] = 0
    np.testing.assert_array_equal((x, dy), (normal(2, 4), normal(2, 4, seed=1)))


def test_nested_ones_do_not_share_the_memory_that_a_plan_reuses():
    stack = [Residual([Residual(Linear()), Residual([Dropout(0.0), Residual(Linear())])])]
    model = cnnlite.Sequential(stack)
    x = normal(2, 4)
    model(x)
    for seed in range(3):
        x, dy = normal(2, 4, seed=seed), normal(2, 4, seed=seed + 9)
        np.testing.assert_allclose(model.forward(x, training=True), 7 * x, rtol=1e-6)  # 1 + 2 (1 + 2)
        np.testing.assert_allclose(model.backward(dy), 7 * dy, rtol=1e-6)


# What is refused.


@pytest.mark.parametrize(("make", "shape", "message"), [
    (lambda: Residual(convolution(4)), SHAPE,
     r"residual: body and shortcut must give the same shape. Received: \(None, 6, 6, 4\) from the body and "
     r"\(None, 6, 6, 3\) from the shortcut \(x itself\), for an input of \(None, 6, 6, 3\). Pass as shortcut a 1x1"),
    (lambda: Residual(convolution(4, 3, 2), convolution(4, 1)), SHAPE,
     r"\(None, 3, 3, 4\) from the body and \(None, 6, 6, 4\) from the shortcut, for .*=Conv2D\(filters, 1, str"),
    (lambda: Residual([Flatten(), Dense(4)]), SHAPE, r"\(None, 4\) from the body .*Pass as shortcut layers that give"),
    (lambda: Residual(convolution()), (6,), r"conv2d: the input must have 4 axes"),
])
def test_shapes_that_differ_are_refused_before_anything_is_built(make, shape, message):
    residual = make()
    for build in (residual.build, residual.build_once, residual.compute_output_shape):
        with pytest.raises(ValueError, match=message):
            build((None, *shape))
    assert not any(layer.built for layer in residual.walk())
    model = cnnlite.Sequential([cnnlite.Input(shape)])
    with pytest.raises(ValueError, match=message):
        model.add(residual)
    assert model.layers == []


def test_a_shortcut_that_can_not_be_built_leaves_the_body_unbuilt():
    def broken(shape, dtype):
        raise ValueError("no weights today")

    residual = Residual(convolution(4), convolution(4, 1, kernel_initializer=broken))
    with pytest.raises(ValueError, match="no weights today"):
        residual.build((None, *SHAPE))
    assert not any(layer.built or layer._params for layer in residual.walk())


def test_images_of_another_size_are_taken_where_both_branches_give_one_shape():
    residual = Residual(MaxPool(2, padding="valid"), convolution(3, 1, 2))
    assert residual(normal(1, *SHAPE)).shape == (1, 3, 3, 3)
    assert residual(normal(1, 8, 4, 3)).shape == (1, 4, 2, 3)
    for training in (False, True):
        with pytest.raises(ValueError, match=r"same shape. Received: \(1, 3, 3, 3\) from the body and \(1, 4, 4, 3\)"):
            residual(normal(1, 7, 7, 3), training=training)
    unknown = Residual(convolution())
    assert unknown.compute_output_shape((None, None, None, 3)) == (None, None, None, 3)
    half_known = Residual(MaxPool(1, 1), layers.Reshape((4, 4, 3)))
    assert half_known.compute_output_shape((None, None, 4, 3)) == (None, 4, 4, 3)


def test_a_layer_inside_that_was_changed_so_that_shapes_differ_is_refused_in_the_next_pass():
    residual, x = Residual(convolution()), normal(1, *SHAPE)
    residual(x)
    residual.body.layers[0].strides = 2
    for training in (False, True):
        with pytest.raises(ValueError, match=r"residual: body and shortcut must give the same shape"):
            residual(x, training=training)
    residual.body.layers[0].strides = 1
    assert residual(x).shape == x.shape


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ((None,), TypeError, "Residual: body must be a layer, a list of layers or a Sequential. Received: body=None"),
    ((Conv2D,), TypeError, "Residual: body must be a layer, a list"),
    ((ReLU(), "identity"), TypeError, "Residual: shortcut must be .*Received: shortcut='identity', a str"),
    (([ReLU(), 3],), TypeError, "body: add takes a layer. Received: 3"),
    (([],), ValueError, "Residual: body must have at least one layer"),
    ((ReLU(), []), ValueError, "Residual: shortcut must have at least one layer.*None stands for x itself"),
    ((cnnlite.Sequential(),), ValueError, "Residual: body must have at least one layer"),
])
def test_what_is_no_stack_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Residual(*arguments)


def test_a_layer_can_be_in_one_place_only():
    shared, stack = ReLU(), cnnlite.Sequential([ReLU()])
    for body, shortcut in (
        ([shared], [shared]), (shared, [Linear(), shared]), (stack, stack), ([Residual(shared)], shared),
    ):
        with pytest.raises(ValueError, match=r"can be in a stack only once. Received: .* Make another one"):
            Residual(body, shortcut)
    with pytest.raises(ValueError, match="can be in a stack only once"):
        cnnlite.Sequential([Residual(shared), shared])


def test_backward_needs_a_training_pass_and_a_gradient_of_the_output_s_shape():
    residual, x = Residual(convolution()), normal(1, *SHAPE)
    residual(x)
    for backward in (residual.backward, residual.backward_weights):
        with pytest.raises(ValueError, match="residual: backward needs a forward pass in training mode"):
            backward(x)
    residual(x, training=True)
    for backward in (residual.backward, residual.backward_weights):
        with pytest.raises(ValueError, match="residual: dy must have the shape of the output"):
            backward(x[..., :1])


def test_the_dtype_is_that_of_the_layers_and_is_set_for_all_of_them():
    x = normal(2, *SHAPE)
    residual = Residual([convolution(4), Residual(ReLU())], convolution(4, 1), dtype="float64")
    assert residual(x).dtype == residual.dtype == np.float64
    assert Residual(convolution(dtype="float64"))(x).dtype == np.float64
    half = Residual([convolution(), Residual(convolution())])
    half.body.layers[1].build((None, *SHAPE))
    with pytest.raises(ValueError, match="dtype can't change once the layer is built"):
        half.dtype = "float64"
    assert half.dtype == half.body.layers[0].dtype == np.float32
    mixed = Residual(convolution(dtype="float64"), Linear(dtype="float32"))
    assert mixed(x, training=True).dtype == np.float64
    assert mixed.backward(x).dtype == np.float64
