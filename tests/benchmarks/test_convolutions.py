"""The sweep covers what it is said to cover, and its sums are right."""

from benchmarks.convolutions import (
    CHANNELS,
    KERNEL_SIZES,
    MOST_FLOPS,
    MOST_NUMBERS,
    OF_NETS,
    SIZES,
    STRIDES,
    SWEEP,
    Convolution,
    draw,
    largest,
)


def test_the_sweep_has_every_pair_of_channels_and_filters_and_every_value_of_the_rest():
    drawn = draw()
    assert len({(shape.channels, shape.filters) for shape in drawn}) == len(CHANNELS) ** 2 == len(drawn)
    assert {shape.size for shape in drawn} == set(SIZES)
    assert {shape.kernel_size for shape in drawn} == set(KERNEL_SIZES)
    assert {shape.stride for shape in drawn} == set(STRIDES)
    assert {bool(shape.pad) for shape in drawn} == {True, False}


def test_the_sweep_is_always_the_same():
    assert SWEEP == OF_NETS + draw()
    # Figures of two runs may be compared only if they are of these shapes.
    assert draw()[0] == (128, 7, 1, 1, 3, 2, 0)
    assert draw()[-1] == (32, 32, 128, 128, 1, 2, 0)


def test_every_convolution_is_possible_and_short():
    for shape in SWEEP:
        assert shape.out >= 1
    for shape in draw():
        assert shape.flops() <= MOST_FLOPS
        assert largest(shape) <= MOST_NUMBERS


def test_the_work_and_the_bytes_of_a_convolution():
    shape = Convolution(2, 7, 3, 5, 3, stride=2, pad=1)
    assert shape.out == 4
    assert shape.flops() == 2 * (2 * 4 * 4 * 5) * (3 * 3 * 3)
    assert shape.bytes() == 4 * (2 * 7 * 7 * 3 + 3 * 3 * 3 * 5 + 2 * 4 * 4 * 5)
    assert str(shape) == "2x7x7x3, 5 filters 3x3, stride 2, pad 1"
