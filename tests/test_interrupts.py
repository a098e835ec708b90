"""Ctrl-C, at any moment of a fit; the long form is tests/stress/test_interrupts.py."""

import os
import random
import signal
import threading

import pytest

from cnnlite.interrupts import held_back_interrupts
from tests.stress import interrupts

needs_signals = pytest.mark.skipif(os.name == "nt", reason="there is no timer that sends signals")


@pytest.fixture
def handled():
    """Count the signals, in the place of raising KeyboardInterrupt."""
    seen = []
    before = signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    yield seen
    signal.signal(signal.SIGINT, before)


def press():
    signal.raise_signal(signal.SIGINT)


def test_an_interrupt_comes_when_the_block_is_done(handled):
    with held_back_interrupts():
        press()
        press()
        assert handled == []
    assert handled == [1, 1]
    press()
    assert handled == [1, 1, 1]


def test_a_second_one_need_not_wait(handled):
    with held_back_interrupts(second_passes=True):
        press()
        assert handled == []
        press()
        assert handled == [1]
    assert handled == [1]


def test_two_within_a_block_that_lets_none_through_are_a_first_and_a_second_one_outside(handled):
    with held_back_interrupts(second_passes=True):
        with held_back_interrupts():
            press()
            press()
            assert handled == []
        assert handled == [1]


def test_it_comes_where_the_block_raises(handled):
    @held_back_interrupts()
    def fail():
        press()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert handled == [1]


def test_other_threads_are_not_held_up():
    done = []

    def work():
        with held_back_interrupts():
            done.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [1]


@needs_signals
def test_an_interrupt_at_a_random_moment_leaves_the_model_at_the_end_of_a_step():
    steps, seconds = interrupts.trajectory()
    generator = random.Random(0)
    reached = [interrupts.interrupted(steps, generator.uniform(1e-5, seconds)) for _ in range(100)]
    assert len(set(reached) - {None}) > 5  # else the moments were all the same
