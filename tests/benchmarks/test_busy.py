"""A core is busy for as long as it is asked for, and no longer."""

import os
import time

import pytest

from benchmarks.busy import busy_core


def test_a_core_is_busy_meanwhile():
    before = os.times()
    with busy_core() as process:
        time.sleep(0.3)
        assert process.poll() is None
    assert process.poll() is not None
    assert os.times().children_user - before.children_user > 0.05  # how much it gets depends on who else works


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system does not let one choose")
def test_it_is_one_core():
    with busy_core() as process:
        assert os.sched_getaffinity(process.pid) == {max(os.sched_getaffinity(0))}
