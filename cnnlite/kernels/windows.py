"""Max pooling and the gradients through it in vector code, for a row of windows that lie wholly in the image.

The vectors of channels are the outer loop and the windows of the row the inner one:

    for c in range(0, C, lanes):              the last vector may be partial; a mask disables its other lanes
        for j in range(windows):
            best, argmax = ...                in registers
            for each pixel of the window: best and argmax are replaced in the lanes where it wins

For 2x2 windows the innermost loop is unrolled into four pixels, which takes two thirds of the time. `vectors.py`
explains how such code is written.

Compiled code calls them with one more argument, the first, which gives the dtype: see `vector_function`. Arrays may be
passed as addresses, strides are in elements, and a window is (height, width). Nothing is checked here.
"""

from llvmlite import ir

from cnnlite.kernels.llvm.vectors import int8, int32, vector_function

ONE = ir.Constant(int32, 1)
VECTORS = 2  # of channels at a time if several arrays are read, so that their sums or coefficients stay in registers


@vector_function
def max_pool_windows(emit, x, x_row, x_step, window, windows, channels, y, argmax):
    """Write the maxima of a row of windows to y (windows, channels), and their pixels' numbers to argmax (uint8).

    x is the address of the first pixel of the first window, x_row the stride between rows and x_step the stride between
    windows. Of equal pixels the first one wins, and the first NaN wins over all.
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

    dx is the address of the first pixel of the first window, dx_row the stride between rows and dx_step the stride
    between windows. Pixels between windows are not touched.
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
    """Add Σ dy and Σ dy (x - mean) to sums, over the winners among some adjacent pixels in each window of a row.

    taps is (the number of the first of these pixels in a window, how many there are). x is the address of the first one
    in the first window, x_step the stride between windows, and sums is (2, channels). The pixels are added in order, so
    the bits are those of `sum_gradient` in `rows.py` over all pixels of the row, with dy = 0 where a pixel lost.
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
    """Write what `write_gradient` in `rows.py` computes for dy where a pixel won and 0 elsewhere, with the same bits.

    This is for a row of windows side by side; sizes is (windows, channels). x and dx are the addresses of the first
    pixel of the first window, and x_row is the row stride of both.
    """
    builder, (windows, channels) = emit.builder, sizes

    def of_size(height, width, group):
        means = emit.load_group(mean, group)
        scales, shifts, slopes = (
            emit.load_group(emit.address(terms, builder.mul(channels, emit.number(i))), group) for i in range(3)
        )
        falls = [builder.fneg(slope) for slope in slopes]
        # With the default flags LLVM would make 0 - shift a -shift, which is -0 for 0.
        others = [builder.fsub(emit.zeros(), shift, flags=("contract",)) for shift in shifts]

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
    """Return a group's vectors of dy, and the numbers of the pixels that won, in 32 bits."""
    gradients = emit.load_group(emit.address(dy, place), group)
    winners = [emit.load(emit.address(argmax, emit.builder.add(place, first), 1), mask, emit.vector_of(int8))
               for first, mask in group]
    return gradients, [emit.builder.zext(winner, emit.vector_of(int32)) for winner in winners]


def _of_either_size(emit, window, channels, of_size, together=VECTORS):
    """Emit `of_size(height, width, group)` over all channels, once for 2x2 windows and once for any."""

    def either_size(is_two_by_two):
        size = (2, 2) if is_two_by_two else window
        emit.channel_groups(channels, lambda group: of_size(*size, group), together=together)

    height_is_two, width_is_two = (emit.builder.icmp_signed("==", size, emit.number(2)) for size in window)
    emit.either(emit.builder.and_(height_is_two, width_is_two), either_size)
