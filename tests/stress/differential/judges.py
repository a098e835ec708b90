"""When two computations of the same thing agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.stress.differential.lives import Life, Observations
from tests.stress.differential.nets import RATE
from tests.stress.differential.with_torch import Mirror

# Of the largest number of an array.
TOLERANCE = {"float32": 5e-5, "float64": 1e-9}
# Where a result depends on its input more than that allows (a deviation near 0, a maximum of two like numbers, a ReLU
# at 0), it may be off by as much as so many roundings of weights and inputs would make of it.
BLUR = {"float32": 2.0**-22, "float64": 2.0**-51}
ROUNDINGS = 64
NAMES = {"call": "calls", "predict": "predictions", "train": "training steps", "evaluate": "evaluations"}


def assert_same_bits(mine: Observations, theirs: Observations) -> None:
    assert [what for what, _ in mine] == [what for what, _ in theirs]
    for (what, results), (_, expected) in zip(mine, theirs):
        assert results.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(results[name], array, err_msg=f"{what}: {name}", strict=True)


def error(mine: Any, theirs: Any) -> float:
    """Return the largest difference as a share of the largest number, or of 1 where that is more."""
    mine, theirs = np.asarray(mine, np.float64), np.asarray(theirs, np.float64)
    assert mine.shape == theirs.shape
    if not mine.size:
        return 0.0
    finite = np.isfinite(theirs)
    assert (np.isfinite(mine) == finite).all()
    largest = max(1.0, np.abs(theirs[finite]).max(initial=0.0))
    return float(np.abs(mine[finite] - theirs[finite]).max(initial=0.0) / largest)


class AgainstTorch:
    """Compares each step of a life with PyTorch's.

    Attributes:
        counts: how many steps were compared, by kind; "on the edge" are those that only agree within what roundings of
            weights and inputs make of them.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def before(self, life: Life) -> Callable[..., None]:
        """Return what compares the step that comes now."""
        mirrors = [Mirror(life.model, life.patches)]
        dtype = np.dtype(life.net.dtype).name
        mirrors += [Mirror(life.model, life.patches, BLUR[dtype], seed) for seed in range(3)]

        def expect(what: str, result: dict[str, Any], *data: Any) -> None:
            if what not in NAMES or not len(data[0]):  # for which only the library's own ways are compared
                return
            expected = _compute(mirrors[0], what, data)
            if mirrors[0].saturated:
                self.counts["steps with probabilities of nearly 0 or 1, not compared with PyTorch"] += 1
                return
            self.counts[f"{NAMES[what]} compared with PyTorch"] += 1
            errors = {name: error(result[name], array) for name, array in expected.items()}
            worst = max(errors, key=lambda name: errors[name])
            if errors[worst] <= TOLERANCE[dtype]:
                return
            blurred = [_compute(mirror, what, data) for mirror in mirrors[1:]]
            for name, array in expected.items():
                allowed = TOLERANCE[dtype] + ROUNDINGS * max(error(other[name], array) for other in blurred)
                assert errors[name] <= allowed, (
                    f"{what}: {name} is off by {errors[name]:.2g} of the largest, and may be by {allowed:.2g}"
                )
            self.counts["of these on the edge: off by what roundings of weights and inputs would make of them"] += 1

        return expect


def _compute(mirror: Mirror, what: str, data: Any) -> dict[str, Any]:
    if what == "train":
        return mirror.train(*data, RATE)
    if what == "evaluate":
        return {"loss": mirror.loss(*data).detach().numpy()}
    return {"y": mirror.predict(*data)}


def assert_close(mine: Any, theirs: Any, dtype: Any, what: str) -> None:
    """Hold one step of a life to the same step from the same weights by the definitions."""
    off = error(mine, theirs)
    assert off <= 100 * TOLERANCE[dtype.name], f"{what} is off by {off:.2g} of the largest"
