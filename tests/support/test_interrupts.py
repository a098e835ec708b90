"""Ctrl-C and other signals, at any moment of a training; the long form is tests/stress/test_interrupts.py."""

import gc
import os
import random
import signal
import threading
import types
import warnings

import numpy as np
import pytest

import cnnlite
from cnnlite.datasets import mnist
from cnnlite.files import saving
from cnnlite.layers.memo import WeakSet
from cnnlite.support.interrupts import deferred_signals
from tests.helpers.models import make_model, weights_of
from tests.kernels.drawn import compiled_kernels_needed
from tests.stress import interrupts

needs_signals = pytest.mark.skipif(os.name == "nt", reason="no thread can send signals")


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
    with deferred_signals():
        press()
        press()
        assert handled == []
    assert handled == [1, 1]
    press()
    assert handled == [1, 1, 1]


def test_a_second_one_need_not_wait(handled):
    with deferred_signals(second_passes=True):
        press()
        assert handled == []
        press()
        assert handled == [1]
    assert handled == [1]


def test_two_within_a_block_that_lets_none_through_are_a_first_and_a_second_one_outside(handled):
    with deferred_signals(second_passes=True):
        with deferred_signals():
            press()
            press()
            assert handled == []
        assert handled == [1]


def test_it_comes_where_the_block_raises(handled):
    @deferred_signals()
    def fail():
        press()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert handled == [1]


def test_other_threads_are_not_held_up():
    done = []

    def work():
        with deferred_signals():
            done.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [1]


# Other signals, of which some handlers raise.


@pytest.fixture(params=[name for name in ("SIGTERM", "SIGALRM", "SIGUSR1", "SIGBREAK") if hasattr(signal, name)])
def other(request):
    """Return a signal that raises TimeoutError, and what has been received of it."""
    number, seen = getattr(signal, request.param), []

    def handler(*arguments):
        seen.append(arguments)
        raise TimeoutError

    before = signal.signal(number, handler)
    yield number, seen
    assert signal.getsignal(number) is handler
    signal.signal(number, before)


def test_what_any_handler_raises_comes_when_the_block_is_done(other):
    number, seen = other
    done = []

    def work():
        with deferred_signals(second_passes=True):
            signal.raise_signal(number)
            with deferred_signals():
                signal.raise_signal(number)
            assert not seen
            done.append(1)

    with pytest.raises(TimeoutError):
        work()
    assert done
    assert [received for received, _ in seen] == [number, number]
    assert seen[0][1].f_code is work.__code__


def test_all_that_came_is_passed_on_where_the_first_handler_raises(handled, other):
    def work():
        with deferred_signals():
            signal.raise_signal(other[0])
            press()

    with pytest.raises(TimeoutError):
        work()
    assert handled == [1]


def test_a_second_ctrl_c_passes_where_another_signal_waits(handled, other):
    def work():
        with deferred_signals(second_passes=True):
            press()
            signal.raise_signal(other[0])
            press()
            assert handled == [1]
            assert not other[1]

    with pytest.raises(TimeoutError):
        work()


def test_an_alarm_is_no_fault_of_a_file(other):
    with pytest.raises(TimeoutError), saving.blaming("a file", "it is damaged"):
        signal.raise_signal(other[0])


def test_an_alarm_is_no_fault_of_mnist(other, monkeypatch):
    monkeypatch.setattr(mnist, "_read_member", lambda *_: signal.raise_signal(other[0]))
    with pytest.raises(TimeoutError):
        mnist.load_data()


def test_a_step_of_an_optimizer_is_whole_in_a_loop_of_the_users_own(other):
    model, seen = make_model(), []

    class Slow(cnnlite.optimizers.SGD):
        def update(self, *arguments):
            signal.raise_signal(other[0])
            super().update(*arguments)
            seen.append(1)

    optimizer = Slow()
    optimizer.build(model.parameters())
    before = weights_of(model)
    model.parameters().gradient[:] = 1
    with pytest.raises(TimeoutError):
        optimizer.step(model.parameters())
    assert seen
    assert optimizer.iterations == 1
    np.testing.assert_allclose(weights_of(model), before - np.float32(0.01), rtol=1e-6)


@compiled_kernels_needed  # else nothing is kept of the layers
def test_an_alarm_is_not_lost_where_a_model_goes_whose_layers_stay():
    # What a handler raises within a function that a weak reference calls is only printed.
    layer = cnnlite.layers.Dense(2)
    model = cnnlite.Sequential([cnnlite.Input((3,)), layer])
    model.predict(np.ones((1, 3)), verbose=0)
    assert isinstance(layer.memos, WeakSet)
    (reference,) = layer.memos._references.values()
    callback = reference.__callback__
    assert not isinstance(getattr(callback, "func", callback), types.FunctionType)
    del model
    gc.collect()
    assert not layer.memos.things()
    assert not layer.memos._references


def test_a_handler_that_is_set_within_the_block_stays(other):
    number, _ = other
    before, seen = signal.getsignal(number), []
    with deferred_signals():
        meanwhile = signal.signal(number, lambda *_: seen.append(1))
        signal.raise_signal(number)
        assert seen == [1]
    signal.raise_signal(number)
    assert seen == [1, 1]
    signal.signal(number, meanwhile)  # as who put another in its place for a while does
    with pytest.raises(TimeoutError):
        signal.raise_signal(number)
    signal.signal(number, before)


def test_signals_that_python_does_not_handle_are_left_alone():
    before = [signal.getsignal(number) for number in signal.valid_signals()]
    with deferred_signals():
        within = [signal.getsignal(number) for number in signal.valid_signals()]
    pairs = list(zip(before, within, strict=True))
    assert all(mine is other for mine, other in pairs if not callable(mine))
    assert all(mine is not other for mine, other in pairs if callable(mine))
    assert [signal.getsignal(number) for number in signal.valid_signals()] == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_child_that_another_thread_forks_off_within_a_block_can_be_ended(number):
    codes = []

    def fork():
        child = os.fork()
        if not child:
            signal.raise_signal(number)  # which ends it with the code 7
            os._exit(0)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    before = signal.signal(number, lambda *_: os._exit(7))
    try:
        with warnings.catch_warnings(), deferred_signals():
            warnings.simplefilter("ignore")  # newer Pythons warn of forks where there are threads
            thread = threading.Thread(target=fork)
            thread.start()
            thread.join()
    finally:
        signal.signal(number, before)
    assert codes == [7]


@needs_signals
@pytest.mark.parametrize(("way", "training", "times"), [
    ("SIGINT", interrupts.train, 40), ("SIGTERM", interrupts.train, 20), ("SIGALRM", interrupts.train, 20),
    ("SIGUSR1", interrupts.train_by_batches, 20),
])
def test_a_signal_at_a_random_moment_leaves_the_model_at_the_end_of_a_step(way, training, times):
    steps, seconds = interrupts.trajectory(training)
    generator = random.Random(0)
    reached = []
    # More often where most signals come in the same step, as the first one takes longer, and the machine may be busy.
    while len(reached) < times or (len(set(reached) - {None}) <= 2 and len(reached) < 10 * times):
        reached.append(interrupts.interrupted(steps, generator.uniform(1e-5, seconds), way, training))
    assert len(set(reached) - {None}) > 2  # else the moments were all the same
