"""Every kernel again in a few lines of plain NumPy, under the same name and with the same arguments.

This is what the kernels in `cnnlite/kernels/` are held to by the tests, and what a debugger can step
through in their place: with the environment variable `CNNLITE_KERNELS=reference` the whole library runs
on this file.

Shapes: N images, H rows, W columns, C channels; OH and OW are the size of the output; F filters; a
kernel is (KH, KW, C, F). `pads` is ((top, bottom), (left, right)).
"""

import numpy as np

from cnnlite.kernels.geometry import padded_output_size

NO_PADS = ((0, 0), (0, 0))

# ---------------------------------------------------------------- matrix products and convolution


def matmul(a, b, bias=None, transpose_a=False, transpose_b=False, out=None):
    """c = a @ b + bias"""
    c = (a.T if transpose_a else a) @ (b.T if transpose_b else b)
    return write(c if bias is None else c + bias, out)


def column_sums(x, out=None):
    """out[j] = sum over i of x[i, j]"""
    return write(x.sum(axis=0), out)


def im2col(x, window, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), out=None):
    """One row (KH * KW * C) an output pixel: the window that it sees."""
    padded = np.pad(x, ((0, 0), *pads, (0, 0)))
    n, _, _, c = x.shape
    oh, ow = output_shape(x.shape, window, strides, pads, dilation)
    cols = np.empty((n, oh, ow, *window, c), x.dtype)
    for ky, kx, seen in taps(padded, window, strides, dilation, (oh, ow)):
        cols[:, :, :, ky, kx] = seen
    return write(cols.reshape(n * oh * ow, window[0] * window[1] * c), out)


def col2im(cols, x_shape, window, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), out=None):
    """Every number of the rows goes back to the pixel that it came from, and is added there."""
    padded = np.pad(np.zeros(x_shape, cols.dtype), ((0, 0), *pads, (0, 0)))
    n, h, w, c = x_shape
    oh, ow = output_shape(x_shape, window, strides, pads, dilation)
    cols = cols.reshape(n, oh, ow, *window, c)
    for ky, kx, seen in taps(padded, window, strides, dilation, (oh, ow)):
        seen += cols[:, :, :, ky, kx]
    (top, _), (left, _) = pads
    return write(padded[:, top : top + h, left : left + w], out)


def conv2d(x, kernel, bias=None, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), groups=1, out=None):
    """y = im2col(x) @ kernel + bias, for each group of channels and filters on its own"""
    kh, kw, channels, f = kernel.shape
    y = [
        im2col(xg, (kh, kw), strides, pads, dilation) @ kg.reshape(kh * kw * channels, f // groups)
        for xg, kg in zip(np.split(x, groups, axis=3), np.split(kernel, groups, axis=3))
    ]
    y = np.concatenate(y, axis=1).reshape(len(x), *output_shape(x.shape, (kh, kw), strides, pads, dilation), f)
    return write(y if bias is None else y + bias, out)


def conv2d_input_gradient(dy, kernel, x_shape, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), groups=1, out=None):
    """dx = col2im(dy @ kernel.T)"""
    kh, kw, channels, f = kernel.shape
    dx = []
    for dyg, kg in zip(np.split(dy, groups, axis=3), np.split(kernel, groups, axis=3)):
        dcols = dyg.reshape(-1, f // groups) @ kg.reshape(kh * kw * channels, f // groups).T
        dx.append(col2im(dcols, (*x_shape[:3], channels), (kh, kw), strides, pads, dilation))
    return write(np.concatenate(dx, axis=3), out)


def conv2d_kernel_gradient(x, dy, kernel_shape, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), groups=1, out=None):
    """dkernel = im2col(x).T @ dy"""
    kh, kw, channels, f = kernel_shape
    dkernel = [
        (im2col(xg, (kh, kw), strides, pads, dilation).T @ dyg.reshape(-1, f // groups)).reshape(kh, kw, channels, f // groups)
        for xg, dyg in zip(np.split(x, groups, axis=3), np.split(dy, groups, axis=3))
    ]
    return write(np.concatenate(dkernel, axis=3), out)


def depthwise_conv2d(x, kernel, bias=None, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), out=None):
    """y[..., c * M + m] = x[..., c] * kernel[..., c, m] + bias: a convolution with one group a channel"""
    kh, kw, c, m = kernel.shape
    return conv2d(x, kernel.reshape(kh, kw, 1, c * m), bias, strides, pads, dilation, c, out)


def depthwise_conv2d_input_gradient(dy, kernel, x_shape, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), out=None):
    """dx of `depthwise_conv2d`"""
    kh, kw, c, m = kernel.shape
    return conv2d_input_gradient(dy, kernel.reshape(kh, kw, 1, c * m), x_shape, strides, pads, dilation, c, out)


def depthwise_conv2d_kernel_gradient(x, dy, kernel_shape, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), out=None):
    """dkernel of `depthwise_conv2d`"""
    kh, kw, c, m = kernel_shape
    dkernel = conv2d_kernel_gradient(x, dy, (kh, kw, 1, c * m), strides, pads, dilation, c)
    return write(dkernel.reshape(kernel_shape), out)


def output_shape(x_shape, window, strides, pads, dilation):
    """Return (OH, OW)."""
    return tuple(
        max(0, padded_output_size(*axis)) for axis in zip(x_shape[1:3], window, strides, pads, dilation)
    )


def taps(padded, window, strides, dilation, output):
    """Yield (ky, kx, seen) for each tap of the window; `seen` is a view of what it sees from each output pixel."""
    for ky in range(window[0]):
        for kx in range(window[1]):
            y, x = ky * dilation[0], kx * dilation[1]
            seen = padded[:, y : y + output[0] * strides[0] : strides[0], x : x + output[1] * strides[1] : strides[1]]
            yield ky, kx, seen


def write(result, out):
    """Return the result, in `out` if there is one."""
    if out is None:
        return np.ascontiguousarray(result)
    out[...] = result
    return out


# ---------------------------------------------------------------- pooling


# ---------------------------------------------------------------- batch normalisation


# ---------------------------------------------------------------- activations


# ---------------------------------------------------------------- optimizer steps

# p and the slots are changed in place; a slot that is not in use has length 0 (see kernels/optimizers.py).


def sgd_step(p, g, momentum, learning_rate, beta, nesterov, decay):
    p -= p.dtype.type(decay) * p
    learning_rate, beta = p.dtype.type(learning_rate), p.dtype.type(beta)
    if momentum.size == 0:
        p -= learning_rate * g
        return
    momentum[...] = beta * momentum - learning_rate * g
    p += beta * momentum - learning_rate * g if nesterov else momentum


def rmsprop_step(p, g, velocity, average_gradient, momentum, learning_rate, rho, beta, epsilon, decay):
    p -= p.dtype.type(decay) * p
    velocity[...] = p.dtype.type(rho) * velocity + p.dtype.type(1 - rho) * g**2
    variance = velocity
    if average_gradient.size:
        average_gradient[...] = p.dtype.type(rho) * average_gradient + p.dtype.type(1 - rho) * g
        variance = velocity - average_gradient**2
    change = p.dtype.type(learning_rate) * g / np.sqrt(variance + p.dtype.type(epsilon))
    if momentum.size:
        momentum[...] = change = p.dtype.type(beta) * momentum + change
    p -= change


def adam_step(p, g, momentum, velocity, velocity_hat, alpha, beta_1, beta_2, epsilon, decay):
    p -= p.dtype.type(decay) * p
    momentum += p.dtype.type(1 - beta_1) * (g - momentum)
    velocity += p.dtype.type(1 - beta_2) * (g**2 - velocity)
    if velocity_hat.size:
        velocity = np.maximum(velocity_hat, velocity, out=velocity_hat)
    p -= p.dtype.type(alpha) * momentum / (np.sqrt(velocity) + p.dtype.type(epsilon))


def adagrad_step(p, g, accumulator, learning_rate, epsilon, decay):
    p -= p.dtype.type(decay) * p
    accumulator += g**2
    p -= p.dtype.type(learning_rate) * g / np.sqrt(accumulator + p.dtype.type(epsilon))
