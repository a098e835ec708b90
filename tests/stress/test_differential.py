"""Random networks and lives, computed in four ways that must agree; see tests/stress/differential."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from cnnlite import fusion, kernels
from tests.stress import report
from tests.stress.differential import nets
from tests.stress.differential.lives import Life, lead

pytest.importorskip("torch")
from tests.stress.differential.judges import AgainstTorch, assert_close, assert_same_bits

pytestmark = pytest.mark.stress


@pytest.fixture(scope="module")
def in_reference_mode():
    """Return a function that leads a life in a process of its own, which computes with reference.py."""
    before = os.environ.get("CNNLITE_KERNELS")
    os.environ["CNNLITE_KERNELS"] = "reference"
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            assert not pool.submit(_is_compiled).result()
            yield lambda *arguments: pool.submit(lead, *arguments).result()
    finally:
        del os.environ["CNNLITE_KERNELS"]
        if before is not None:
            os.environ["CNNLITE_KERNELS"] = before


def _is_compiled():
    return kernels.COMPILED


def test_networks_compute_the_same_as_they_run_layer_by_layer_by_the_definitions_and_in_pytorch(in_reference_mode):
    @settings(max_examples=int(os.environ.get("CNNLITE_LIVES", 1500)), deadline=None, derandomize=True, database=None,
              suppress_health_check=list(HealthCheck))
    @given(nets.nets(), nets.lives)
    def led(net, events):
        judge = AgainstTorch()
        life = Life(net, events, judge=judge)
        with fusion.disabled():
            alone = lead(net, events)
        assert_same_bits(life.observations, alone)
        by_definition = in_reference_mode(net, events, life.starts)
        assert [what for what, _ in by_definition] == [what for what, _ in life.observations]
        for (what, mine), (_, theirs) in zip(life.observations, by_definition):
            for name, array in theirs.items():
                assert_close(mine[name], array, np.dtype(net.dtype), f"{what}: {name}")
        report.count("networks and lives: as it runs, layer by layer, by the definitions, in PyTorch")
        for kind, number in judge.counts.items():
            report.count(f"    {kind}", number)

    led()
