"""The tile of the micro-kernel becomes the loop that benchmarks/README.md shows."""

import pytest

from benchmarks.assembly import loops, sums
from cnnlite.engine.target import ROWS, VECTOR_BYTES
from cnnlite.kernels.product.microkernel import assembly


@pytest.mark.skipif(VECTOR_BYTES < 32, reason="the listing is read as that of a processor with AVX")
def test_the_tile_keeps_all_its_sums_in_registers():
    largest = max((sums(loop) for loop in loops(assembly())), key=len)
    assert len(largest) == 2 * ROWS
