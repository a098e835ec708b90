"""Dropout and SpatialDropout2D: masks, their streams, and gradients under one mask."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnnlite
from cnnlite.layers import Dropout, SpatialDropout2D


def test_inference_is_the_identity():
    x = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    np.testing.assert_array_equal(Dropout(0.5)(x), x)


@settings(max_examples=20, deadline=None)
@given(rate=st.floats(0, 0.95), seed=st.integers(0, 1000), dtype=st.sampled_from(["float32", "float64"]))
def test_training_drops_the_share_and_keeps_the_mean(rate, seed, dtype):
    layer = Dropout(rate, seed=seed, dtype=dtype)
    x = np.ones((100, 100), dtype)
    y = layer(x, training=True)
    assert y.dtype == dtype
    kept = y[y != 0]
    np.testing.assert_allclose(kept, 1 / (1 - rate), rtol=1e-6)
    assert abs((y == 0).mean() - rate) < 0.03  # six standard deviations
    np.testing.assert_array_equal(x, 1)
    # The gradient goes through the same mask, once or twice.
    np.testing.assert_array_equal(layer.backward(x), y)
    np.testing.assert_array_equal(layer.backward(2 * x), 2 * y)


def test_rates_at_the_ends():
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    for rate, expected in ((0, x), (1, np.zeros_like(x))):
        layer = Dropout(rate)
        np.testing.assert_array_equal(layer(x, training=True), expected)
        np.testing.assert_array_equal(layer.backward(x), expected)


@pytest.mark.parametrize("layer", [
    Dropout(0.4), Dropout(0), Dropout(0.5, noise_shape=(None, 1, 1, None)), SpatialDropout2D(0.5),
    SpatialDropout2D(0.5, data_format="channels_first"),
], ids=repr)
def test_gradient_equals_finite_differences_for_one_mask(layer):
    report = cnnlite.check_gradients(layer, np.random.default_rng(0).normal(size=(3, 2, 3, 4)))
    assert report.ok, report


def test_each_pass_draws_a_new_mask_and_a_seed_the_same_ones():
    x = np.ones((10, 10))
    first, second = Dropout(0.5, seed=3), Dropout(0.5, seed=3)
    a, b = first(x, training=True), first(x, training=True)
    assert (a != b).any()
    np.testing.assert_array_equal(second(x, training=True), a)
    np.testing.assert_array_equal(second(x, training=True), b)
    assert (Dropout(0.5, seed=4)(x, training=True) != a).any()


def test_inference_draws_nothing():
    layer = Dropout(0.5, seed=3)
    before = layer.random.state
    layer(np.ones((2, 2)))
    assert layer.random.state == before


def test_library_seed_sets_the_masks_of_layers_without_one():
    x, masks = np.ones((10, 10)), []
    for _ in range(2):
        cnnlite.random.set_random_seed(5)
        masks.append(Dropout(0.5)(x, training=True))
    np.testing.assert_array_equal(*masks)


def test_state_of_the_stream_brings_the_mask_back():
    layer = Dropout(0.5)
    layer(np.ones((5, 5)), training=True)
    state = layer.random.state
    y = layer(np.ones((5, 5)), training=True)
    layer.random.state = state
    np.testing.assert_array_equal(layer(np.ones((5, 5)), training=True), y)


def test_mask_is_the_same_in_both_precisions():
    x = np.ones((10, 10))
    a = Dropout(0.3, seed=1, dtype="float32")(x, training=True)
    b = Dropout(0.3, seed=1, dtype="float64")(x, training=True)
    np.testing.assert_array_equal(a == 0, b == 0)


def test_noise_shape_shares_the_mask():
    y = Dropout(0.5, noise_shape=(None, 1, 5), seed=0)(np.ones((20, 4, 5)), training=True)
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1], y.shape))
    assert len(np.unique(y)) == 2


@pytest.mark.parametrize(("data_format", "axes"), [("channels_last", (1, 2)), ("channels_first", (2, 3))])
def test_spatial_dropout_drops_whole_channels_of_single_images(data_format, axes):
    layer = SpatialDropout2D(0.5, data_format=data_format, seed=0)
    x = np.ones((8, 6, 6, 6), np.float32)
    y = layer(x, training=True)
    assert (y.min(axis=axes) == y.max(axis=axes)).all()
    channels = y.mean(axis=axes)
    assert set(np.unique(channels)) == {0, 2}
    assert (channels != channels[:1]).any()
    np.testing.assert_array_equal(layer(x), x)


def test_infinity_that_is_dropped_warns_of_nothing():
    assert np.isnan(Dropout(1.0)(np.full((1, 2), np.inf), training=True)).all()


def test_empty_batch_gives_an_empty_batch():
    assert Dropout(0.5)(np.ones((0, 3)), training=True).shape == (0, 3)


@pytest.mark.parametrize(("make", "error", "message"), [
    (lambda: Dropout(-0.1), ValueError, "Dropout: rate must be at least 0"),
    (lambda: Dropout(1.5), ValueError, "Dropout: rate must be at most 1. Received: rate=1.5"),
    (lambda: Dropout("half"), TypeError, "Dropout: rate must be a number"),
    (lambda: Dropout(0.5, noise_shape=3), ValueError, "noise_shape must be a tuple"),
    (lambda: Dropout(0.5, noise_shape=(1, 0)), ValueError, "noise_shape must be at least 1"),
    (lambda: Dropout(0.5, noise_shape=(1, 2))(np.ones((2, 3)), training=True), ValueError, "noise_shape must have 1"),
    (lambda: Dropout(0.5, noise_shape=(1,))(np.ones((2, 3)), training=True), ValueError, "noise_shape must have 1"),
    (lambda: SpatialDropout2D(0.5)(np.ones((2, 3))), ValueError, "the input must have 4 axes"),
    (lambda: SpatialDropout2D(2), ValueError, "SpatialDropout2D: rate must be at most 1"),
    (lambda: Dropout(0.5).backward(np.ones((1, 2))), ValueError, "forward pass in training mode"),
])
def test_wrong_arguments_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("layer", [
    Dropout(0.25, noise_shape=(None, 1), seed=9), SpatialDropout2D(0.1, "channels_first", 3),
])
def test_config_makes_the_same_layer(layer):
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()
