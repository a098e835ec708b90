"""Matrix products, built on the micro-kernel.

    x @ W + bias    each row of the result needs only its own row of x, so that samples are independent
    dz @ W.T        the same, with the weights packed into panels of their columns
    x.T @ dz        the sum runs over the samples: see `outer_products.py`

A small matrix of weights stays in the cache, and the product is computed for a few samples at a time, like the stages
before and after it. A large one would be read from memory again for every few samples. So there the result is cut into
blocks, each of some rows and one panel of columns, which threads share; a single row is cut into groups of panels. The
bits are the same, since the sums of a row are added in the same order either way.

A block goes through the weights in pieces of up to PIECE rows: 32 KB that stay in the first-level cache while all its
rows are multiplied by them. In inference the weights are already packed into panels. Where they change from step to
step, or come with a call, each block copies its current piece into a panel. That takes little time next to 128 rows of
products, while a stage that packed all weights would write the whole matrix to memory and read it back.

No BLAS: its threads would compete with numba's for the same cores, and each switch costs milliseconds.
"""

from cnnlite.engine.jit import jit
from cnnlite.engine.stages import BATCH, IMAGE, SCRATCH, array, scratch, stage, word
from cnnlite.engine.target import VECTOR_BYTES
from cnnlite.kernels.checks import require
from cnnlite.kernels.operation import graph_of, operation
from cnnlite.kernels.product.microkernel import LONG_SUM, PIECE, add_piece, block_address, call_block, write_sums
from cnnlite.kernels.product.outer_products import add_outer_products, all_rows, begin_with_bias, rows_of
from cnnlite.kernels.product.panels import pack_panels, panel_width
from cnnlite.kernels.product.single_row import PANELS, single_row, single_row_bytes
from cnnlite.kernels.rows import copy_rows, transpose_panels

SMALL_MATRIX = 1 << 17  # bytes of weights that stay in the cache
ROWS_A_UNIT = 32  # rows of the result that one thread computes at a time: enough units for many threads
MANY_PANELS, MORE_ROWS = 8, 128  # with so many panels, units of more rows are enough, and read a panel less often


def _of_samples(transpose_a=False, transpose_b=False, **_):
    return ("" if transpose_b else "a b") if transpose_a else "a out"


@operation(samples=_of_samples)
def matmul(a, b, bias=None, transpose_a=False, transpose_b=False, out=None):
    """Return c = a @ b + bias, with either factor transposed on request.

    Args:
        a: (M, K), or (K, M) with `transpose_a`. All arrays are C-contiguous and of one dtype.
        b: (K, N), or (N, K) with `transpose_b`.
        bias: (N,), or None for none.
        out: (M, N) to write to.

    With `transpose_a` alone, the K rows belong to samples, which may have several each: (samples, ..., M).
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
    """Add the stages of a product whose rows are independent."""
    (m, n), k, width = out.shape, a.shape[0 if transpose_a else 1], panel_width(out.dtype)
    rows, rows_a_sample = rows_of(m)
    panels = -(-n // width)
    by_samples = rows_a_sample and panels * width * k * out.itemsize <= SMALL_MATRIX
    # Constant weights are packed once. Others are packed by each unit, which then has its part of them in the cache.
    packs = not by_samples and not graph_of(a, b).keeps(b)
    if not packs:
        b = pack_panels(b, k, n, *((1, k) if transpose_b else (n, 1)), graph=graph_of(a, b))
    rows_a_unit = MORE_ROWS if panels >= MANY_PANELS else ROWS_A_UNIT

    def units(samples):
        count = rows + rows_a_sample * samples
        return -(-panels // PANELS) if count == 1 else panels * -(-count // rows_a_unit)

    def work(samples):
        return 2.0 * k * n * (rows + rows_a_sample * samples)

    arguments = dict(
        block=block_address(out.dtype), a=a, b=b, bias=bias, c=out, rows=rows, rows_a_sample=rows_a_sample, k=k, n=n,
        a_i=1 if transpose_a else k, a_k=m if transpose_a else 1, work=work)
    if by_samples:
        graph_of(a, b).add(_product, together=-(-ROWS_A_UNIT // rows_a_sample),
                           scratch=(1 + ROWS_A_UNIT) * width * out.itemsize, **arguments)
        return
    places = [0]
    for numbers in PANELS, PIECE + width, rows_a_unit, rows_a_unit * 8 // out.itemsize:
        places.append(places[-1] + numbers * width * out.itemsize)
    graph_of(a, b).add(
        _shared_product, units=units, scratch=places[4] + single_row_bytes(out.itemsize), rows_a_unit=rows_a_unit,
        packs=int(packs), turned=int(transpose_b), copy=places[1], sums=places[2], total=places[3], single=places[4],
        **arguments)


_PRODUCT = "rows rows_a_sample k n a_i a_k block"


@stage(reads="a b bias", writes="c", sizes=_PRODUCT, footprint=IMAGE)
def _product(r, run, first, last):
    width = 2 * VECTOR_BYTES // array(run, r.c, (0,)).itemsize
    end = last * r.rows_a_sample
    for row in range(first * r.rows_a_sample, end, ROWS_A_UNIT):
        for panel in range((r.n + width - 1) // width):
            _product_block(r, run, row, min(end, row + ROWS_A_UNIT), panel)


# The fields that `_product` lacks come first: numba warns about a record that begins like another one.
@stage(reads="a b bias", writes="c", sizes=f"rows_a_unit packs turned copy sums total single {_PRODUCT}",
       footprint=BATCH)
def _shared_product(r, run, first, last):
    rows, width = all_rows(r, run), 2 * VECTOR_BYTES // array(run, r.c, (0,)).itemsize
    panels = (r.n + width - 1) // width
    for unit in range(first, last):
        if rows == 1:
            _single_row(r, run, unit * PANELS, min(panels, (unit + 1) * PANELS))
        else:
            row = unit // panels * r.rows_a_unit
            _rows_times_panel(r, run, row, min(rows - row, r.rows_a_unit), unit % panels)


@jit
def _rows_times_panel(r, run, row, rows, panel):
    """Compute a panel of columns of some rows, in pieces of b that stay in the first-level cache for all of them.

    Each sum adds the same products in the same order as in `block` with all of b at once.
    """
    c = array(run, r.c, ((row + rows) * r.n,))
    itemsize, lanes = c.itemsize, VECTOR_BYTES // c.itemsize
    width, column = 2 * lanes, panel * 2 * lanes
    columns = min(width, r.n - column)
    vectors = 1 if columns <= lanes else 2
    start, zeros = scratch(run, 0, (width,)), scratch(run, r.single, (width,))
    sums, total = scratch(run, r.sums, (rows, vectors * lanes)), scratch(run, r.total, (0,)).ctypes.data
    begin_with_bias(r, run, column, columns, start)
    zeros[:] = 0
    is_long, is_whole = r.k > LONG_SUM, columns == vectors * lanes
    target, target_i = sums.ctypes.data, vectors * lanes
    if is_whole and not is_long:
        target, target_i = c.ctypes.data + (row * r.n + column) * itemsize, r.n
    begin, begin_i = zeros.ctypes.data if is_long else start.ctypes.data, 0
    pieces = max(1, (r.k + PIECE - 1) // PIECE)
    most = max(1, (r.k + pieces - 1) // pieces)
    for k in range(0, max(1, r.k), most):
        count = min(most, r.k - k)
        call_block(r.block, rows, vectors, target, target_i, begin, begin_i,
                   word(run, r.a) + (row * r.a_i + k * r.a_k) * itemsize, r.a_i, 0, r.a_k,
                   _piece(r, run, start, panel, k, count), 0, width, 1, count)
        if is_long:
            add_piece(c, sums.ctypes.data, total, k == 0, rows * vectors)
        else:
            begin, begin_i = target, target_i
    if is_long:
        write_sums(c, sums.ctypes.data, vectors * lanes, start.ctypes.data, 0, total, 0, rows, vectors)
    if not is_whole or is_long:
        for i in range(rows):
            place = (row + i) * r.n + column
            source, written = sums[i], c[place : place + columns]
            for j in range(written.size):
                written[j] = source[j]


@jit
def _piece(r, run, like, panel, k, count):
    """Return the address of `count` rows of a panel of b from row k on, which are copied if b is not packed."""
    width, itemsize = like.size, like.itemsize
    if not r.packs:
        return word(run, r.b) + (panel * r.k + k) * width * itemsize
    copy, columns = word(run, SCRATCH) + r.copy, min(width, r.n - panel * width)
    if r.turned:
        transpose_panels(like, word(run, r.b) + (panel * width * r.k + k) * itemsize, r.k, columns, count, copy)
    else:
        copy_rows(like, word(run, r.b) + (k * r.n + panel * width) * itemsize, r.n, count, columns, copy, width)
    return copy


@jit
def _product_block(r, run, first, last, panel):
    """Compute a panel of columns of some rows."""
    c = array(run, r.c, (last * r.n,))
    a, b = array(run, r.a, (0,)), array(run, r.b, (0,))  # only their addresses matter
    width = 2 * VECTOR_BYTES // c.itemsize
    column = panel * width
    columns = min(width, r.n - column)
    start = scratch(run, 0, (width,))
    begin_with_bias(r, run, column, columns, start)
    product_block(r.block, last - first, columns, c, first * r.n + column, r.n, start, 0, 0,
                  a, first * r.a_i, r.a_i, 0, r.a_k, b, panel * r.k * width, 0, width, 1, r.k,
                  scratch(run, width * c.itemsize, (last - first, width)))


@jit
def _single_row(r, run, first, last):
    """Compute some panels of columns of the only row: PANELS together, or fewer one by one."""
    c = array(run, r.c, (r.n,))
    width = 2 * VECTOR_BYTES // c.itemsize
    if r.packs or last - first < PANELS or last * width > r.n or r.a_k != 1:
        for panel in range(first, last):
            _rows_times_panel(r, run, 0, 1, panel)
        return
    start = scratch(run, 0, (PANELS * width,))
    begin_with_bias(r, run, first * width, PANELS * width, start)
    single_row(c, first * width, start, word(run, r.a), word(run, r.b) + first * r.k * width * c.itemsize,
               r.k * width, r.k, run, r.single)


@jit
def product_block(block, rows, columns, c, c_place, c_i, start, start_place, start_i, a, a_place, a_i, a_k1, a_k0,
                  b, b_place, b_k1, b_k0, n1, n0, scratch):
    """Write start + a @ b, for up to two vectors of columns, to a part of c.

    All arrays but `scratch` are one-dimensional, each with the offset of its first element. If start_i is 0, start is
    one row of whole vectors; otherwise it has as many rows as c, of the same width, and may be c itself. b must hold
    whole vectors. c need not: the last columns go through `scratch` (rows, 2 vectors).
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


@jit
def move_sums(sums, exact):
    """Add float32 sums to float64 sums, and reset them. Both are flat."""
    for i in range(sums.size):
        exact[i] += sums[i]
        sums[i] = 0
