"""Layers whose stages run together give what they give one after the other, each by itself, bit for bit."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnnlite
from cnnlite import fusion
from cnnlite.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv2D,
    Dense,
    Flatten,
    LeakyReLU,
    MaxPool,
    ReLU,
    ZeroPadding2D,
)
from tests.helpers.fused import (
    BATCHES,
    WITH_ALL,
    arrays_of,
    assert_fused_is_unfused,
    assert_same_bits,
    everything,
    make,
    model_of,
    normal,
    stacks,
    unfused,
)
from tests.kernels.drawn import compiled_kernels_needed, threads, two_threads_needed

pytestmark = compiled_kernels_needed
RNG = np.random.default_rng


# The same bits.


@settings(max_examples=60, deadline=None)
@given(stacks(), st.sampled_from(BATCHES), st.sampled_from(["float32", "float32", "float64"]), st.integers(0, 99))
def test_fused_layers_give_the_same_bits_forward_and_backward(stack, n, dtype, seed):
    model = make(*stack, dtype, seed)
    assert_fused_is_unfused(model, normal(n, *stack[0], seed=seed, dtype=dtype))


@pytest.mark.parametrize("n", [0, *BATCHES])
def test_all_of_it_gives_the_same_bits_for_every_size_of_a_batch(n):
    model = make((13, 12, 17), WITH_ALL)
    assert_fused_is_unfused(model, normal(n, 13, 12, 17))


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf, 1e30, -1e13])
@pytest.mark.parametrize("n", [2, 17])
def test_nan_infinities_and_huge_numbers_come_out_the_same(special, n):
    model = make((13, 12, 17), WITH_ALL)
    x = normal(n, 13, 12, 17)
    x[1, 4, 3, 5] = special
    with np.errstate(all="ignore"):
        assert_fused_is_unfused(model, x)


@pytest.mark.parametrize("special", [np.nan, np.inf])
def test_a_gradient_that_is_not_a_number_comes_out_the_same(special):
    model = make((13, 12, 17), WITH_ALL)
    x = normal(17, 13, 12, 17)
    dy = normal(*model.compute_output_shape(x.shape), seed=1)
    dy[3, 1, 1, 2] = special
    with np.errstate(all="ignore"):
        fused, expected = everything(model, x, dy), unfused(everything, model, x, dy)
    for name, array in expected.items():
        np.testing.assert_array_equal(fused[name], array, err_msg=name)


def test_an_image_of_more_than_a_part_of_the_sums_comes_out_the_same():
    model = model_of(Conv2D(5, 3, activation="relu"), BatchNorm(), MaxPool(), shape=(37, 41, 3))
    assert_fused_is_unfused(model, normal(3, 37, 41, 3))


def test_a_zero_that_wins_its_window_and_ties_of_several_come_out_the_same():
    # Weights and pixels of few values: most windows have several largest, and many are all 0 after the ReLU.
    model = model_of(Conv2D(16, 2), BatchNorm(), ReLU(), MaxPool(2, 1), shape=(7, 7, 2))
    conv = model.layers[0]
    conv.kernel = RNG(0).integers(-1, 2, conv.kernel.shape)
    conv.bias = np.zeros(16)
    assert_fused_is_unfused(model, RNG(1).integers(-1, 2, (17, 7, 7, 2)).astype("float32"))


def test_frozen_layers_get_no_gradients_and_pass_theirs_on():
    for frozen in ([0], [1], [0, 1], [0, 1, 4], [4, 5]):
        model = make((13, 12, 17), WITH_ALL)
        for i in frozen:
            model.layers[i].trainable = False
        fused = assert_fused_is_unfused(model, normal(17, 13, 12, 17))
        for path, layer in model.named_layers():
            for name in layer.grads:
                assert fused[f"{path}/grads/{name}"].any() == layer.trainable
        assert fused["dx"].any()


@settings(max_examples=15, deadline=None)
@given(stacks(), st.sampled_from(["adam", "sgd"]), st.integers(0, 99))
def test_fit_ends_with_the_same_weights(stack, optimizer, seed):
    base = make(*stack, seed=seed)
    base.add(Flatten())
    base.add(Dense(3, activation="softmax"))
    x, y = normal(21, *stack[0], seed=seed), RNG(seed).integers(0, 3, 21)

    def trained():
        model = copy.deepcopy(base)
        model.compile(optimizer, "sparse_categorical_crossentropy")
        history = model.fit(x, y, batch_size=8, epochs=2, shuffle=False, validation_split=0.2, verbose=0)
        return {**arrays_of(model), "predictions": model.predict(x, verbose=0),
                **{name: np.array(values) for name, values in history.history.items()}}

    assert_same_bits(trained(), unfused(trained))


def test_nested_models_come_out_the_same():
    inner = cnnlite.Sequential([Conv2D(16, 3), BatchNorm(), ReLU(), MaxPool()])
    top = cnnlite.Sequential([Conv2D(8, 1, activation="relu"), BatchNorm()])
    model = model_of(Conv2D(17, 2, activation="relu"), BatchNorm(), inner, ReLU(), top, shape=(9, 8, 3))
    assert_fused_is_unfused(model, normal(17, 9, 8, 3))


def test_logits_and_their_gradients_come_out_the_same():
    tops = [
        [Conv2D(3, 7, activation="softmax")],
        [Conv2D(3, 7), Activation("softmax")],
        [cnnlite.Sequential([Conv2D(4, 1), ReLU(), Conv2D(3, 7, activation="softmax")])],
    ]
    for top in tops:
        base = model_of(Conv2D(16, 3), BatchNorm(), ReLU(), *top)

        def everything_by_logits(base=base):
            model = copy.deepcopy(base)
            z = model.forward_logits(normal(5, 13, 12, 17), training=True)
            dz = normal(*z.shape, seed=1)
            model.backward_weights(dz, from_logits=True)
            return {"z": z, "y": model.activate_logits(z), **arrays_of(model)}

        assert_same_bits(everything_by_logits(), unfused(everything_by_logits))


def test_a_loaded_model_gives_the_same_bits(tmp_path):
    model = make((13, 12, 17), WITH_ALL)
    model.save(tmp_path / "model.cnn")
    loaded = cnnlite.models.load_model(tmp_path / "model.cnn")
    x = normal(5, 13, 12, 17)
    dy = normal(*model.compute_output_shape(x.shape), seed=1)
    assert_same_bits(everything(loaded, x, dy), unfused(everything, model, x, dy))


@two_threads_needed
def test_one_thread_and_two_give_the_same_bits():
    for n in (3, 33):
        model = make((15, 16, 17), WITH_ALL)
        x = normal(n, 15, 16, 17)
        dy = normal(*model.compute_output_shape(x.shape), seed=1)
        with threads(1):
            alone = everything(model, x, dy)
        with threads(2):
            assert_same_bits(everything(model, x, dy), alone)


# An image among others.


@pytest.mark.parametrize("channels", [3, 17])
@pytest.mark.parametrize("stack", [[], [BatchNorm, ReLU, MaxPool]])
def test_an_image_has_the_same_bits_in_every_batch(channels, stack):
    # 3 channels go directly, 17 by Winograd's method.
    model = model_of(Conv2D(33, 3, padding="same"), *(kind() for kind in stack), shape=(27, 19, channels))
    x = normal(64, 27, 19, channels)
    y = model.predict(x, batch_size=64, verbose=0)
    for run in (lambda function: function(), unfused):
        for first, last in [(0, 1), (63, 64), (10, 13), (20, 50)]:
            part = run(lambda first=first, last=last: model.predict(x[first:last], batch_size=64, verbose=0))
            assert part.tobytes() == y[first:last].tobytes()


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf, 1e30, 1e13])
@pytest.mark.parametrize("stack", [[], [BatchNorm, ReLU, MaxPool]])
def test_a_pixel_that_is_not_bounded_changes_its_own_image_alone_and_the_same_in_every_batch(stack, special):
    model = model_of(Conv2D(33, 3, padding="same"), *(kind() for kind in stack), shape=(27, 19, 17))
    x = normal(33, 27, 19, 17)
    before = model.predict(x, batch_size=33, verbose=0)
    x[4, 2, 3, 5] = special
    y = model.predict(x, batch_size=33, verbose=0)
    others = [i for i in range(33) if i != 4]
    assert y[others].tobytes() == before[others].tobytes()
    # Pixels that don't see the special one are as good as before.
    np.testing.assert_allclose(y[4, 5:], before[4, 5:], rtol=0, atol=1e-5 * np.abs(before).max())
    for first, last in [(4, 5), (3, 6), (0, 20)]:
        for part in (model.predict(x[first:last], verbose=0), unfused(model.predict, x[first:last], 32, 0)):
            np.testing.assert_array_equal(part, y[first:last])


# What stands beside what.


STACKS = [
    [Conv2D(4, 3)],
    [Conv2D(4, 3, activation="relu")],
    [Conv2D(4, 3), ReLU()],
    [Conv2D(4, 3), ReLU(), ReLU()],
    [Conv2D(4, 3, activation="relu"), ReLU()],
    [Conv2D(4, 3), Activation("relu"), MaxPool()],
    [Conv2D(4, 3), Activation(ReLU()), BatchNorm()],
    [Conv2D(4, 3), BatchNorm(), ReLU(), MaxPool(), Conv2D(4, 1), MaxPool()],
    [Conv2D(4, 3), ReLU(), BatchNorm(), ReLU(), MaxPool(), ReLU()],
    [Conv2D(4, 3), BatchNorm(), BatchNorm()],
    [Conv2D(4, 3), BatchNorm(axis=3)],
    [Conv2D(4, 3), BatchNorm(axis=1)],
    [Conv2D(4, 3), BatchNorm(axis=2), ReLU()],
    [Conv2D(4, 3), MaxPool(), BatchNorm(), ReLU()],
    [Conv2D(4, 3), MaxPool(), MaxPool()],
    [Conv2D(4, 3), AveragePool()],
    [Conv2D(4, 3, activation="relu"), BatchNorm(), AveragePool()],
    [Conv2D(4, 3), BatchNorm(trainable=False), ReLU()],
    [Conv2D(4, 3), ReLU(), BatchNorm(trainable=False), ReLU()],
    [Conv2D(4, 3, trainable=False), BatchNorm(), ReLU()],
    [Conv2D(4, 3), LeakyReLU(), MaxPool()],
    [Conv2D(4, 3), ReLU(negative_slope=0.1)],
    [Conv2D(4, 3), ReLU(max_value=6), MaxPool()],
    [Conv2D(4, 3), ReLU(threshold=1)],
    [Conv2D(4, 3, activation=ReLU(max_value=6)), MaxPool()],
    [Conv2D(4, 3, activation="tanh"), BatchNorm(), MaxPool()],
    [Conv2D(4, 3, activation="linear"), MaxPool()],
    [Conv2D(4, 3), Activation("linear"), MaxPool()],
    [Conv2D(4, 3), Flatten(), ReLU()],
    [Conv2D(4, 3), ZeroPadding2D(), ReLU()],
    [ReLU(), BatchNorm(), MaxPool(), Conv2D(4, 3), MaxPool()],
    [Conv2D(4, 3, data_format="channels_first"), ReLU(), MaxPool(data_format="channels_first")],
    [Conv2D(4, 3), ReLU(), MaxPool(data_format="channels_first")],
    [Conv2D(4, 3), BatchNorm(dtype="float64"), MaxPool()],
    [Conv2D(4, 3), ReLU(dtype="float64"), MaxPool()],
    [Conv2D(4, 3), MaxPool(dtype="float64")],
]


@pytest.mark.parametrize("stack", STACKS)
def test_any_neighbours_have_the_same_bits(stack):
    model = model_of(*map(copy.deepcopy, stack), shape=(10, 12, 6))
    assert_fused_is_unfused(model, normal(2, 10, 12, 6))


class Doubled:
    """Twice what the layer gives, and what it gets back."""

    def forward(self, x, training=False):
        return 2 * super().forward(x, training)

    def backward(self, dy):
        return super().backward(2 * dy)


class OtherConv2D(Doubled, Conv2D):
    pass


class OtherBatchNorm(Doubled, BatchNorm):
    pass


class OtherReLU(Doubled, ReLU):
    pass


class OtherMaxPool(Doubled, MaxPool):
    pass


class Halved(ReLU):
    def function(self, x, out):
        return np.multiply(super().function(x, out), 0.5, out=out)

    def gradient(self, dy, x, y, out):
        return np.multiply(super().gradient(dy, x, y, out), 0.5, out=out)


def test_subclasses_run_on_their_own():
    for stack in (
        [OtherConv2D(4, 3), ReLU()],
        [Conv2D(4, 3), OtherBatchNorm(), ReLU()],
        [Conv2D(4, 3), OtherReLU(), MaxPool()],
        [Conv2D(4, 3), ReLU(), OtherMaxPool()],
        [Conv2D(4, 3, activation=Halved()), MaxPool()],
        [Conv2D(4, 3), Activation(Halved()), MaxPool()],
    ):
        assert_fused_is_unfused(model_of(*stack, shape=(10, 12, 6)), normal(2, 10, 12, 6))


def test_disabling_lasts_as_long_as_its_context_even_if_that_fails_and_joins_nothing():
    model = model_of(Conv2D(4, 3), ReLU(), Conv2D(4, 3), MaxPool(), shape=(10, 12, 6))

    def most_together():
        (_, plan), = model.plan().plans
        return max(len(track.steps) for group in plan.schedule.groups for track in group)

    with pytest.raises(KeyError), fusion.disabled(), fusion.disabled():
        raise KeyError
    assert most_together() == 4
    with fusion.disabled():
        with fusion.disabled():
            pass
        assert most_together() == 1
    assert most_together() == 4
