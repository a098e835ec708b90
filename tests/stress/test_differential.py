"""Random networks and lives, computed in four ways that must agree; see tests/stress/differential."""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import cnnlite
from cnnlite import fusion
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
