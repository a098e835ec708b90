"""10,000 training steps, as many predictions of changing size, and models that are deleted leave no memory in use."""

import pytest

from tests.kernels.drawn import compiled_kernels_needed
from tests.stress.growth import assert_no_growth
from tests.stress.report import count

pytestmark = [pytest.mark.stress, compiled_kernels_needed]


@pytest.mark.parametrize(("way", "rounds", "steps", "what"), [
    ("fit", 8, 800, "training steps in a process that took no more memory than before"),
    ("train_on_batch", 8, 200, "training steps in a process that took no more memory than before"),
    ("images", 8, 256, "calls with images of changing size in a process that took no more memory than before"),
    ("predict", 8, 1000, "predictions of changing size in a process that took no more memory than before"),
    ("delete", 6, 4, "models made, trained, deleted, and gone from memory"),
])
def test_no_memory_is_lost(way, rounds, steps, what):
    count(what, assert_no_growth(way, rounds, steps, threads=2 if way == "predict" else 1)["times"])
