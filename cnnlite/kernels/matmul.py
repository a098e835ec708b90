"""Matrix products on the micro-kernel.

    x @ W + bias    each row of the result needs its own row of x alone, so that samples don't depend on one another
    dz @ W.T        the same, with the weights in panels of their columns
    x.T @ dz        the sum runs over the samples: chunks of them are added up as a binary tree

A small matrix of weights stays in the cache, and the product is done for a few samples at a time, like what comes
before and after it. A large one would be read from memory anew for each few samples. So there the result is cut into
blocks, of 32 rows and a panel of columns each, and threads share these: also those of a single row. The bits are the
same, since the sums of a row have the same order either way.

No BLAS: its threads and numba's would take turns on the same cores, and each turn costs milliseconds.
"""


from cnnlite.engine.buffers import GIVEN, MOST_CHUNKS, Samples, is_buffer
from cnnlite.engine.jit import kernel
from cnnlite.engine.stages import BATCH, CHUNKS, IMAGE, NONE, SAMPLES, array, scratch, stage, word
from cnnlite.engine.target import VECTOR_BYTES
from cnnlite.kernels.checks import require
from cnnlite.kernels.microkernel import block_address, call_block
from cnnlite.kernels.operation import graph_of, operation
from cnnlite.kernels.panels import pack_panels, panel_width, rows_of_vectors
from cnnlite.kernels.sums import add_tree

SMALL_MATRIX = 1 << 17  # bytes of weights that stay in the cache
ROWS_A_UNIT = 32  # rows of the result that one thread computes at a time: enough units for many threads
ROWS_A_CHUNK = 64  # of a sum over samples at least: shorter ones would be all beginning and end


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
        _add_outer_products(a, b, bias, out)
    else:
        _add_product(a, b, bias, transpose_a, transpose_b, out)
    return out


def _rows_of(size):
    """Return how many rows there are, and how many more for each sample."""
    return (0, size.factor) if isinstance(size, Samples) else (size, 0)


@kernel
def _groups_of_rows(r, run):
    """Return of how many samples the rows are, and how many each has; rows of no samples count as one each."""
    return (word(run, SAMPLES), r.rows_a_sample) if r.rows_a_sample else (r.rows, 1)


def _add_product(a, b, bias, transpose_a, transpose_b, out):
    """Add the stages of a product whose rows don't depend on one another."""
    (m, n), k, width = out.shape, a.shape[0 if transpose_a else 1], panel_width(out.dtype)
    # Weights are packed once, until they change: panels are read twice as fast as rows that lie far apart.
    is_weight = not is_buffer(b) or b.graph.buffers[b.number].kind != GIVEN
    if is_weight or transpose_b or n % (width // 2):
        b_step = (1, k) if transpose_b else (n, 1)
        b, b_panel, b_k = pack_panels(b, k, n, *b_step, graph=graph_of(a, b)), k * width, width
    else:
        b_panel, b_k = width, n  # its rows are whole vectors
    rows, rows_a_sample = _rows_of(m)
    panels = -(-n // width)

    def units(samples):
        return panels * -(-(rows + rows_a_sample * samples) // ROWS_A_UNIT)

    def work(samples):
        return 2.0 * k * n * (rows + rows_a_sample * samples)

    by_samples = rows_a_sample and panels * width * k * out.itemsize <= SMALL_MATRIX
    graph_of(a, b).add(
        _product if by_samples else _shared_product, units=units, work=work,
        together=-(-ROWS_A_UNIT // rows_a_sample) if by_samples else 1,
        scratch=(1 + ROWS_A_UNIT) * width * out.itemsize, block=block_address(out.dtype),
        a=a, b=b, bias=bias, c=out, rows=rows, rows_a_sample=rows_a_sample, k=k, n=n,
        a_i=1 if transpose_a else k, a_k=m if transpose_a else 1, b_panel=b_panel, b_k=b_k)


_PRODUCT = "rows rows_a_sample k n a_i a_k b_panel b_k block"


@stage(reads="a b bias", writes="c", sizes=_PRODUCT, footprint=IMAGE)
def _product(r, run, first, last):
    width = 2 * VECTOR_BYTES // array(run, r.c, (0,)).itemsize
    end = last * r.rows_a_sample
    for row in range(first * r.rows_a_sample, end, ROWS_A_UNIT):
        for panel in range((r.n + width - 1) // width):
            _product_block(r, run, row, min(end, row + ROWS_A_UNIT), panel)


@stage(reads="a b bias", writes="c", sizes=_PRODUCT, footprint=BATCH)
def _shared_product(r, run, first, last):
    samples, rows_a_sample = _groups_of_rows(r, run)
    rows = samples * rows_a_sample
    row_units = (rows + ROWS_A_UNIT - 1) // ROWS_A_UNIT
    for unit in range(first, last):
        row = unit % row_units * ROWS_A_UNIT
        _product_block(r, run, row, min(rows, row + ROWS_A_UNIT), unit // row_units)


@kernel
def _product_block(r, run, first, last, panel):
    """Compute a panel of the columns of some rows."""
    c = array(run, r.c, (last * r.n,))
    a, b = array(run, r.a, (0,)), array(run, r.b, (0,))  # no more than their addresses counts
    width = 2 * VECTOR_BYTES // c.itemsize
    column = panel * width
    columns = min(width, r.n - column)
    start = scratch(run, 0, (width,))
    _begin(r, run, column, columns, start)
    product_block(r.block, last - first, columns, c, first * r.n + column, r.n, start, 0, 0,
                  a, first * r.a_i, r.a_i, 0, r.a_k, b, panel * r.b_panel, 0, r.b_k, 1, r.k,
                  scratch(run, width * c.itemsize, (last - first, width)))


@kernel
def _begin(r, run, column, columns, start):
    """Write what the sums of a panel begin with: the bias, or zeros."""
    for j in range(start.size):
        start[j] = 0
    if r.bias != NONE:
        bias = array(run, r.bias, (r.n,))
        for j in range(columns):
            start[j] = bias[column + j]


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


def _add_outer_products(a, b, bias, out):
    """Add the stage of a.T @ b, which adds up over the rows of both."""
    (m, n), width = out.shape, panel_width(out.dtype)
    rows, rows_a_sample = _rows_of(a.shape[0])

    def work(samples):
        return 2.0 * m * n * (rows + rows_a_sample * samples)

    graph_of(a, b).add(
        _sum_of_outer_products, units=-(-n // width) * -(-m // ROWS_A_UNIT), work=work,
        scratch=(1 + width + MOST_CHUNKS * ROWS_A_UNIT) * width * out.itemsize,
        a=a, b=b, bias=bias, c=out, rows=rows, rows_a_sample=rows_a_sample, m=m, n=n, block=block_address(out.dtype))


@stage(reads="a b bias", writes="c", sizes="rows rows_a_sample m n block", footprint=BATCH)
def _sum_of_outer_products(r, run, first, last):
    c = array(run, r.c, (r.m, r.n))
    itemsize = c.itemsize
    lanes = VECTOR_BYTES // itemsize
    samples, rows_a_sample = _groups_of_rows(r, run)
    chunks = word(run, CHUNKS) if r.rows_a_sample else MOST_CHUNKS
    while chunks > 1 and chunks * ROWS_A_CHUNK > samples * rows_a_sample:
        chunks //= 2
    row_units = (r.m + ROWS_A_UNIT - 1) // ROWS_A_UNIT
    start = scratch(run, 0, (2 * lanes,))
    for unit in range(first, last):
        row, column = unit % row_units * ROWS_A_UNIT, unit // row_units * 2 * lanes
        rows, columns = min(ROWS_A_UNIT, r.m - row), min(2 * lanes, r.n - column)
        width = lanes if columns <= lanes else 2 * lanes
        sums = scratch(run, (2 * lanes + 4 * lanes * lanes) * itemsize, (chunks, rows * width))
        for chunk in range(chunks):
            begin, end = chunk * samples // chunks, (chunk + 1) * samples // chunks
            _add_outer_products_of_rows(r, run, begin * rows_a_sample, end * rows_a_sample, row, column, width,
                                        sums[chunk])
        add_tree(sums, 0, rows * width)
        _begin(r, run, column, columns, start)
        for i in range(rows):
            target, source = c[row + i, column : column + columns], sums[0, i * width : (i + 1) * width]
            for j in range(target.size):
                target[j] = source[j] + start[j]


@kernel
def _add_outer_products_of_rows(r, run, begin, end, row, column, width, sums):
    """Write to sums (ROWS_A_UNIT, width) a block of the sum over the rows from `begin` to before `end`."""
    samples, rows_a_sample = _groups_of_rows(r, run)
    all_rows = samples * rows_a_sample
    a, b = array(run, r.a, (all_rows, r.m)), array(run, r.b, (all_rows * r.n,))
    itemsize = b.itemsize
    lanes = VECTOR_BYTES // itemsize
    start = scratch(run, 0, (2 * lanes,))
    for j in range(width):
        start[j] = 0
    rows, address = min(ROWS_A_UNIT, r.m - row), sums.ctypes.data
    # The last rows are copied to where a vector may be read from their last columns.
    whole = max(begin, min(end, rows_of_vectors(b.size, r.n, column, width)))
    call_block(r.block, rows, width // lanes, address, width, start.ctypes.data, 0,
               a.ctypes.data + (begin * r.m + row) * itemsize, 1, 0, r.m,
               b.ctypes.data + (begin * r.n + column) * itemsize, 0, r.n, 1, whole - begin)
    if whole < end:
        copied = scratch(run, 2 * lanes * itemsize, (end - whole, width))
        for k in range(end - whole):
            for j in range(width):
                copied[k, j] = b[(whole + k) * r.n + column + j] if column + j < r.n else 0
        call_block(r.block, rows, width // lanes, address, width, address, width,
                   a.ctypes.data + (whole * r.m + row) * itemsize, 1, 0, r.m,
                   copied.ctypes.data, 0, width, 1, end - whole)


@kernel
def move_sums(sums, exact):
    """Add sums in float32 to those in float64, and begin them anew. Both are flat."""
    for i in range(sums.size):
        exact[i] += sums[i]
        sums[i] = 0
