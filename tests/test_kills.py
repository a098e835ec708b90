"""A training process that is killed and started again: the short form of tests/stress/test_kills.py."""

import os
import random

import pytest

from tests.stress import kills

FILES = {"result.json", "best.safetensors", "log.csv"}


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_a_training_process_that_is_killed_ends_with_the_same_bits(tmp_path):
    expected = kills.undisturbed(tmp_path / "undisturbed", 3, 5)
    assert set(expected) == FILES
    result, count, _ = kills.killed(tmp_path / "killed", 3, 5, random.Random(1), kills=3)
    assert count == 3
    assert result == expected
