"""The gradients of a convolution with respect to its kernel, bias and input.

Shapes: x (N, H, W, C), kernel (KH, KW, C / groups, F), dy (N, OH, OW, F); pads ((top, bottom), (left, right)).

The kernel and input gradients use Winograd's method where it is faster (`winograd_gradients.py`, and for kernels with
many channels `winograd_kernel_gradient.py`), otherwise the direct method (`direct_kernel_gradient.py`,
`direct_input_gradient.py`). The gradient of a large kernel is a sum of outer products (`outer_products.py`), and for a
large 1 x 1 kernel both gradients are matrix products (`pointwise.py`). The bias gradient is a sum (`channel_sums.py`).
"""

from cnnlite.kernels.channel_sums import add_channel_sums
from cnnlite.kernels.checks import require
from cnnlite.kernels.convolution.direct_input_gradient import add_direct_input_gradient
from cnnlite.kernels.convolution.direct_kernel_gradient import add_direct_kernel_gradient
from cnnlite.kernels.convolution.pointwise import add_pointwise_gradients, is_large
from cnnlite.kernels.convolution.winograd import LEAST_CHANNELS, uses_winograd
from cnnlite.kernels.convolution.winograd_gradients import add_winograd_gradients
from cnnlite.kernels.convolution.winograd_kernel_gradient import add_winograd_kernel_gradient, has_large_products
from cnnlite.kernels.geometry import NO_PADS, convolved_shape, fields, geometry_of, meets_no_other
from cnnlite.kernels.operation import operation, result
from cnnlite.kernels.product.outer_products import add_outer_products

# From this many bytes on, the gradient of a kernel is a sum of outer products: the other two methods keep a sum for
# each chunk of a batch, and Winograd's also one per thread that is four times as large.
LARGE_KERNEL, LARGE_FOR_WINOGRAD = 1 << 18, 1 << 22


@operation(samples="dy out")
def conv2d_input_gradient(dy, kernel, x_shape, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), groups=1, out=None):
    """Return dx[n, h, w, c] = sum of dy[n, oh, ow, f] * kernel[ky, kx, c, f] over outputs that use x[n, h, w, c]."""
    geometry, owner = geometry_of(strides, pads, dilation, groups), "conv2d_input_gradient"
    x_shape = tuple(x_shape)
    shape = convolved_shape(dy, x_shape, kernel, geometry, owner)
    require(dy, "dy", shape, kernel.dtype, owner)
    out = result(out, dy, x_shape)
    require(out, "out", x_shape, dy.dtype, owner)
    _add_gradients(None, dy, kernel, fields(x_shape, kernel.shape, shape[1:3], geometry), dx=out)
    return out


@operation(samples="x dy")
def conv2d_kernel_gradient(x, dy, kernel_shape, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), groups=1, out=None):
    """Return dkernel[ky, kx, c, f] = sum over n, oh, ow of x[n, oh*s + ky*d, ow*s + kx*d, c] * dy[n, oh, ow, f]."""
    geometry, owner = geometry_of(strides, pads, dilation, groups), "conv2d_kernel_gradient"
    out = result(out, x, tuple(kernel_shape))
    require(out, "out", tuple(kernel_shape), x.dtype, owner)
    shape = convolved_shape(x, x.shape, out, geometry, owner)
    require(dy, "dy", shape, x.dtype, owner)
    _add_gradients(x, dy, None, fields(x.shape, out.shape, shape[1:3], geometry), dkernel=out)
    return out


@operation(samples="x dy dx")
def conv2d_backward(x, dy, kernel, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), groups=1, dkernel=None, dbias=None,
                    dx=None):
    """Write the gradients that are not None, in one pass over dy; dbias (F,) is the sum of dy for each filter."""
    geometry, owner = geometry_of(strides, pads, dilation, groups), "conv2d_backward"
    shape = convolved_shape(x, x.shape, kernel, geometry, owner)
    require(dy, "dy", shape, x.dtype, owner)
    results = ("dkernel", dkernel, kernel.shape), ("dbias", dbias, shape[3:]), ("dx", dx, x.shape)
    for name, array, wanted in results:
        if array is not None:
            require(array, name, wanted, x.dtype, owner)
    if dbias is not None:
        add_channel_sums(dy, dbias)
    _add_gradients(x, dy, kernel, fields(x.shape, kernel.shape, shape[1:3], geometry), dkernel, dx)


def _add_gradients(x, dy, kernel, sizes, dkernel=None, dx=None):
    """Add the stages for whichever of dkernel and dx is wanted; sizes: the FIELDS of the convolution."""
    if dkernel is None and dx is None:
        return
    channels, filters, groups = sizes["channels"], sizes["filters"], sizes["groups"]
    numbers = sizes["height"] * sizes["width"] * channels // groups * filters
    if meets_no_other(sizes) and is_large(numbers, groups, dy.itemsize):
        add_pointwise_gradients(x, dy, kernel, dkernel, dx)
        return
    by_winograd = uses_winograd(sizes)
    if by_winograd and dkernel is not None and has_large_products(sizes, dy.itemsize):
        add_winograd_kernel_gradient(x, dy, dkernel, sizes)
        dkernel = None
    if dkernel is not None and groups == 1 and channels >= LEAST_CHANNELS and (
        numbers * dy.itemsize >= (LARGE_FOR_WINOGRAD if by_winograd else LARGE_KERNEL)
    ):
        add_outer_products(x, dy.reshape(-1, filters), dkernel.reshape(-1, filters), windows=sizes)
        dkernel = None
    if by_winograd and not (dkernel is None and dx is None):
        add_winograd_gradients(x, dy, kernel, sizes, dkernel, dx)
        return
    if dkernel is not None:
        add_direct_kernel_gradient(x, dy, dkernel, sizes)
    if dx is not None:
        add_direct_input_gradient(dy, kernel, dx, sizes)
