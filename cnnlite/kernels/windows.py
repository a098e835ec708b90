"""Max pooling, and what goes back through it, in vector code: a row of windows that lie wholly in the image.

The vectors of channels are the outer loop and the windows of the row the inner one:

    for c in range(0, C, lanes):              the last vector may stick out; a mask keeps its lanes off the memory
        for j in range(windows):
            best, argmax = ...                in registers
            for each pixel of the window: best and argmax are replaced in the lanes in which it wins

For windows of 2x2 the four pixels are written one after the other, without the innermost loops, which takes two thirds
of the time. `vectors.py` says how such code is written.

Compiled code calls them with one more argument, the first, that says of which numbers: see `vector_function`. Arrays
may be addresses, distances are in elements, and a window is (height, width). Nothing is checked here.
"""

from llvmlite import ir

from cnnlite.kernels.llvm.vectors import int8, int32, vector_function

ONE = ir.Constant(int32, 1)
VECTORS = 2  # of channels together where several arrays are read, so that their sums or coefficients stay in registers


@vector_function
def max_pool_windows(emit, x, x_row, x_step, window, windows, channels, y, argmax):
    """Write the maxima of a row of windows, y (windows, channels), and which pixel each is, argmax (uint8).

    x is the address of the first pixel of the first window, x_row lies between rows and x_step between windows. Of
    equal pixels the first one wins, and the first NaN wins over all.
    """
    builder, taps = emit.builder, emit.vector_of(int32)

    def of_size(height, width, group):
        [(first, mask)] = group

        def pool(j, _):
            corner = emit.address(x, builder.add(builder.mul(j, x_step), first))

            def row(a, carried):
                line = emit.address(corner, builder.mul(a, x_row))

                def pixel(b, carried):
                    best, winner, tap = carried
                    this = emit.load(emit.address(line, builder.mul(b, channels)), mask)
                    # Larger, or the first NaN.
                    wins = builder.and_(builder.fcmp_unordered("ugt", this, best),
                                        builder.fcmp_ordered("ord", best, best))
                    return [builder.select(wins, this, best), builder.select(wins, emit.splat(tap), winner),
                            builder.add(tap, ONE)]

                return emit.loop(width, carried, pixel)

            start = [emit.load(corner, mask), emit.zeros(taps), emit.zeros(int32)]
            best, winner, _ = emit.loop(height, start, row)
            target = builder.add(builder.mul(j, channels), first)
            emit.store(best, emit.address(y, target), mask)
            emit.store(builder.trunc(winner, emit.vector_of(int8)), emit.address(argmax, target, 1), mask)

        emit.loop(windows, [], pool)

    _of_either_size(emit, window, channels, of_size, together=1)


@vector_function
def max_unpool_windows(emit, dy, argmax, window, windows, channels, dx, dx_row, dx_step):
    """Write the gradients of a row of windows that don't overlap: dy where a pixel won, 0 elsewhere.

    dx is the address of the first pixel of the first window, dx_row lies between rows and dx_step between windows.
    What lies between windows is not touched.
    """
    builder, (height, width) = emit.builder, window

    def unpool(group):
        [(first, mask)] = group

        def spread(j, _):
            source = builder.add(builder.mul(j, channels), first)
            gradient = emit.load(emit.address(dy, source), mask)
            winner = emit.load(emit.address(argmax, source, 1), mask, emit.vector_of(int8))
            winner = builder.zext(winner, emit.vector_of(int32))
            corner = emit.address(dx, builder.add(builder.mul(j, dx_step), first))

            def row(a, carried):
                line = emit.address(corner, builder.mul(a, dx_row))

                def pixel(b, carried):
                    [tap] = carried
                    here = emit.zero_unless(builder.icmp_signed("==", winner, emit.splat(tap)), gradient)
                    emit.store(here, emit.address(line, builder.mul(b, channels)), mask)
                    return [builder.add(tap, ONE)]

                return emit.loop(width, carried, pixel)

            emit.loop(height, [emit.zeros(int32)], row)

        emit.loop(windows, [], spread)

    emit.channel_groups(channels, unpool, together=1)


@vector_function
def sum_gradient_of_winners(emit, dy, argmax, x, x_step, taps, windows, channels, mean, sums):
    """Add Σ dy and Σ dy (x - mean) over pixels of a row of windows, those next to each other that won, to sums.

    taps are the number that the first of these pixels has in a window, and how many there are. x is the address of the
    first of the first window, x_step lies between windows, and sums is (2, channels). The pixels are added in their
    order, so that the bits are those of `sum_gradient` in `rows.py` over all pixels of the row, where dy is 0 between.
    """
    builder, (first_tap, count) = emit.builder, taps
    first_tap = builder.trunc(first_tap, int32)

    def of_count(count, group):
        means, products = emit.load_group(mean, group), emit.address(sums, channels)

        def add(j, carried):
            corner = emit.address(x, builder.mul(j, x_step))
            gradients, winners = _pooled(emit, dy, argmax, builder.mul(j, channels), group)

            def pixel(b, carried):
                *found, tap = carried
                these = emit.load_group(emit.address(corner, builder.mul(b, channels)), group)
                wins = [builder.icmp_signed("==", winner, emit.splat(tap)) for winner in winners]
                return [*map(builder.select, wins * 2, [*these, *gradients], found), builder.add(tap, ONE)]

            *found, _ = emit.loop(count, [*[emit.zeros()] * (2 * len(group)), first_tap], pixel)
            numbers, gradients = found[: len(group)], found[len(group) :]
            deviations = map(builder.fsub, numbers, means)
            return [*map(builder.fadd, carried, gradients),
                    *map(emit.multiply_add, gradients, deviations, carried[len(group) :])]

        before = [*emit.load_group(sums, group), *emit.load_group(products, group)]
        after = emit.loop(windows, before, add)
        emit.store_group(after[: len(group)], sums, group)
        emit.store_group(after[len(group) :], products, group)

    def either_count(is_two):
        emit.channel_groups(channels, lambda group: of_count(2 if is_two else count, group), together=VECTORS)

    emit.either(builder.icmp_signed("==", count, emit.number(2)), either_count)


@vector_function
def write_gradient_of_winners(emit, dy, argmax, x, x_row, window, sizes, mean, terms, dx):
    """Write what `write_gradient` in `rows.py` makes of dy where a pixel won, and of 0 elsewhere, with the same bits.

    It is for a row of windows side by side: sizes are how many, and the channels. x and dx are the addresses of the
    first pixel of the first of them, and x_row lies between rows of both.
    """
    builder, (windows, channels) = emit.builder, sizes

    def of_size(height, width, group):
        means = emit.load_group(mean, group)
        scales, shifts, slopes = (
            emit.load_group(emit.address(terms, builder.mul(channels, emit.number(i))), group) for i in range(3)
        )
        falls = [builder.fneg(slope) for slope in slopes]
        others = [builder.fsub(emit.zeros(), shift) for shift in shifts]

        def write(j, _):
            corner = builder.mul(j, builder.mul(window[1], channels))
            gradients, winners = _pooled(emit, dy, argmax, builder.mul(j, channels), group)
            centered = [builder.fsub(*some) for some in zip(gradients, shifts)]

            def row(a, carried):
                line = builder.add(corner, builder.mul(a, x_row))

                def pixel(b, carried):
                    [tap] = carried
                    place = builder.add(line, builder.mul(b, channels))
                    wins = [builder.icmp_signed("==", winner, emit.splat(tap)) for winner in winners]
                    here = map(builder.select, wins, centered, others)
                    deviations = map(builder.fsub, emit.load_group(emit.address(x, place), group), means)
                    rest = map(emit.multiply_add, deviations, falls, here)
                    emit.store_group(list(map(builder.fmul, rest, scales)), emit.address(dx, place), group)
                    return [builder.add(tap, ONE)]

                return emit.loop(width, carried, pixel)

            emit.loop(height, [emit.zeros(int32)], row)

        emit.loop(windows, [], write)

    _of_either_size(emit, window, channels, of_size)


def _pooled(emit, dy, argmax, place, group):
    """Return a group's vectors of dy, and which pixels won, in 32 bits."""
    gradients = emit.load_group(emit.address(dy, place), group)
    winners = [emit.load(emit.address(argmax, emit.builder.add(place, first), 1), mask, emit.vector_of(int8))
               for first, mask in group]
    return gradients, [emit.builder.zext(winner, emit.vector_of(int32)) for winner in winners]


def _of_either_size(emit, window, channels, of_size, together=VECTORS):
    """Emit `of_size(height, width, group)` over all channels, for windows of 2x2 and for any."""

    def either_size(is_two_by_two):
        size = (2, 2) if is_two_by_two else window
        emit.channel_groups(channels, lambda group: of_size(*size, group), together=together)

    height_is_two, width_is_two = (emit.builder.icmp_signed("==", size, emit.number(2)) for size in window)
    emit.either(emit.builder.and_(height_is_two, width_is_two), either_size)
