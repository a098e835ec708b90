"""Ctrl-C at 500 random moments of a fit leaves the model at the end of a whole step, and of use."""

import os
import random

import pytest

from tests.stress import interrupts
from tests.stress.report import count

pytestmark = [pytest.mark.stress, pytest.mark.skipif(os.name == "nt", reason="there is no timer that sends signals")]


def test_an_interrupt_at_any_moment_leaves_the_model_at_the_end_of_a_step():
    steps, seconds = interrupts.trajectory()
    generator = random.Random(0)
    caught = []
    while len(caught) < 500:
        step = interrupts.interrupted(steps, generator.uniform(1e-5, seconds))
        if step is not None:
            caught.append(step)
    assert len(set(caught)) >= len(steps) - 3
    count("interrupts (SIGINT) of a fit", len(caught))
