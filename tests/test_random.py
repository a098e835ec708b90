"""Random streams: two integers decide every number, and nothing else does."""

import numpy as np
import pytest

from cnnlite.random import RandomStream, new_seed, set_random_seed


def test_a_seed_decides_all_generators_in_their_order():
    a, b = RandomStream(5), RandomStream(5)
    for _ in range(3):
        np.testing.assert_array_equal(a.generator().random(4), b.generator().random(4))


def test_no_two_generators_draw_the_same_numbers():
    drawn = [RandomStream(seed) for seed in range(5)]
    drawn = [stream.generator().random() for stream in drawn for _ in range(5)]
    assert len(set(drawn)) == 25


def test_generators_of_neighbouring_seeds_and_counts_are_not_correlated():
    rows = [stream.generator().normal(size=2000) for stream in (RandomStream(0), RandomStream(1)) for _ in range(2)]
    correlation = np.corrcoef(rows) - np.eye(4)
    assert np.abs(correlation).max() < 0.1


def test_the_state_leads_back_to_the_same_numbers():
    stream = RandomStream(5)
    stream.generator()
    state = stream.state
    assert state == (5, 1)
    first = stream.generator().random(4)
    other = RandomStream(9)
    other.state = state
    np.testing.assert_array_equal(other.generator().random(4), first)


def test_streams_without_a_seed_differ_and_follow_the_library_seed():
    set_random_seed(3)
    seeds = [RandomStream().seed for _ in range(4)]
    assert len(set(seeds)) == 4
    set_random_seed(3)
    assert [new_seed() for _ in range(4)] == seeds


def test_a_stream_with_a_seed_takes_nothing_from_the_library():
    set_random_seed(3)
    RandomStream(1).generator()
    first = new_seed()
    set_random_seed(3)
    assert new_seed() == first


def test_the_bits_are_the_same_on_every_machine():
    # A run that was saved in one place must go on with the same numbers in another.
    bits = RandomStream(2**64 - 1).generator().bit_generator
    assert bits.random_raw(2).tolist() == [4333907348786404347, 13232047798055274199]


@pytest.mark.parametrize(
    ("seed", "error", "message"),
    [
        (-1, ValueError, "RandomStream: seed must be at least 0. Received: seed=-1"),
        (2**64, ValueError, r"seed must be less than 2\*\*64. Received: seed=18446744073709551616"),
        (0.5, TypeError, "seed must be an integer"),
        ("7", TypeError, "seed must be an integer"),
    ],
)
def test_a_seed_that_is_none_is_refused(seed, error, message):
    with pytest.raises(error, match=message):
        RandomStream(seed)


def test_a_refused_seed_leaves_the_library_as_it_was():
    set_random_seed(3)
    first = new_seed()
    set_random_seed(3)
    with pytest.raises(ValueError, match="set_random_seed: seed must be less than"):
        set_random_seed(2**64)
    assert new_seed() == first
