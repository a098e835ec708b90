"""Matrix products on the micro-kernel.

    x @ W + bias    each row of the result needs its own row of x alone, so that samples don't depend on one another
    dz @ W.T        the same, with the weights in panels of their columns
    x.T @ dz        the sum runs over the samples: see `outer_products.py`

A small matrix of weights stays in the cache, and the product is done for a few samples at a time, like what comes
before and after it. A large one would be read from memory anew for each few samples. So there the result is cut into
blocks of rows and a panel of columns each, and threads share these; of a single row, some panels together. The bits are
the same, since the sums of a row have the same order either way.

No BLAS: its threads and numba's would take turns on the same cores, and each turn costs milliseconds.
"""

from cnnlite.engine.jit import kernel
from cnnlite.engine.stages import BATCH, IMAGE, array, scratch, stage, word
from cnnlite.engine.target import VECTOR_BYTES
from cnnlite.kernels.checks import require
from cnnlite.kernels.microkernel import block_address, call_block
from cnnlite.kernels.operation import graph_of, operation
from cnnlite.kernels.outer_products import add_outer_products, all_rows, begin_with_bias, rows_of
from cnnlite.kernels.panels import pack_panels, panel_width
from cnnlite.kernels.single_row import PANELS, single_row, single_row_bytes

SMALL_MATRIX = 1 << 17  # bytes of weights that stay in the cache
ROWS_A_UNIT = 32  # rows of the result that one thread computes at a time: enough units for many threads
MANY_PANELS, MORE_ROWS = 8, 128  # with so many panels units of more rows are enough, and read a panel less often


def _of_samples(transpose_a=False, transpose_b=False, **_):
    return ("" if transpose_b else "a b") if transpose_a else "a out"


@operation(samples=_of_samples)
def matmul(a, b, bias=None, transpose_a=False, transpose_b=False, out=None):
    """c = a @ b + bias, with either factor transposed where asked.

    Args:
        a: (M, K), or (K, M) with `transpose_a`. All arrays are C-contiguous and of one dtype.
        b: (K, N), or (N, K) with `transpose_b`.
        bias: (N,), or None for none.
        out: (M, N) to write to.

    With `transpose_a` alone, the K rows are of samples, each of which may have several: (samples, ..., M).
    """
    if transpose_a and not transpose_b and a.ndim == b.ndim > 2:
        a, b = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
    require(a, "a", 2, None, "matmul")
    m, k = a.shape[::-1] if transpose_a else a.shape
    n = b.shape[0 if transpose_b else -1]
    require(b, "b", (n, k) if transpose_b else (k, n), a.dtype, "matmul")
    if bias is not None:
        require(bias, "bias", (n,), a.dtype, "matmul")
    out = graph_of(a, b).work((m, n), a.dtype) if out is None else out
    require(out, "out", (m, n), a.dtype, "matmul")
    if transpose_a and not transpose_b:
        add_outer_products(a, b, out, bias)
    else:
        _add_product(a, b, bias, transpose_a, transpose_b, out)
    return out


def _add_product(a, b, bias, transpose_a, transpose_b, out):
    """Add the stages of a product whose rows don't depend on one another."""
    (m, n), k, width = out.shape, a.shape[0 if transpose_a else 1], panel_width(out.dtype)
    b = pack_panels(b, k, n, *((1, k) if transpose_b else (n, 1)), graph=graph_of(a, b))
    rows, rows_a_sample = rows_of(m)
    panels = -(-n // width)
    rows_a_unit = MORE_ROWS if panels >= MANY_PANELS else ROWS_A_UNIT

    def units(samples):
        count = rows + rows_a_sample * samples
        return -(-panels // PANELS) if count == 1 else panels * -(-count // rows_a_unit)

    def work(samples):
        return 2.0 * k * n * (rows + rows_a_sample * samples)

    by_samples = rows_a_sample and panels * width * k * out.itemsize <= SMALL_MATRIX
    graph_of(a, b).add(
        _product if by_samples else _shared_product, units=units, work=work,
        together=-(-ROWS_A_UNIT // rows_a_sample) if by_samples else 1,
        scratch=(1 + ROWS_A_UNIT) * width * out.itemsize + single_row_bytes(out.itemsize),
        block=block_address(out.dtype), a=a, b=b, bias=bias, c=out, rows=rows, rows_a_sample=rows_a_sample, k=k, n=n,
        a_i=1 if transpose_a else k, a_k=m if transpose_a else 1, rows_a_unit=rows_a_unit)


_PRODUCT = "rows rows_a_sample k n a_i a_k rows_a_unit block"


@stage(reads="a b bias", writes="c", sizes=_PRODUCT, footprint=IMAGE)
def _product(r, run, first, last):
    width = 2 * VECTOR_BYTES // array(run, r.c, (0,)).itemsize
    end = last * r.rows_a_sample
    for row in range(first * r.rows_a_sample, end, ROWS_A_UNIT):
        for panel in range((r.n + width - 1) // width):
            _product_block(r, run, row, min(end, row + ROWS_A_UNIT), panel)


@stage(reads="a b bias", writes="c", sizes=_PRODUCT, footprint=BATCH)
def _shared_product(r, run, first, last):
    rows, width = all_rows(r, run), 2 * VECTOR_BYTES // array(run, r.c, (0,)).itemsize
    panels = (r.n + width - 1) // width
    for unit in range(first, last):
        if rows == 1:
            _single_row(r, run, unit * PANELS, min(panels, (unit + 1) * PANELS))
            continue
        end = min(rows, (unit // panels + 1) * r.rows_a_unit)
        for row in range(unit // panels * r.rows_a_unit, end, ROWS_A_UNIT):
            _product_block(r, run, row, min(end, row + ROWS_A_UNIT), unit % panels)


@kernel
def _product_block(r, run, first, last, panel):
    """Compute a panel of the columns of some rows."""
    c = array(run, r.c, (last * r.n,))
    a, b = array(run, r.a, (0,)), array(run, r.b, (0,))  # no more than their addresses counts
    width = 2 * VECTOR_BYTES // c.itemsize
    column = panel * width
    columns = min(width, r.n - column)
    start = scratch(run, 0, (width,))
    begin_with_bias(r, run, column, columns, start)
    product_block(r.block, last - first, columns, c, first * r.n + column, r.n, start, 0, 0,
                  a, first * r.a_i, r.a_i, 0, r.a_k, b, panel * r.k * width, 0, width, 1, r.k,
                  scratch(run, width * c.itemsize, (last - first, width)))


@kernel
def _single_row(r, run, first, last):
    """Compute some panels of the columns of the only row: PANELS together, or fewer one by one."""
    c = array(run, r.c, (r.n,))
    width = 2 * VECTOR_BYTES // c.itemsize
    if last - first < PANELS or last * width > r.n or r.a_k != 1:
        for panel in range(first, last):
            _product_block(r, run, 0, 1, panel)
        return
    start = scratch(run, 0, (PANELS * width,))
    begin_with_bias(r, run, first * width, PANELS * width, start)
    single_row(c, first * width, start, word(run, r.a), word(run, r.b) + first * r.k * width * c.itemsize,
               r.k * width, r.k, run, (1 + ROWS_A_UNIT) * width * c.itemsize)


@kernel
def product_block(block, rows, columns, c, c_place, c_i, start, start_place, start_i, a, a_place, a_i, a_k1, a_k0,
                  b, b_place, b_k1, b_k0, n1, n0, scratch):
    """Write start + a @ b, for up to two vectors of columns, to a part of c.

    All arrays but `scratch` are one-dimensional, each with the place of its first element. start is one row that
    holds whole vectors if start_i is 0, else as many rows as c and of the same width; it may be c itself. b must
    hold whole vectors. c need not: the last columns go through `scratch` (rows, 2 vectors).
    """
    itemsize = c.itemsize
    width = VECTOR_BYTES // itemsize
    vectors = 1 if columns <= width else 2
    target, target_i = c.ctypes.data + c_place * itemsize, c_i
    begin, begin_i = start.ctypes.data + start_place * itemsize, start_i
    whole = columns == vectors * width
    if not whole:
        target, target_i = scratch.ctypes.data, 2 * width
        if start_i:
            begin, begin_i = target, target_i
            for i in range(rows):
                for j in range(columns):
                    scratch[i, j] = start[start_place + i * start_i + j]
    call_block(block, rows, vectors, target, target_i, begin, begin_i,
               a.ctypes.data + a_place * itemsize, a_i, a_k1, a_k0, b.ctypes.data + b_place * itemsize, b_k1, b_k0,
               n1, n0)
    if not whole:
        for i in range(rows):
            for j in range(columns):
                c[c_place + i * c_i + j] = scratch[i, j]


@kernel
def move_sums(sums, exact):
    """Add sums in float32 to those in float64, and begin them anew. Both are flat."""
    for i in range(sums.size):
        exact[i] += sums[i]
        sums[i] = 0
