"""Where a sliding window goes: the size of the output and the padding, for convolution and pooling alike.

Along one axis, a window of 3 with stride 2 on 6 pixels, `.` being padding:

    valid   123456      windows 123, 345            output 2 = floor((6 - 3) / 2) + 1
    same    123456.     windows 123, 345, 56.       output 3 = ceil(6 / 2)

"same" is TensorFlow's: the odd pixel of padding goes to the bottom and the right.
"""

import functools
from typing import NamedTuple

Pads = tuple[tuple[int, int], tuple[int, int]]


class Window(NamedTuple):
    """A sliding window in the form that compiled code takes: nothing but integers.

    The window of output pixel (i, j) has its taps at rows i*stride_h - top + a*dilation_h for a < height, and at
    columns likewise.
    """

    height: int
    width: int
    stride_h: int = 1
    stride_w: int = 1
    top: int = 0
    left: int = 0
    dilation_h: int = 1
    dilation_w: int = 1


def window_of(size, strides, pads, dilation=(1, 1)):
    """Return the `Window` of a size (height, width) and of strides, pads and dilation as the layers have them."""
    return Window(*size, *strides, pads[0][0], pads[1][0], *dilation)


def output_size(size, window, stride, padding, dilation=1):
    """Return how many windows fit along an axis: None for an axis of unknown size, 0 or less if none does."""
    if size is None:
        return None
    if padding == "same":
        return -(-size // stride)
    return (size - extent(window, dilation)) // stride + 1


def same_pads(size, window, stride, dilation=1):
    """Return (before, after), the padding with which ceil(size / stride) windows fit exactly."""
    covered = (output_size(size, window, stride, "same") - 1) * stride + extent(window, dilation)
    total = max(covered - size, 0)
    return total // 2, total - total // 2


def extent(window, dilation):
    """Return how many pixels a window spans whose taps lie `dilation` apart."""
    return (window - 1) * dilation + 1


@functools.lru_cache(maxsize=4096)
def window_output_size(height, width, window, strides, padding, dilation, owner):
    """Return (OH, OW); either is None where the size is unknown.

    Raises:
        ValueError: the window is larger than the image, so that there would be no output.
    """
    sizes = (height, width)
    out = tuple(output_size(*axis, padding, tap) for *axis, tap in zip(sizes, window, strides, dilation))
    if any(size is not None and size < 1 for size in out):
        spans = tuple(extent(*axis) for axis in zip(window, dilation))
        raise ValueError(
            f"{owner}: the window must fit into the image. Received: a window that spans {spans} pixels and an image "
            f"of {sizes}. Use a smaller window or padding='same'."
        )
    return out


@functools.lru_cache(maxsize=4096)
def window_pads(
    height: int,
    width: int,
    window: tuple[int, int],
    strides: tuple[int, int],
    padding: str,
    dilation: tuple[int, int] = (1, 1),
) -> Pads:
    """Return ((top, bottom), (left, right)) for "valid" or "same" padding."""
    if padding == "valid":
        return (0, 0), (0, 0)
    return (same_pads(height, window[0], strides[0], dilation[0]),
            same_pads(width, window[1], strides[1], dilation[1]))


def padded_output_size(size: int, window: int, stride: int, pads: tuple[int, int], dilation: int = 1) -> int:
    """Return how many windows fit along an axis with explicit padding."""
    return (size + pads[0] + pads[1] - extent(window, dilation)) // stride + 1
