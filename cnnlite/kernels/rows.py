"""Passes over rows of channels in vector code: sums and maps for batch normalisation, panels for matrix products.

`rows` pixels of `channels` numbers each are contiguous: an image, or a part of one. Each function takes a group of
vectors of channels through all rows, so that coefficients are loaded once and sums stay in registers, and then goes on
with the next group. Rows are summed in order, except that even and odd rows have separate sums in the statistics.
`vectors.py` explains how such code is written.

Compiled code calls them with one more argument, the first, which gives the dtype: see `vector_function`. Arrays are
contiguous and may be passed as addresses; strides are in elements. Nothing is checked here. y and dx may be x or dy.
"""

from llvmlite import ir

from cnnlite.kernels.llvm.vectors import int32, vector_function

ROWS_TOGETHER = 2  # with separate sums in the statistics, since each addition waits for the one before


@vector_function
def row_statistics(emit, x, rows, channels, center, error, square):
    """Write a center near the mean of the rows x, and Σ (x - center) and Σ (x - center)².

    The center is the mean computed in the arrays' precision: x[0] + Σ (x - x[0]) / rows. There must be a row.
    """
    builder, together = emit.builder, emit.number(ROWS_TOGETHER)
    pairs = builder.sdiv(rows, together)
    one = ir.Constant(emit.item, 1.0)
    of_each = emit.splat(builder.fdiv(one, builder.sitofp(rows, emit.item)))

    def statistics(group):
        def row(k):
            return emit.load_group(emit.address(x, builder.mul(k, channels)), group)

        def sums(number, add):
            """Return `number` sums over all rows for each vector; `add(sums, i, x)` adds vector i of a row to them."""
            size = number * len(group)

            def add_row(sums, k):
                return [new for i, numbers in enumerate(row(k)) for new in add(sums[i * number :][:number], i, numbers)]

            def add_pair(k, carried):
                first = builder.mul(k, together)
                return [new for r in range(ROWS_TOGETHER)
                        for new in add_row(carried[r * size :][:size], builder.add(first, emit.number(r)))]

            carried = emit.loop(pairs, [emit.zeros()] * (ROWS_TOGETHER * size), add_pair)
            done = builder.mul(pairs, together)
            total = emit.loop(builder.sub(rows, done), carried[:size],
                              lambda k, sums: add_row(sums, builder.add(done, k)))
            for r in range(1, ROWS_TOGETHER):
                total = [builder.fadd(a, b) for a, b in zip(total, carried[r * size :])]
            return total

        start = row(emit.number(0))
        total = sums(1, lambda sums, i, numbers: [builder.fadd(sums[0], builder.fsub(numbers, start[i]))])
        middle = [emit.multiply_add(of_all, of_each, begin) for of_all, begin in zip(total, start)]

        def add_deviations(sums, i, numbers):
            deviation = builder.fsub(numbers, middle[i])
            return [builder.fadd(sums[0], deviation), emit.multiply_add(deviation, deviation, sums[1])]

        deviations = sums(2, add_deviations)
        for values, array in ((middle, center), (deviations[::2], error), (deviations[1::2], square)):
            emit.store_group(values, array, group)

    emit.channel_groups(channels, statistics)


@vector_function
def map_rows(emit, x, rows, channels, mean, scale, beta, rectifies, y):
    """Write y = (x - mean) * scale + beta, or relu(y) if `rectifies`.

    The product and the sum are rounded only once if the machine has a fused multiply-add.
    """
    builder = emit.builder
    rectifies = emit.splat(rectifies)

    def result(number):
        is_cut = builder.and_(builder.fcmp_ordered("<=", number, emit.zeros()), rectifies)  # not where it is NaN
        return builder.select(is_cut, emit.zeros(), number)

    def write(group):
        means, scales, betas = (emit.load_group(array, group) for array in (mean, scale, beta))

        def row(k, _):
            place = builder.mul(k, channels)
            numbers = emit.load_group(emit.address(x, place), group)
            deviations = [builder.fsub(number, m) for number, m in zip(numbers, means)]
            mapped = [result(emit.multiply_add(*terms)) for terms in zip(deviations, scales, betas)]
            emit.store_group(mapped, emit.address(y, place), group)

        emit.loop(rows, [], row)

    emit.channel_groups(channels, write)


@vector_function
def scale_rows(emit, x, rows, channels, scale, y):
    """Write y = x * scale: as a gradient, dx = scale * dy if the mean and the deviation are constants."""
    builder = emit.builder

    def write(group):
        scales = emit.load_group(scale, group)

        def row(k, _):
            place = builder.mul(k, channels)
            numbers = emit.load_group(emit.address(x, place), group)
            products = [builder.fmul(number, factor) for number, factor in zip(numbers, scales)]
            emit.store_group(products, emit.address(y, place), group)

        emit.loop(rows, [], row)

    emit.channel_groups(channels, write)


@vector_function
def sum_gradient(emit, dy, x, rows, channels, mean, total, product):
    """Write Σ dy and Σ dy (x - mean)."""
    builder = emit.builder

    def sums(group):
        means = emit.load_group(mean, group)

        def row(k, carried):
            place = builder.mul(k, channels)
            gradients, numbers = (emit.load_group(emit.address(array, place), group) for array in (dy, x))
            deviations = [builder.fsub(number, m) for number, m in zip(numbers, means)]
            totals, products = carried[: len(group)], carried[len(group) :]
            return [*(builder.fadd(*terms) for terms in zip(totals, gradients)),
                    *(emit.multiply_add(*terms) for terms in zip(gradients, deviations, products))]

        carried = emit.loop(rows, [emit.zeros()] * (2 * len(group)), row)
        emit.store_group(carried[: len(group)], total, group)
        emit.store_group(carried[len(group) :], product, group)

    emit.channel_groups(channels, sums)


@vector_function
def write_gradient(emit, dy, x, rows, channels, mean, terms, dx):
    """Write dx = terms[0] (dy - terms[1] - (x - mean) terms[2]); terms is (3, channels)."""
    builder = emit.builder

    def write(group):
        means = emit.load_group(mean, group)
        scales, shifts, slopes = (
            emit.load_group(emit.address(terms, builder.mul(channels, emit.number(i))), group) for i in range(3)
        )
        falls = [builder.fneg(slope) for slope in slopes]

        def row(k, _):
            place = builder.mul(k, channels)
            gradients, numbers = (emit.load_group(emit.address(array, place), group) for array in (dy, x))
            deviations = [builder.fsub(number, m) for number, m in zip(numbers, means)]
            centered = [builder.fsub(gradient, shift) for gradient, shift in zip(gradients, shifts)]
            rest = [emit.multiply_add(*some) for some in zip(deviations, falls, centered)]
            result = [builder.fmul(value, scale) for value, scale in zip(rest, scales)]
            emit.store_group(result, emit.address(dx, place), group)

        emit.loop(rows, [], row)

    emit.channel_groups(channels, write)


@vector_function
def sum_rows(emit, x, rows, channels, total):
    """Write Σ x."""
    builder = emit.builder

    def sums(group):
        def row(k, carried):
            numbers = emit.load_group(emit.address(x, builder.mul(k, channels)), group)
            return [builder.fadd(before, number) for before, number in zip(carried, numbers)]

        emit.store_group(emit.loop(rows, [emit.zeros()] * len(group), row), total, group)

    emit.channel_groups(channels, sums)


@vector_function
def copy_rows(emit, x, x_row, rows, columns, y, y_row):
    """Copy x (rows, columns) to y, with zeros up to the end of the last vector; x_row and y_row are the row strides."""
    builder = emit.builder

    def copy(group):
        def row(k, _):
            numbers = emit.load_group(emit.address(x, builder.mul(k, x_row)), group)
            line = builder.mul(k, y_row)
            for number, (column, _) in zip(numbers, group):
                emit.store(number, emit.address(y, builder.add(line, column)))

        emit.loop(rows, [], row)

    emit.channel_groups(columns, copy)


@vector_function
def transpose_panels(emit, x, x_row, rows, columns, y):
    """Write x (rows, columns) transposed into panels two vectors wide: row j of a panel is column j of x.

    x_row is the row stride of x. The lanes after the last row of x hold garbage. Garbage is also written after the last
    panel: to fewer rows than a vector has lanes.

    A square of (lanes, lanes) numbers is transposed in registers. Each of log2(lanes) steps interleaves vector i with
    vector i + lanes / 2 like the two halves of a pack of cards; after the last step, lane j of vector i has become
    lane i of vector j.
    """
    builder, lanes, number = emit.builder, emit.lanes, emit.number
    merged = [place for i in range(lanes) for place in (i, lanes + i)]
    halves = [ir.Constant(emit.vector_of(int32), half) for half in (merged[:lanes], merged[lanes:])]
    last = builder.sub(rows, number(1))

    def square(k, _):
        first = builder.mul(k, number(lanes))
        panel = builder.mul(builder.lshr(k, number(1)), builder.mul(columns, number(2 * lanes)))
        panel = builder.add(panel, builder.mul(builder.and_(k, number(1)), number(lanes)))

        def turn(group):
            [(column, _)] = group
            vectors = []
            for i in range(lanes):
                row = builder.add(first, number(i))
                row = builder.select(builder.icmp_signed("<", row, rows), row, last)
                vectors += emit.load_group(emit.address(x, builder.mul(row, x_row)), group)
            for _ in range(lanes.bit_length() - 1):
                pairs = list(zip(vectors[: lanes // 2], vectors[lanes // 2 :]))
                vectors = [builder.shuffle_vector(a, b, half) for a, b in pairs for half in halves]
            for i, vector in enumerate(vectors):
                place = builder.add(panel, builder.mul(builder.add(column, number(i)), number(2 * lanes)))
                emit.store(vector, emit.address(y, place))

        emit.channel_groups(columns, turn, together=1)

    emit.loop(builder.sdiv(builder.add(rows, number(lanes - 1)), number(lanes)), [], square)


@vector_function
def add_runs(emit, x, x_row, rows, columns, y, y_row):
    """Add x (rows, columns) to y; x_row and y_row are the row strides."""
    builder = emit.builder

    def add(group):
        def row(k, _):
            target = emit.address(y, builder.mul(k, y_row))
            numbers = emit.load_group(emit.address(x, builder.mul(k, x_row)), group)
            sums = [builder.fadd(a, b) for a, b in zip(emit.load_group(target, group), numbers)]
            emit.store_group(sums, target, group)

        emit.loop(rows, [], row)

    emit.channel_groups(columns, add)
