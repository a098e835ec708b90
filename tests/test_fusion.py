"""Layers that run as one kernel give what they give one after the other, bit for bit; and which layers those are."""

import copy
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnnlite
from cnnlite import fusion, layers
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
from tests.fused import (
    BATCHES,
    arrays_of,
    assert_fused_is_unfused,
    assert_same_bits,
    everything,
    make,
    randomise,
    stacks,
    unfused,
)
from tests.kernels.drawn import compiled_kernels_needed, threads, two_threads_needed

pytestmark = compiled_kernels_needed
RNG = np.random.default_rng
WITH_ALL = [
    ("Conv2D", dict(filters=33, kernel_size=3, activation="relu")),
    ("BatchNorm", {}),
    ("ReLU", {}),
    ("MaxPool", {}),
    ("Conv2D", dict(filters=17, kernel_size=2, padding="same")),
    ("BatchNorm", {}),
    ("ReLU", {}),
    ("MaxPool", dict(pool_size=3, strides=1)),
]


def normal(*shape, seed=0, dtype="float32"):
    return RNG(seed).normal(size=shape).astype(dtype)


def model_of(*stack, shape=(13, 12, 17), seed=0):
    model = cnnlite.Sequential([cnnlite.Input(shape=shape), *stack])
    randomise(model, seed)
    return model


def kinds(model, training):
    """Return the steps of a model in letters, those of a block together: "CBR D"."""
    letters = {"Conv2D": "C", "BatchNorm": "B", "ReLU": "R", "MaxPool": "P", "AveragePool": "A"}
    steps = fusion.steps(model.layers, training)
    return " ".join(
        "".join(letters.get(type(layer).__name__, type(layer).__name__)
                for layer in (step.layers if isinstance(step, fusion.ConvBlock) else [step]))
        for step in steps
    )


# The same bits.


@settings(max_examples=60, deadline=None)
@given(stacks(), st.sampled_from(BATCHES), st.sampled_from(["float32", "float32", "float64"]), st.integers(0, 99))
def test_fused_layers_give_the_same_bits_forward_and_backward(stack, n, dtype, seed):
    model = make(*stack, dtype, seed)
    assert_fused_is_unfused(model, normal(n, *stack[0], seed=seed, dtype=dtype))


@pytest.mark.parametrize("n", [0, *BATCHES])
def test_all_of_it_gives_the_same_bits_for_every_size_of_a_batch(n):
    model = make((13, 12, 17), WITH_ALL)
    assert kinds(model, training=True) == "CBRP CBRP"
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
    assert kinds(model, True) == "CB Sequential R Sequential"
    assert kinds(inner, True) == "CBRP"
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
            dx = model.backward_preactivation(dz)
            result = {"z": z, "y": model.activate_logits(z), "dx": dx, **arrays_of(model)}
            model.backward_weights(dz, from_logits=True)
            return {**result, **{f"again {name}": array for name, array in arrays_of(model).items()}}

        assert_same_bits(everything_by_logits(), unfused(everything_by_logits))


def test_a_loaded_model_is_fused_and_gives_the_same_bits(tmp_path):
    model = make((13, 12, 17), WITH_ALL)
    model.save(tmp_path / "model.cnn")
    loaded = cnnlite.models.load_model(tmp_path / "model.cnn")
    assert kinds(loaded, True) == "CBRP CBRP"
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
def test_a_pixel_that_is_not_moderate_changes_its_own_image_alone_and_the_same_in_every_batch(stack, special):
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


# Which layers run as one.



TABLE = [
    # stack, steps in training, steps in inference (where these are others)
    ([Conv2D(4, 3)], "C", None),
    ([Conv2D(4, 3, activation="relu")], "C", None),
    ([Conv2D(4, 3), ReLU()], "CR", None),
    ([Conv2D(4, 3), ReLU(), ReLU()], "CR R", None),
    ([Conv2D(4, 3, activation="relu"), ReLU()], "C R", None),
    ([Conv2D(4, 3), Activation("relu"), MaxPool()], "CActivationP", None),
    ([Conv2D(4, 3), Activation(ReLU()), BatchNorm()], "CActivationB", None),
    ([Conv2D(4, 3), BatchNorm(), ReLU(), MaxPool(), Conv2D(4, 1), MaxPool()], "CBRP CP", None),
    ([Conv2D(4, 3), ReLU(), BatchNorm(), ReLU(), MaxPool(), ReLU()], "CRBRP R", None),
    ([Conv2D(4, 3), BatchNorm(), BatchNorm()], "CB B", None),
    ([Conv2D(4, 3), BatchNorm(axis=3)], "CB", None),
    ([Conv2D(4, 3), BatchNorm(axis=1)], "C B", None),
    ([Conv2D(4, 3), BatchNorm(axis=2), ReLU()], "C B R", None),
    ([Conv2D(4, 3), MaxPool(), BatchNorm(), ReLU()], "CP B R", None),
    ([Conv2D(4, 3), MaxPool(), MaxPool()], "CP P", None),
    ([Conv2D(4, 3), AveragePool()], "C A", "CA"),
    ([Conv2D(4, 3, activation="relu"), BatchNorm(), AveragePool()], "CB A", "CBA"),
    ([Conv2D(4, 3), BatchNorm(trainable=False), ReLU()], "CBR", None),
    ([Conv2D(4, 3), ReLU(), BatchNorm(trainable=False), ReLU()], "CR B R", "CRBR"),
    ([Conv2D(4, 3, trainable=False), BatchNorm(), ReLU()], "CBR", None),
    ([Conv2D(4, 3), LeakyReLU(), MaxPool()], "C LeakyReLU P", None),
    ([Conv2D(4, 3), ReLU(negative_slope=0.1)], "C R", None),
    ([Conv2D(4, 3), ReLU(max_value=6), MaxPool()], "C R P", None),
    ([Conv2D(4, 3), ReLU(threshold=1)], "C R", None),
    ([Conv2D(4, 3, activation=ReLU(max_value=6)), MaxPool()], "C P", None),
    ([Conv2D(4, 3, activation="tanh"), BatchNorm(), MaxPool()], "C B P", None),
    ([Conv2D(4, 3, activation="linear"), MaxPool()], "CP", None),
    ([Conv2D(4, 3), Activation("linear"), MaxPool()], "C Activation P", None),
    ([Conv2D(4, 3), Flatten(), ReLU()], "C Flatten R", None),
    ([Conv2D(4, 3), ZeroPadding2D(), ReLU()], "C ZeroPadding2D R", None),
    ([ReLU(), BatchNorm(), MaxPool(), Conv2D(4, 3), MaxPool()], "R B P CP", None),
    ([Conv2D(4, 3, data_format="channels_first"), ReLU(), MaxPool(data_format="channels_first")], "C R P", None),
    ([Conv2D(4, 3), ReLU(), MaxPool(data_format="channels_first")], "CR P", None),
    ([Conv2D(4, 3), BatchNorm(dtype="float64"), MaxPool()], "C B P", None),
    ([Conv2D(4, 3), ReLU(dtype="float64"), MaxPool()], "C R P", None),
    ([Conv2D(4, 3), MaxPool(dtype="float64")], "C P", None),
]


@pytest.mark.parametrize(("stack", "training", "inference"), TABLE)
def test_the_steps_of(stack, training, inference):
    model = cnnlite.Sequential([copy.deepcopy(layer) for layer in stack])
    model.build((None, 10, 12, 6))
    assert kinds(model, training=True).replace("relu", "R") == training
    assert kinds(model, training=False) == (inference or training)
    with fusion.disabled():
        assert fusion.steps(model.layers, True) == model.layers
    x = normal(2, 10, 12, 6)
    dy = normal(*model.compute_output_shape(x.shape), seed=1)
    assert_same_bits(everything(model, x, dy), unfused(everything, model, x, dy))


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
    for stack, expected in [
        ([OtherConv2D(4, 3), ReLU()], "OtherConv2D R"),
        ([Conv2D(4, 3), OtherBatchNorm(), ReLU()], "C OtherBatchNorm R"),
        ([Conv2D(4, 3), OtherReLU(), MaxPool()], "C OtherReLU P"),
        ([Conv2D(4, 3), ReLU(), OtherMaxPool()], "CR OtherMaxPool"),
        ([Conv2D(4, 3, activation=Halved()), MaxPool()], "C P"),
        ([Conv2D(4, 3), Activation(Halved()), MaxPool()], "C Activation P"),
    ]:
        model = model_of(*stack, shape=(10, 12, 6))
        assert kinds(model, training=True) == expected
        assert_fused_is_unfused(model, normal(2, 10, 12, 6))


def test_disabling_lasts_as_long_as_its_context_even_if_that_fails():
    stack = [Conv2D(4, 3), ReLU()]
    with pytest.raises(KeyError), fusion.disabled(), fusion.disabled():
        raise KeyError
    assert len(fusion.steps(stack, True)) == 1
    with fusion.disabled():
        with fusion.disabled():
            pass
        assert len(fusion.steps(stack, True)) == 2


# As layers do.


def test_backward_takes_back_the_steps_that_ran():
    model = make((13, 12, 17), WITH_ALL)
    x = normal(5, 13, 12, 17)
    with fusion.disabled():
        y = model.forward(x, training=True)
    dy = normal(*y.shape, seed=1)
    dx = model.backward(dy)
    model.forward(x, training=True)
    with fusion.disabled():
        np.testing.assert_array_equal(model.backward(dy), dx)


def test_backward_twice_gives_the_same_and_writes_to_nothing():
    model = make((13, 12, 17), WITH_ALL)
    x = normal(5, 13, 12, 17)
    y = model.forward(x, training=True)
    dy = normal(*y.shape, seed=1)
    before = x.copy(), y.copy(), dy.copy()
    dx = model.backward(dy)
    first = dx.copy(), arrays_of(model)
    model.forward(normal(3, 13, 12, 17, seed=7))  # an inference pass in between is none of its business
    again = model.backward(dy)
    assert again.tobytes() == first[0].tobytes()
    assert dx.tobytes() == first[0].tobytes()
    assert_same_bits(arrays_of(model), first[1])
    for array, old in zip((x, y, dy), before):
        np.testing.assert_array_equal(array, old)


def test_backward_without_forward_is_an_error_also_where_forward_failed():
    class Fails(layers.Layer):
        def forward(self, x, training=False):
            if training:
                raise ValueError("on purpose")
            return x

    dy = normal(2, 7, 6, 4)
    model = cnnlite.Sequential([cnnlite.Input((9, 8, 2)), Fails(), Conv2D(4, 3), ReLU()])
    for _ in range(2):
        with pytest.raises(ValueError, match="backward needs a forward pass in training mode"):
            model.backward(dy)
        with pytest.raises(ValueError, match="backward needs a forward pass in training mode"):
            model.backward_weights(dy)
        with pytest.raises(ValueError, match="on purpose"):
            model.forward(normal(2, 9, 8, 2), training=True)


def test_a_layer_of_a_block_does_not_go_back_from_an_older_pass_of_its_own():
    model = cnnlite.Sequential([cnnlite.Input((9, 8, 2)), Conv2D(4, 3, activation="relu"), BatchNorm(), MaxPool()])
    with fusion.disabled():
        y = model.forward(normal(2, 9, 8, 2), training=True)
    model.forward(normal(2, 9, 8, 2, seed=1), training=True)
    for layer, shape in zip(model.layers, [(2, 7, 6, 4), (2, 7, 6, 4), y.shape]):
        with pytest.raises(ValueError, match="backward needs a forward pass in training mode"):
            layer.backward(np.ones(shape, "float32"))


def message(function, *arguments, **named):
    with pytest.raises(ValueError, match=r".") as caught:
        function(*arguments, **named)
    return str(caught.value)


@pytest.mark.parametrize("shape", [(2, 13, 12, 3), (2, 13, 12), (13, 12, 17), (2, 13, 12, 17, 1), (2, 0, 12, 17)])
@pytest.mark.parametrize("training", [True, False])
def test_an_input_of_the_wrong_shape_is_the_same_error(shape, training):
    model = make((None, None, 17), WITH_ALL)
    x = np.ones(shape, "float32")
    before = arrays_of(model)
    assert message(model.forward, x, training=training) == message(unfused, model.forward, x, training)
    assert_same_bits(arrays_of(model), before)


@pytest.mark.parametrize("size", [(2, 9), (9, 2), (3, 3), (4, 5)])
def test_an_image_that_is_too_small_is_the_same_error(size):
    model = make((None, None, 17), WITH_ALL)
    x = np.ones((2, *size, 17), "float32")
    assert "must fit into the image" in message(model.forward, x)
    for training in (False, True):
        assert message(model.forward, x, training) == message(unfused, model.forward, x, training)


def test_a_gradient_of_the_wrong_shape_is_the_same_error():
    model = make((13, 12, 17), WITH_ALL)
    x = normal(2, 13, 12, 17)
    for dy in (np.ones((2, 2, 2, 17), "float32"), np.ones((3, 1, 1, 17), "float32"), np.ones(3, "float32")):
        model.forward(x, training=True)
        mine = message(model.backward, dy)
        unfused(model.forward, x, True)
        assert mine == message(model.backward, dy)


def attributes(model):
    """Return all attributes but the one in which a model keeps which layers run as one, the same for all threads."""
    return [{name: value if not isinstance(value, dict) else dict(value)
             for name, value in vars(layer).items() if name != "_kept_steps"}
            for layer in model.walk()]


def test_inference_writes_nothing_on_the_layers_and_hands_out_fresh_arrays():
    model = make((13, 12, 17), WITH_ALL)
    x = normal(5, 13, 12, 17)
    model.forward(x, training=True)
    before = attributes(model)
    arrays = arrays_of(model)
    y = model.forward(x)
    for mine, old in zip(attributes(model), before):
        assert mine.keys() == old.keys()
        for name, value in old.items():
            assert mine[name] is value or mine[name] == value, name
    assert_same_bits(arrays_of(model), arrays)
    kept = y.copy()
    assert not np.shares_memory(y, model.forward(2 * x))
    np.testing.assert_array_equal(y, kept)


def test_threads_of_python_may_predict_with_one_model_at_once():
    model = make((13, 12, 17), WITH_ALL)
    x = [normal(n, 13, 12, 17, seed=n) for n in (1, 2, 16, 33)]
    expected = [model.forward(batch) for batch in x]
    failures = []

    def run(i):
        for k in range(12):
            j = (i + k) % len(x)
            if model.forward(x[j]).tobytes() != expected[j].tobytes():
                failures.append((i, j))

    workers = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


def test_after_fit_no_layer_and_no_block_holds_an_array_of_the_batch():
    inner = cnnlite.Sequential([Conv2D(4, 3), BatchNorm(), ReLU(), MaxPool()])
    model = cnnlite.Sequential([
        cnnlite.Input((12, 12, 3)), Conv2D(8, 3, activation="relu"), BatchNorm(), inner, Flatten(), Dense(2)])
    model.compile("adam", "mse")
    x, y = normal(20, 12, 12, 3), normal(20, 2, seed=1)
    model.fit(x, y, batch_size=8, verbose=0)
    assert all(layer._memory is None and not layer._buffers for layer in model.walk())
    model.train_on_batch(x, y)
    assert all(layer._memory is None for layer in model.walk())


def test_a_training_pass_hands_out_arrays_that_the_next_does_not_overwrite():
    model = make((13, 12, 17), WITH_ALL)
    results = []
    for seed in range(3):
        y = model.forward(normal(5, 13, 12, 17, seed=seed), training=True)
        dx = model.backward(normal(*y.shape, seed=seed))
        results.append((y, dx, y.copy(), dx.copy()))
    for y, dx, old_y, old_dx in results:
        np.testing.assert_array_equal(y, old_y)
        np.testing.assert_array_equal(dx, old_dx)


def test_weights_that_change_between_two_passes_are_seen():
    model = make((13, 12, 17), WITH_ALL)
    x = normal(3, 13, 12, 17)
    for seed in range(4):
        if seed % 2:
            randomise(model, seed)
        else:
            # One number, in place: nothing tells the model of it.
            model.layers[0].params["kernel"][1, 1, 16, seed] += 1
            model.layers[4].params["kernel"][0, 0, 0, 0] = np.nan if seed else 0.5
        assert_fused_is_unfused(model, x)


def test_layers_after_a_block_and_a_copy_of_the_model_do_not_share_what_it_remembers():
    model = make((13, 12, 17), WITH_ALL)
    x, other = normal(3, 13, 12, 17), normal(3, 13, 12, 17, seed=5)
    y = model.forward(x, training=True)
    dy = normal(*y.shape, seed=1)
    dx = model.backward(dy)
    twin = copy.deepcopy(model)
    model.forward(other, training=True)
    assert twin.backward(dy).tobytes() == dx.tobytes()
    for (_, mine), (_, theirs) in zip(twin.named_layers(), model.named_layers()):
        assert not any(np.shares_memory(a, b) for a, b in zip(mine.grads.values(), theirs.grads.values()))


def test_few_large_images_run_layer_by_layer_and_give_the_bits_of_a_batch():
    model = model_of(Conv2D(24, 3, activation="relu"), MaxPool(), shape=(120, 121, 3))
    x = normal(fusion.FEW, 120, 121, 3)
    assert 118 * 119 * 24 > fusion.LARGE
    alone, together = model.predict(x[:1], verbose=0), model.predict(x, batch_size=fusion.FEW, verbose=0)
    np.testing.assert_array_equal(alone, together[:1])
    block = fusion.steps(model.layers, False)[0]
    ran = []
    block.layers = [Spy(layer, ran) for layer in block.layers]
    block.forward(x[:1])
    assert ran == model.layers
    ran.clear()
    block.forward(x)
    assert ran == []


class Spy:
    """Hands x on to a layer, and notes that it did."""

    def __init__(self, layer, ran):
        self.layer, self.ran = layer, ran

    def forward(self, x):
        self.ran.append(self.layer)
        return self.layer.forward(x)
