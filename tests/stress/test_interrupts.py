"""Signals at hundreds of random moments of a training leave the model at the end of a whole step, and of use."""

import os
import random
import signal

import pytest

from cnnlite.support.interrupts import deferred_signals
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
        # For longer than it took, as it may take longer this time.
        step = interrupts.interrupted(steps, generator.uniform(1e-5, 2 * seconds), way, training)
        if step is not None:
            caught.append(step)
    assert len(set(caught)) >= len(steps) - 3
    count(f"interrupts ({way}) of a {'fit' if training is interrupts.train else 'loop of train_on_batch'}", times)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there is no timer")
def test_handlers_are_back_after_a_block_wherever_a_signal_comes():
    def ring(number, frame):
        raise TimeoutError

    generator = random.Random(0)
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGALRM: ring}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    cut = wrong = 0
    for _ in range(100_000):
        within = False
        try:
            signal.setitimer(signal.ITIMER_REAL, generator.uniform(1e-6, 8e-5))
            with deferred_signals(second_passes=True):
                within = True
                with deferred_signals():
                    for _ in range(20):
                        pass
                within = False
            for _ in range(5000):
                pass
        except TimeoutError:
            cut += within
        while True:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0)
                break
            except TimeoutError:
                pass
        wrong += any(signal.getsignal(number) is not handler for number, handler in handlers.items())
    for number, handler in before.items():
        signal.signal(number, handler)
    assert (cut, wrong) == (0, 0)
    count("blocks with a signal round them, and the handlers as before", 100_000)
