"""Ratios, means and shares of a canned report."""

import pytest

from benchmarks import figures
from benchmarks.sides import KERAS, ONNX, PYTORCH, TORCH, TORCH_LAST
from tests.benchmarks.reports import ALONE, CONVOLUTIONS, MEMORY, REPORT, ROOF, TRAIN


def test_the_ratio_is_the_median_over_rounds_against_the_opponent_with_the_shortest_median():
    compared = figures.compare(TRAIN, PYTORCH)
    assert compared["best"] == TORCH_LAST
    assert compared["ratio"] == pytest.approx(2.5)
    assert (compared["lowest"], compared["highest"]) == pytest.approx((2.25, 3))
    assert (compared["cnnlite"], compared["opponent"]) == (0.02, 0.05)


def test_all_opponents_count_unless_some_are_named():
    assert figures.compare(TRAIN)["best"] == KERAS
    assert figures.compare(TRAIN, [TORCH])["best"] == TORCH


def test_without_an_opponent_there_is_no_ratio():
    assert figures.compare(ALONE) is None
    assert figures.compare(TRAIN, [ONNX]) is None
    assert figures.share_of_memory({**MEMORY, "bytes": {"cnnlite": [1]}}) is None
    assert figures.mean_ratio(REPORT, "kernel gradient") is None


def test_the_mean_of_ratios_is_the_geometric_one():
    mean = figures.mean_ratio(REPORT, "forward")
    assert (mean["ratio"], mean["lowest"], mean["highest"]) == pytest.approx((2, 2, 2))
    # One round in which the second convolution is 16 times as slow as the opponent's.
    slow = {**CONVOLUTIONS[1], "seconds": {"cnnlite": [1.6, 0.2, 0.3], TORCH: [0.1, 0.2, 0.3]}}
    mean = figures.mean_ratio({"results": [CONVOLUTIONS[0], slow]}, "forward")
    assert (mean["ratio"], mean["lowest"], mean["highest"]) == pytest.approx((2, 0.5, 2))


def test_large_operations_have_a_mean_and_a_lowest_row():
    mean = figures.large_means(REPORT, ["forward"])
    assert (mean["ratio"], mean["lowest"], mean["highest"]) == pytest.approx((1, 1, 1))
    assert figures.large_means(REPORT, ["kernel gradient", "input gradient"]) is None
    lowest = figures.lowest_large(REPORT)
    assert (lowest["ratio"], lowest["best"]) == (pytest.approx(0.5), "PyTorch, in forward, number 0")
    assert figures.lowest_large({"results": []}) is None


def test_the_share_of_the_roof_is_a_ratio_of_rates():
    share = figures.share_of_roof(ROOF)
    # 2, 4 and 2 GFLOP/s of 4, 4 and 2.
    assert (share["lowest"], share["share"], share["highest"]) == (0.5, 1, 1)


def test_the_share_of_memory_is_that_of_the_leanest_opponent():
    share = figures.share_of_memory(MEMORY)
    assert (share["best"], share["share"]) == (TORCH_LAST, pytest.approx(0.4))


def test_the_machines_roofs_are_rates():
    assert figures.machine_roofs(REPORT) == pytest.approx((2e11, 2e10))
    assert figures.machine_roofs({"results": []}) == (None, None)


def test_every_result_can_be_shown_in_a_line():
    lines = [figures.in_one_line(result) for result in REPORT["results"]]
    assert "train W1: 0.50 times as fast as Keras on TensorFlow" in lines
    assert "train W3: 100% of SGEMM" in lines
    assert "memory, train W1: 40% of PyTorch, channels last" in lines
    assert "import: 1 s, without an opponent" in lines
    assert "SGEMM: 200 GFLOP/s" in lines
    assert "copy: 20 GB/s" in lines
