"""Signals at hundreds of random moments of a training leave the model at the end of a whole step, and of use."""

import os
import random

import pytest

from tests.stress import interrupts
from tests.stress.report import count

pytestmark = [pytest.mark.stress, pytest.mark.skipif(os.name == "nt", reason="no thread can send signals")]


@pytest.mark.parametrize(("way", "training", "times"), [
    ("SIGINT", interrupts.train, 500), ("SIGTERM", interrupts.train, 100), ("SIGALRM", interrupts.train, 100),
    ("SIGINT", interrupts.train_by_batches, 50), ("SIGUSR1", interrupts.train_by_batches, 50),
])
def test_a_signal_at_any_moment_leaves_the_model_at_the_end_of_a_step(way, training, times):
    steps, seconds = interrupts.trajectory(training)
    generator = random.Random(0)
    caught = []
    while len(caught) < times:
        step = interrupts.interrupted(steps, generator.uniform(1e-5, seconds), way, training)
        if step is not None:
            caught.append(step)
    assert len(set(caught)) >= len(steps) - 3
    count(f"interrupts ({way}) of a {'fit' if training is interrupts.train else 'loop of train_on_batch'}", times)
