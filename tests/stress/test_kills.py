"""A training process that is killed at random moments, at least 20 times a run, ends with the same bits."""

import os
import random

import pytest

from tests.stress import kills
from tests.stress.report import count

pytestmark = [pytest.mark.stress, pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")]


@pytest.mark.parametrize(("save_freq", "epochs"), [("epoch", 26), (1, 34), (4, 32)])
def test_a_training_process_that_is_killed_at_least_20_times_ends_with_the_same_bits(tmp_path, save_freq, epochs):
    expected = kills.undisturbed(tmp_path / "undisturbed", save_freq, epochs)
    result, times, writing = kills.killed(tmp_path / "killed", save_freq, epochs, random.Random(str(save_freq)))
    assert times >= 20
    assert result == expected
    count("kills of a training process (SIGKILL)", times)
    count("of them in the middle of writing a file", writing)
    count("killed runs that ended with the bits of an undisturbed one")
