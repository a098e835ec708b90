"""Random networks and lives, computed in four ways that must agree; see tests/stress/differential."""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import cnnlite
from cnnlite import fusion
from cnnlite.engine import program, schedule
from tests.stress import report
from tests.stress.differential import nets
from tests.stress.differential.lives import Life, lead

pytest.importorskip("torch")
from tests.stress.differential.judges import AgainstTorch, assert_close, assert_same_bits

pytestmark = [pytest.mark.stress, pytest.mark.filterwarnings("ignore::UserWarning")]  # of a softmax of one number, say
LIVES = int(os.environ.get("CNNLITE_LIVES", 3000))


def test_networks_compute_the_same_as_they_run_layer_by_layer_in_eager_mode_and_in_pytorch():
    @settings(max_examples=LIVES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(nets.nets(), nets.lives)
    def led(net, events):
        judge = AgainstTorch()
        life = Life(net, events, judge=judge)
        with fusion.disabled():
            alone = lead(net, events)
        assert_same_bits(life.observations, alone)
        with cnnlite.reference_mode():
            eager = lead(net, events, life.starts)
        assert [what for what, _ in eager] == [what for what, _ in life.observations]
        for (what, mine), (_, theirs) in zip(life.observations, eager):
            for name, array in theirs.items():
                assert_close(mine[name], array, np.dtype(net.dtype), f"{what}: {name}")
        report.count("networks and lives: as it runs, layer by layer, in eager mode and in PyTorch")
        for kind, number in judge.counts.items():
            report.count(f"    {kind}", number)

    led()


# All by threads, and by bands of rows where there are few samples; and what runs together cut very fine or not at all.
SCHEDULES = {
    "threads and bands": {},
    "little together": {"RESIDENT_BYTES": 1, "LIGHT_BYTES": -1, "LOCAL_BYTES": 1},
    "all together": {"RESIDENT_BYTES": 1 << 40, "LOCAL_BYTES": 1 << 24, "TASKS": 1},
    "few weights, many samples": {"RESIDENT_BYTES": 4096, "LOCAL_BYTES": 1 << 24, "TASKS": 1},
}


@pytest.mark.parametrize("how", SCHEDULES)
def test_bits_do_not_depend_on_threads_bands_or_what_runs_together(monkeypatch, how):
    monkeypatch.setattr(program, "SMALL_WORK", 0)
    for name, value in SCHEDULES[how].items():
        monkeypatch.setattr(schedule, name, value)

    @settings(max_examples=LIVES // 4, deadline=None, suppress_health_check=list(HealthCheck))
    @given(nets.nets(), nets.lives)
    def led(net, events):
        together = lead(net, events)
        with fusion.disabled():
            assert_same_bits(together, lead(net, events))
        report.count(f"networks and lives with other schedules: {how}")

    led()
