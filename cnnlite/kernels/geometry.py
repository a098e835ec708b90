"""Where a sliding window goes: the size of the output and the padding, for convolution and pooling alike.

Along one axis, a window of 3 with stride 2 on 6 pixels, `.` being padding:

    valid   123456      windows 123, 345            output 2 = floor((6 - 3) / 2) + 1
    same    123456.     windows 123, 345, 56.       output 3 = ceil(6 / 2)

"same" is TensorFlow's: the odd pixel of padding goes to the bottom and the right.
"""

import functools
from typing import Any, NamedTuple

from cnnlite.engine.jit import jit
from cnnlite.kernels.checks import require

Pads = tuple[tuple[int, int], tuple[int, int]]
NO_PADS = ((0, 0), (0, 0))

# How records of stages describe a convolution: the sizes of x, y and the window, and where the window goes.
FIELDS = "h w channels oh ow filters groups height width stride_h stride_w top left dilation_h dilation_w"


class Window(NamedTuple):
    """A sliding window in the form that compiled code takes: integers only.

    The window of output pixel (i, j) has its taps at rows i*stride_h - top + a*dilation_h for a < height, and
    likewise for columns.
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
    """Return the `Window` for a size (height, width), and for strides, pads and dilation in the layers' form."""
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
    """Return how many pixels a window with taps `dilation` apart spans."""
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


class Geometry(NamedTuple):
    """Where the kernel of a convolution goes, in the layers' form."""

    strides: tuple[int, int] = (1, 1)
    pads: Pads = NO_PADS
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


def geometry_of(strides: Any, pads: Any, dilation: Any, groups: int) -> Geometry:
    """Return the `Geometry` for the arguments that a kernel was called with."""
    (top, bottom), (left, right) = pads
    return Geometry(tuple(strides), ((top, bottom), (left, right)), tuple(dilation), groups)


def convolved_shape(images: Any, x_shape: Any, kernel: Any, geometry: Geometry, owner: str) -> Any:
    """Check that the kernel fits the images, which are x or dy, and return (N, OH, OW, F)."""
    require(images, "the images", 4, None, owner)
    require(kernel, "the kernel", 4, images.dtype, owner)
    check_convolution(x_shape, kernel.shape, geometry, owner)
    strides, pads, dilation, _ = geometry
    output = (max(0, padded_output_size(x_shape[1 + axis], kernel.shape[axis], strides[axis], pads[axis],
                                        dilation[axis])) for axis in (0, 1))
    return (x_shape[0], *output, kernel.shape[3])


def check_convolution(x_shape: Any, kernel_shape: Any, geometry: Geometry, owner: str) -> None:
    """Raise a ValueError unless a kernel of that shape can be applied to images of that shape."""
    kh, kw, channels, filters = kernel_shape
    groups = geometry.groups
    if len(x_shape) != 4 or groups < 1 or channels * groups != x_shape[3] or filters % groups:
        raise ValueError(
            f"{owner}: x must have C channels, the kernel C / groups, and the filters must be divisible by groups. "
            f"Received: an x of shape {tuple(x_shape)}, a kernel of shape {kernel_shape}, groups={groups}."
        )
    sizes = (*geometry.strides, *geometry.dilation, kh, kw)
    if min(sizes) < 1 or min(min(pair) for pair in geometry.pads) < 0:
        raise ValueError(
            f"{owner}: strides, dilation and the kernel's size must be at least 1, and pads not negative. Received: "
            f"strides={geometry.strides}, dilation={geometry.dilation}, a kernel of {(kh, kw)}, pads={geometry.pads}."
        )


def fields(x_shape: Any, kernel_shape: Any, output: Any, geometry: Geometry) -> dict[str, int]:
    """Return the FIELDS of a record; output: (OH, OW)."""
    window = window_of(kernel_shape[:2], *geometry[:3])
    return dict(h=x_shape[1], w=x_shape[2], channels=x_shape[3], oh=output[0], ow=output[1], filters=kernel_shape[3],
                groups=geometry.groups, **window._asdict())


def meets_no_other(sizes: dict[str, int]) -> bool:
    """Return whether each pixel of y depends only on the same pixel of x, given the FIELDS."""
    where = [sizes[name] for name in ("height", "width", "stride_h", "stride_w", "top", "left")]
    return where == [1, 1, 1, 1, 0, 0] and (sizes["h"], sizes["w"]) == (sizes["oh"], sizes["ow"])


def in_one_row(sizes: dict[str, int]) -> dict[str, int]:
    """Return FIELDS in which an image is a single row, if each pixel of y depends only on its own pixel of x.

    Otherwise the FIELDS are returned as they are.
    """
    if not meets_no_other(sizes):
        return sizes
    pixels = sizes["h"] * sizes["w"]
    return dict(sizes, h=1, oh=1, w=pixels, ow=pixels)


@jit
def window_in(r):
    """Return the `Window` of a record that has the FIELDS."""
    return Window(r.height, r.width, r.stride_h, r.stride_w, r.top, r.left, r.dilation_h, r.dilation_w)
