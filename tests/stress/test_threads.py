"""Eight threads that train, predict and call models at once, with each of numba's threading layers."""

import pytest

from tests.helpers.programs import LAYERS, run_program
from tests.kernels.drawn import compiled_kernels_needed
from tests.stress.report import count
from tests.stress.threads import WAYS

pytestmark = [pytest.mark.stress, compiled_kernels_needed]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layer", LAYERS)
def test_threads_get_what_one_thread_would(layer, way):
    result, _ = run_program("tests.stress.threads", way, 20, layer=layer, threads=3, timeout=300)
    assert result["layer"] == layer
    count(f"tasks of 8 threads at once, numba's layer {layer}", result["tasks"][way])
