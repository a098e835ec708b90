"""Processes that compute and then make others which do, in every way that users have, with each of numba's layers."""

import os

import pytest

from tests.helpers.programs import LAYERS, run_program
from tests.kernels.drawn import compiled_kernels_needed
from tests.stress import cores
from tests.stress.processes import WAYS
from tests.stress.report import count

pytestmark = [pytest.mark.stress, compiled_kernels_needed, pytest.mark.skipif(os.name == "nt", reason="no fork")]

ROUNDS = {
    "fork": 20, "fork first": 20, "fork from a thread": 20, "fork in a callback": 10, "fork amid work": 20,
    "server": 10,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layer", LAYERS)
def test_processes_get_the_same_bits(layer, way):
    result, _ = run_program("tests.stress.processes", way, ROUNDS.get(way, 2), layer=layer, threads=3, timeout=300)
    assert result["layer"] == layer
    count("processes that a computing process made (fork, spawn, forkserver, loky)", result["processes"][way])


@pytest.mark.parametrize(("case", "threads"), cores.EXPECTED)
def test_as_many_threads_work_as_there_are_cores_or_as_somebody_said(case, threads):
    cores.check(case, threads)
    count("ways to limit the cores, by measured time of threads")
