"""Batches: every sample once, in the model's dtype, and nothing of the user's written to."""

import tracemalloc

import numpy as np
import pytest

from cnnlite.data.batches import Arrays, Epochs, Stream, is_stream, split_validation
from cnnlite.random import RandomStream


def passed(x, y=None, sample_weight=None):
    return np.asarray(x), y, sample_weight


def collected(batches):
    return [tuple(None if part is None else part.copy() for part in batch) for batch in batches]


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float64", ">f4", "bool"])
@pytest.mark.parametrize("layout", ["contiguous", "every second", "Fortran"])
@pytest.mark.parametrize("shuffled", [False, True])
def test_each_sample_comes_once_with_its_label_and_its_weight(dtype, layout, shuffled):
    x = np.arange(10 * 2 * 3).reshape(10, 2, 3).astype(dtype)
    if layout == "every second":
        x = np.repeat(x, 2, axis=0)[::2]
    elif layout == "Fortran":
        x = np.asfortranarray(x)
    y, weights = np.arange(10), np.arange(10) / 10
    source = Arrays(x, y, weights, 4, "float32")
    batches = collected(source.batches(RandomStream(1) if shuffled else None))
    assert [len(batch[0]) for batch in batches] == [4, 4, 2]
    assert source.steps == 3
    assert all(batch[0].dtype == np.float32 and batch[0].flags.c_contiguous for batch in batches)
    order = np.concatenate([batch[1] for batch in batches])
    assert sorted(order) == list(range(10))
    assert (list(order) == list(range(10))) == (not shuffled)
    np.testing.assert_array_equal(np.concatenate([batch[0] for batch in batches]), x[order].astype("float32"))
    np.testing.assert_array_equal(np.concatenate([batch[2] for batch in batches]), weights[order])


def test_a_batch_never_is_memory_of_the_users_arrays():
    x, y, weights = np.zeros((4, 3), np.float32), np.zeros((4, 1)), np.ones(4)
    for batch in Arrays(x, y, weights, 2, "float32").batches():
        for part, whole in zip(batch, (x, y, weights)):
            assert not np.may_share_memory(part, whole)


def test_the_whole_data_is_never_converted():
    x, y = np.zeros((10_000, 200), np.uint8), np.zeros(10_000, np.uint8)  # 8 MB in float32
    tracemalloc.start()
    for _ in Arrays(x, y, None, 32, "float32").batches(RandomStream(0)):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500_000


def test_the_order_depends_on_the_seed_and_the_pass_alone():
    source = Arrays(np.arange(50.0), np.arange(50), None, 50, "float32")
    stream = RandomStream(3)
    first, second = (next(source.batches(stream))[1] for _ in range(2))
    assert not np.array_equal(first, second)
    resumed = RandomStream()
    resumed.state = (3, 1)
    np.testing.assert_array_equal(next(source.batches(resumed))[1], second)


def test_steps_go_on_where_the_last_epoch_ended_and_start_again_at_the_end():
    data = Epochs(Arrays(np.arange(6.0), np.arange(6), None, 2, "float32"), steps=2)
    epochs = [[list(y) for _, y, _ in data.epoch()] for _ in range(3)]
    assert epochs == [[[0, 1], [2, 3]], [[4, 5], [0, 1]], [[2, 3], [4, 5]]]


def test_a_generator_is_read_once_and_warns_when_it_ends_too_soon():
    source = Stream(((np.full((2, 1), i), np.full(2, i)) for i in range(3)), passed, "float32", "fit")
    assert (source.reads_once, source.steps, source.shape) == (True, None, (2, 1))
    data = Epochs(source, steps=2)
    assert [y[0] for _, y, _ in data.epoch()] == [0, 1]
    with pytest.warns(UserWarning, match="ran out after 1 of the 2 requested steps"):
        assert [y[0] for _, y, _ in data.epoch()] == [2]
    assert data.exhausted


class Sequence:
    def __len__(self):
        return 5

    def __getitem__(self, index):
        if not 0 <= index < 5:
            raise IndexError(index)
        return np.full((2, 1), index, np.uint8), np.full(2, index), np.ones(2)


def test_a_sequence_is_read_anew_in_each_pass_and_shuffled_by_batches():
    source = Stream(Sequence(), passed, "float32", "fit")
    assert (source.reads_once, source.steps) == (False, 5)
    assert [y[0] for _, y, _ in source.batches()] == [0, 1, 2, 3, 4]
    shuffled = [int(y[0]) for _, y, _ in source.batches(RandomStream(0))]
    assert shuffled != sorted(shuffled) == [0, 1, 2, 3, 4]
    assert next(source.batches())[0].dtype == np.float32


def test_a_list_is_data_and_a_generator_is_a_stream():
    assert not any(map(is_stream, ([[1.0]], ((1.0,),), np.zeros(3), "text", {"a": 1})))
    assert all(map(is_stream, (iter([]), (i for i in ()), Sequence(), map(str, []))))


def test_an_empty_stream_and_a_batch_of_the_wrong_form_are_refused():
    with pytest.raises(ValueError, match=r"at least one batch.*generator that yields nothing"):
        Stream((i for i in ()), passed, "float32", "fit")
    with pytest.raises(ValueError, match=r"a batch must be \(x, y\).*tuple of 4"):
        Stream(iter([(1, 2, 3, 4)]), passed, "float32", "fit")


def test_the_validation_split_is_the_tail_as_it_is():
    x, y, weights = np.arange(10.0)[:, None], list(range(10)), np.arange(10)
    train, validation = split_validation(x, y, weights, 0.25)
    assert list(train[1]) == list(range(7))
    assert list(validation[1]) == [7, 8, 9]
    assert list(validation[2]) == [7, 8, 9]
    assert np.may_share_memory(train[0], x)
    with pytest.raises(ValueError, match=r"samples on both sides.*=0\.9 of 5 samples"):
        split_validation(x[:5], y[:5], None, 0.9)
    with pytest.raises(ValueError, match="validation_split must be 0"):
        split_validation(iter([]), None, None, 0.5)
