"""How fast cnnlite is meant to be, and whether it is: a floor for each piece of work, and an aim beyond it."""

import statistics
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.convolutions import DIRECTIONS
from benchmarks.figures import (
    BETTER_LAYOUT,
    compare,
    large_means,
    lowest_large,
    mean_ratio,
    of_topic,
    share_of_memory,
    share_of_roof,
    spread,
)
from benchmarks.sides import CNNLITE, JAX, KERAS, ONLY_INFER, ONNX, PYTORCH

BEST_OF_PYTORCH = "PyTorch's best"
BEST_OF_XLA = "the best of Keras and JAX"
BEST_OF_INFERENCE = "the better of ONNX Runtime and OpenVINO"


class Target(NamedTuple):
    """One line of the table.

    Attributes:
        floor: what must be reached; for times and memory, what must not be exceeded.
        aim: the next goal, or None if the floor is enough.
        figure: takes the report and returns the figures, or None if they were not measured. `name` is the key of
            the one that counts; "lowest" and "highest" are its spread if it has one, "best" the opponent.
    """

    work: str
    against: str
    floor: float
    aim: float | None
    figure: Callable
    name: str = "ratio"
    form: str = "{:.2f}"
    at_most: bool = False

    def is_reached(self, value):
        """Return "aim", "floor" or "NO"."""
        for name, goal in (("aim", self.aim), ("floor", self.floor)):
            if goal is not None and (value <= goal if self.at_most else value >= goal):
                return name
        return "NO"

    def goal(self, goal):
        """Return the floor or the aim as displayed."""
        return "" if goal is None else f"{'at most ' * self.at_most}{self.form.format(goal)}"


def find(report, topic, work):
    return next((result for result in of_topic(report, topic) if result["work"] == work), None)


def of_result(topic, work, figure):
    """Return a function that takes the report and applies `figure` to that result, if the report has it."""

    def figure_of(report):
        result = find(report, topic, work)
        return result and figure(result)

    return figure_of


def ratio(topic, work, against, among, floor, aim):
    return Target(work, against, floor, aim, of_result(topic, work, lambda result: compare(result, among)))


def mean(direction, floor):
    return Target(f"single convolutions, {direction}", BETTER_LAYOUT, floor, None,
                  lambda report: mean_ratio(report, direction))


def mean_of_large(what, directions, floor, aim):
    return Target(f"large operations, {what}", BETTER_LAYOUT, floor, aim,
                  lambda report: large_means(report, directions))


def of_sgemm(work, floor):
    return Target(f"{work}, arithmetic", "NumPy's SGEMM", floor, None, of_result("roof", work, share_of_roof), "share",
                  "{:.0%}")


def of_memory(work, floor, aim):
    return Target(f"{work}, peak memory", "PyTorch's process", floor, aim, of_result("memory", work, share_of_memory),
                  "share", "{:.0%}", at_most=True)


def of_start(work, floor, aim):
    """Return a target for cnnlite's time alone, without an opponent."""

    def seconds(result):
        times = result["seconds"][CNNLITE]
        return {"cnnlite": statistics.median(times), **spread(times, "seconds")}

    return Target(work, "", floor, aim, of_result("start", work, seconds), "seconds", "{:.2f} s", at_most=True)


def each(make, goals, *arguments):
    """Return the targets for {work: (floor, aim)}."""
    return [make(work, *arguments, *goal) for work, goal in goals.items()]


def training(net, against, among, floor, aim):
    return ratio("train", f"train {net}", against, among, floor, aim)


def training_with_avx2(net, floor, aim):
    return ratio("avx2", f"train {net}, AVX2 alone", BEST_OF_PYTORCH, PYTORCH, floor, aim)


def inference(work, floor, aim):
    return ratio("infer", f"infer {work}", BEST_OF_INFERENCE, ONLY_INFER, floor, aim)


TARGETS = [
    *each(training, {"W1": (4, 5), "W2": (3.5, 4.5), "LeNet-5": (2.5, 4), "MLP": (1.15, 1.4), "W3": (2.2, 2.5),
                     "M3": (1.8, 2.2), "V1": (1.8, 2.2), "G1": (2.5, 3), "S1": (2, 2.5)}, BEST_OF_PYTORCH, PYTORCH),
    *each(training, {"W1": (2.8, 3.5), "W2": (2.8, 3.5), "MLP": (1, 1),
                     **dict.fromkeys(["LeNet-5", "W3", "M3", "V1", "G1", "S1"], (1.2, 1.5))},
          BEST_OF_XLA, [KERAS, JAX]),
    *each(inference, {"W1, batch 1": (1.2, 1.6), "W2, batch 1": (1, 1.4), "V1, batch 1": (1, 1.3),
                      "G1, batch 1": (1, 1.3), "S1, batch 1": (1, 1.3), "W1, batch 128": (1.3, 1.6),
                      "W2, batch 128": (1.3, 1.6), "V1, batch 64": (1.4, 1.6), "S1, batch 32": (1, 1.3)}),
    *each(training_with_avx2, {"W1": (3, 3.5), "W2": (2.5, 3), "LeNet-5": (2, 3), "MLP": (1.1, 1.3), "V1": (2.1, 2.3)}),
    ratio("busy", "train W1, one core busy", BETTER_LAYOUT, PYTORCH, 6, 6),
    ratio("script", "a Keras script, whole process", KERAS, [KERAS], 3, 4),
    *each(of_start, {"processor time of the first step, nothing compiled yet": (12, 6), "import": (0.65, 0.5),
                     "first step": (1.1, 0.8)}),
    *each(of_memory, {"train W1": (0.45, 0.4), "train V1": (0.6, 0.45), "train G1": (0.5, 0.45)}),
    mean_of_large("forward", DIRECTIONS[:1], 1.1, 1.3),
    mean_of_large("both gradients", DIRECTIONS[1:], 1, 1.3),
    Target("large operations, the lowest", BETTER_LAYOUT, 0.8, 1, lowest_large),
    ratio("train", "train ResNet-18", BETTER_LAYOUT, PYTORCH, 1, None),
    *(ratio("infer", f"infer ResNet-18, batch {batch}", against, among, floor, None)
      for batch in (1, 8) for against, among, floor in ((BETTER_LAYOUT, PYTORCH, 1), (ONNX, [ONNX], 0.9))),
    *(mean(direction, 1) for direction in DIRECTIONS),
    of_sgemm("train W3", 0.7),
]


def rows(report):
    """Return the cells of the table of targets, one list per line, including targets that were not measured."""
    return [cells(target, target.figure(report)) for target in TARGETS]


def cells(target, figures):
    goals = [target.goal(target.floor), target.goal(target.aim)]
    if not figures:
        return [target.work, target.against, "", "", *goals, "not measured"]
    value = figures[target.name]
    ends = [target.form.format(figures[end]) for end in ("lowest", "highest") if end in figures]
    return [target.work, opponent(target, figures), target.form.format(value), " to ".join(ends), *goals,
            target.is_reached(value)]


def opponent(target, figures):
    """Return what the target is measured against, and which of several opponents it turned out to be."""
    best = figures.get("best", target.against)
    return target.against if best == target.against else f"{target.against}: {best}"
