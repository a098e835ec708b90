"""Max pooling and its gradient in vector code: a row of windows that lie wholly in the image.

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

    def either_size(is_two_by_two):
        size = (2, 2) if is_two_by_two else window
        emit.channel_groups(channels, lambda group: of_size(*size, group), together=1)

    height_is_two, width_is_two = (builder.icmp_signed("==", size, emit.number(2)) for size in window)
    emit.either(builder.and_(height_is_two, width_is_two), either_size)


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
