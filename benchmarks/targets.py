"""How fast cnnlite is meant to be, and whether it is."""

from collections.abc import Callable
from typing import NamedTuple

from benchmarks.convolutions import DIRECTIONS
from benchmarks.figures import compare, mean_ratio, of_topic, share_of_memory, share_of_roof
from benchmarks.sides import ONNX, PYTORCH

BEST_OF_PYTORCH = "PyTorch's best"


class Target(NamedTuple):
    """One line of the table.

    Attributes:
        least: what must be reached; of memory, what must not be exceeded.
        figure: takes the report and returns the figure reached, with its spread if it has one, or None.
    """

    work: str
    against: str
    least: float
    figure: Callable
    form: str = ".2f"
    at_most: bool = False


def find(report, topic, work):
    return next((result for result in of_topic(report, topic) if result["work"] == work), None)


def ratio(topic, work, against, least, among):
    def figure(report):
        result = find(report, topic, work)
        return result and compare(result, among)

    return Target(work, against, least, figure)


def mean(direction, least):
    return Target(f"single convolutions, {direction}", "PyTorch's better layout", least,
                  lambda report: mean_ratio(report, direction))


def of_sgemm(work, least):
    def figure(report):
        result = find(report, "roof", work)
        return result and share_of_roof(result)

    return Target(f"{work}, arithmetic", "NumPy's SGEMM", least, figure, ".0%")


def of_memory(work, most):
    def figure(report):
        result = find(report, "memory", work)
        return result and share_of_memory(result)

    return Target(f"{work}, peak memory", "PyTorch's process", most, figure, ".0%", at_most=True)


TARGETS = [
    *(ratio("train", f"train {net}", BEST_OF_PYTORCH, least, PYTORCH)
      for net, least in {"W1": 2.5, "W2": 2.5, "LeNet-5": 4, "W3": 1.25, "M3": 1.15, "MLP": 1.0}.items()),
    ratio("infer", "infer W1, batch 128", ONNX, 1.1, [ONNX]),
    ratio("infer", "infer W2, batch 128", ONNX, 1.1, [ONNX]),
    ratio("infer", "infer W1, batch 1", ONNX, 1.0, [ONNX]),
    ratio("infer", "infer W1, batch 1", BEST_OF_PYTORCH, 4, PYTORCH),
    *(mean(direction, 1.0) for direction in DIRECTIONS),
    of_sgemm("train W3", 0.7),
    of_memory("train W1", 0.6),
    of_memory("train W3", 0.6),
]


def rows(report):
    """Return the cells of the table of targets, a list for each line. What was not measured says so."""
    table = []
    for target in TARGETS:
        figures = target.figure(report)
        goal = f"at {'most' if target.at_most else 'least'} {target.least:{target.form}}"
        if not figures:
            table.append([target.work, target.against, "", "", goal, "not measured"])
            continue
        value = figures["share" if "share" in figures else "ratio"]
        ends = [f"{figures[end]:{target.form}}" for end in ("lowest", "highest") if end in figures]
        against = f"{target.against}: {figures['best']}" if target.against == BEST_OF_PYTORCH else target.against
        reached = "yes" if (value <= target.least if target.at_most else value >= target.least) else "NO"
        table.append([target.work, against, f"{value:{target.form}}", " to ".join(ends), goal, reached])
    return table
