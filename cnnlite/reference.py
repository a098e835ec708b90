"""Every kernel in a few lines of plain NumPy, with the same name and the same arguments.

The tests check the kernels in `cnnlite/kernels/` against this file, and a debugger can step through it
in their place: `with cnnlite.reference_mode():` runs the library on it (see `eager.py`).

Shapes: N images, H rows, W columns, C channels; OH and OW are the size of the output; F filters; a
kernel is (KH, KW, C, F). `pads` is ((top, bottom), (left, right)). Sums accumulate in float64, so that they
stay accurate however many float32 numbers there are.
"""

import math

import numpy as np

from cnnlite.kernels.geometry import padded_output_size

NO_PADS = ((0, 0), (0, 0))

# ---------------------------------------------------------------- matrix products and convolution


def matmul(a, b, bias=None, transpose_a=False, transpose_b=False, out=None):
    """c = a @ b + bias"""
    if a.ndim > 2:  # several rows per sample
        a, b = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
    c = product(a.T if transpose_a else a, b.T if transpose_b else b)
    return write(c if bias is None else c + bias, out)


def column_sums(x, out=None):
    """out[j] = sum over all i of x[i..., j]"""
    return write(exact_sum(x.reshape(-1, x.shape[-1]) if x.ndim > 2 else x, axis=0), out)


def im2col(x, window, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), out=None):
    """One row (KH * KW * C) per output pixel: the window that it sees."""
    padded = np.pad(x, ((0, 0), *pads, (0, 0)))
    n, _, _, c = x.shape
    oh, ow = output_shape(x.shape, window, strides, pads, dilation)
    cols = np.empty((n, oh, ow, *window, c), x.dtype)
    for ky, kx, seen in taps(padded, window, strides, dilation, (oh, ow)):
        cols[:, :, :, ky, kx] = seen
    return write(cols.reshape(n * oh * ow, window[0] * window[1] * c), out)


def col2im(cols, x_shape, window, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), out=None):
    """Every element of the rows is added back to the pixel that it came from."""
    padded = np.pad(np.zeros(x_shape), ((0, 0), *pads, (0, 0)))
    n, h, w, c = x_shape
    oh, ow = output_shape(x_shape, window, strides, pads, dilation)
    cols = cols.reshape(n, oh, ow, *window, c)
    for ky, kx, seen in taps(padded, window, strides, dilation, (oh, ow)):
        seen += cols[:, :, :, ky, kx]
    (top, _), (left, _) = pads
    return write(padded[:, top : top + h, left : left + w].astype(cols.dtype), out)


def conv2d(x, kernel, bias=None, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), groups=1, out=None):
    """y = im2col(x) @ kernel + bias, for each group of channels and filters separately"""
    kh, kw, channels, f = kernel.shape
    y = [
        product(im2col(xg, (kh, kw), strides, pads, dilation), kg.reshape(kh * kw * channels, f // groups))
        for xg, kg in zip(np.split(x, groups, axis=3), np.split(kernel, groups, axis=3))
    ]
    y = np.concatenate(y, axis=1).reshape(len(x), *output_shape(x.shape, (kh, kw), strides, pads, dilation), f)
    return write(y if bias is None else y + bias, out)


def conv2d_input_gradient(dy, kernel, x_shape, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), groups=1, out=None):
    """dx = col2im(dy @ kernel.T)"""
    kh, kw, channels, f = kernel.shape
    dx = []
    for dyg, kg in zip(np.split(dy, groups, axis=3), np.split(kernel, groups, axis=3)):
        dcols = product(dyg.reshape(-1, f // groups), kg.reshape(kh * kw * channels, f // groups).T)
        dx.append(col2im(dcols, (*x_shape[:3], channels), (kh, kw), strides, pads, dilation))
    return write(np.concatenate(dx, axis=3), out)


def conv2d_kernel_gradient(x, dy, kernel_shape, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), groups=1, out=None):
    """dkernel = im2col(x).T @ dy"""
    kh, kw, _, f = kernel_shape
    dkernel = [
        product(im2col(xg, (kh, kw), strides, pads, dilation).T, dyg.reshape(-1, f // groups))
        for xg, dyg in zip(np.split(x, groups, axis=3), np.split(dy, groups, axis=3))
    ]
    return write(np.concatenate(dkernel, axis=1).reshape(kernel_shape), out)


def conv2d_backward(x, dy, kernel, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), groups=1, dkernel=None, dbias=None,
                    dx=None):
    """Write the gradients for which an array is given."""
    geometry = strides, pads, dilation, groups
    if dkernel is not None:
        conv2d_kernel_gradient(x, dy, kernel.shape, *geometry, out=dkernel)
    if dbias is not None:
        dbias[...] = exact_sum(dy, axis=(0, 1, 2))
    if dx is not None:
        conv2d_input_gradient(dy, kernel, x.shape, *geometry, out=dx)


def depthwise_conv2d(x, kernel, bias=None, strides=(1, 1), pads=NO_PADS, dilation=(1, 1), out=None):
    """y[..., c * M + m] = x[..., c] * kernel[..., c, m] + bias: a convolution with one group per channel"""
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
    """Yield (ky, kx, seen) for each tap of the window; `seen` views the input pixel under it, for each output pixel."""
    for ky in range(window[0]):
        for kx in range(window[1]):
            y, x = ky * dilation[0], kx * dilation[1]
            seen = padded[:, y : y + output[0] * strides[0] : strides[0], x : x + output[1] * strides[1] : strides[1]]
            yield ky, kx, seen


def product(a, b):
    """a @ b"""
    return np.matmul(a, b, dtype=np.float64).astype(a.dtype)


def exact_sum(x, axis, keepdims=False):
    """Return the sum of x along one axis or several, accumulated in float64."""
    return x.sum(axis=axis, keepdims=keepdims, dtype=np.float64).astype(x.dtype)


def write(result, out):
    """Return the result, in `out` if there is one."""
    if out is None:
        return np.asarray(result, order="C")
    out[...] = result
    return out


# ---------------------------------------------------------------- pooling


def _windows(x_shape, window, strides, pads):
    """Yield (tap, rows, columns, real) for each tap of the window: the pixel of x under it, for each output pixel.

    `rows` is (OH, 1) and `columns` (1, OW), for x[:, rows, columns]; `real` (OH, OW, 1) is False in the padding.
    """
    (_, height, width, _), (kh, kw) = x_shape, window
    (top, bottom), (left, right) = pads
    first_rows = np.arange(0, height + top + bottom - kh + 1, strides[0])[:, None] - top
    first_columns = np.arange(0, width + left + right - kw + 1, strides[1])[None, :] - left
    for tap in range(kh * kw):
        rows, columns = first_rows + tap // kw, first_columns + tap % kw
        real = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        yield tap, rows.clip(0, height - 1), columns.clip(0, width - 1), real[..., None]


def max_pool(x, window, strides, pads, out=None):
    """Return (y, argmax): the largest value of each window, and its position (a, b) in the window as a·KW + b.

    Of equal values the first wins, in row-major order: `>` is strict. The first NaN beats everything.
    """
    y = argmax = None
    for tap, rows, columns, real in _windows(x.shape, window, strides, pads):
        pixel = x[:, rows, columns]
        if y is None:
            y = np.full_like(pixel, -np.inf)
            argmax = np.full(pixel.shape, -1, np.int32)
        wins = real & ((argmax < 0) | (pixel > y) | (np.isnan(pixel) & ~np.isnan(y)))
        y, argmax = np.where(wins, pixel, y), np.where(wins, tap, argmax)
    argmax = argmax.astype(np.uint8 if window[0] * window[1] <= 256 else np.int32)
    return (y, argmax) if out is None else (write(y, out[0]), write(argmax, out[1]))


def max_pool_backward(dy, argmax, x_shape, window, strides, pads, out=None):
    """Return dx: each element of dy is added to the pixel that won its window."""
    dx = np.zeros(x_shape)
    for tap, rows, columns, _ in _windows(x_shape, window, strides, pads):
        np.add.at(dx, (slice(None), rows, columns), np.where(argmax == tap, dy, 0))
    return write(dx.astype(dy.dtype), out)


def _real_pixels(x_shape, window, strides, pads):
    """Return the number of pixels in each window that are not padding, (OH, OW, 1)."""
    return sum(real.astype(int) for *_, real in _windows(x_shape, window, strides, pads))


def average_pool(x, window, strides, pads, out=None):
    """Return the mean of the real pixels of each window."""
    total = sum(np.where(real, x[:, rows, columns], 0).astype(np.float64) for _, rows, columns, real
                in _windows(x.shape, window, strides, pads))
    return write((total / _real_pixels(x.shape, window, strides, pads)).astype(x.dtype), out)


def average_pool_backward(dy, x_shape, window, strides, pads, out=None):
    """Return dx: each element of dy is shared equally by the real pixels of its window."""
    dx = np.zeros(x_shape)
    share = dy / _real_pixels(x_shape, window, strides, pads)
    for _, rows, columns, real in _windows(x_shape, window, strides, pads):
        np.add.at(dx, (slice(None), rows, columns), np.where(real, share, 0))
    return write(dx.astype(dy.dtype), out)


# ---------------------------------------------------------------- batch normalisation


def batchnorm_statistics(x):
    """Return the mean and the biased variance of each channel of x (N, ..., C).

    Both are 0 if there are no samples, and NaN for a channel that holds NaN or an infinity.
    """
    x = x.reshape(-1, x.shape[-1])
    if x.shape[0] == 0:
        return np.zeros(x.shape[1], x.dtype), np.zeros(x.shape[1], x.dtype)
    with np.errstate(invalid="ignore"):  # inf − inf is NaN, as in the kernel; not worth a warning
        mean = x.mean(axis=0, dtype=np.float64)
        mean = np.where(np.isfinite(mean), mean, np.nan)
        return mean.astype(x.dtype), np.square(x - mean).mean(axis=0).astype(x.dtype)


def inverse_deviation(variance, epsilon):
    """Return 1 / √(variance + epsilon), and NaN for an infinite variance."""
    inv_std = 1 / np.sqrt(variance + variance.dtype.type(epsilon))
    return np.where(inv_std == 0, variance.dtype.type(np.nan), inv_std)


def batchnorm_normalize(x, mean, inv_std, gamma, beta, out=None):
    """Return gamma (x − mean) inv_std + beta; None means 1 for gamma and 0 for beta."""
    y = (x - mean) * (inv_std if gamma is None else inv_std * gamma)
    return write(y if beta is None else y + beta, out)


def batchnorm_backward(dy, x, mean, inv_std, gamma, out=None, dgamma=None, dbeta=None):
    """Return (dx, dgamma, dbeta) where mean and inv_std were computed from x."""
    samples_axes = tuple(range(x.ndim - 1))
    normalized = (x - mean) * inv_std
    dbeta = write(exact_sum(dy, samples_axes), dbeta)
    dgamma = write(exact_sum(dy * normalized, samples_axes), dgamma)
    samples = x.dtype.type(max(x.size // x.shape[-1], 1))
    dx = inv_std * (dy - dbeta / samples - normalized * dgamma / samples)
    return write(dx if gamma is None else gamma * dx, out), dgamma, dbeta


def batchnorm_inference_backward(dy, inv_std, gamma, out=None):
    """Return dx where mean and inv_std are constants."""
    return write(inv_std * dy if gamma is None else gamma * inv_std * dy, out)


def move_average(average, value, momentum, like, refused=None):
    """average = momentum average + (1 − momentum) value, unless there are no samples or the step was refused."""
    if len(like) and (refused is None or not refused[0]):
        average *= momentum
        average += (1 - momentum) * value


# ---------------------------------------------------------------- dropout


def dropout_mask(key, rate, out):
    """Fill `out` with 0 where a draw is below the rate, else 1 / (1 - rate); `key` is two integers for Philox."""
    generator = np.random.Generator(np.random.Philox(key=np.array(key, np.uint64)))
    draws = generator.random(out.shape, np.float32)
    return write((draws >= np.float32(rate)) * (0 if rate == 1 else 1 / (1 - rate)), out)


# ---------------------------------------------------------------- activations


def relu(x, out=None):
    return write(np.where(x <= 0, 0, x).astype(x.dtype), out)


def relu_backward(dy, y, out=None):
    return write(np.where(y <= 0, 0, dy).astype(dy.dtype), out)


def leaky_relu(x, negative_slope=0.2, out=None):
    return write(np.where(x <= 0, negative_slope * x, x), out)


def leaky_relu_backward(dy, y, negative_slope=0.2, out=None):
    return write(np.where(y <= 0, negative_slope * dy, dy), out)


def clipped_relu(x, max_value=None, negative_slope=0.0, threshold=0.0, out=None):
    below = negative_slope * (x - threshold) if negative_slope else np.zeros_like(x)
    return write(np.where(x <= threshold, below, x if max_value is None else np.minimum(x, max_value)), out)


def clipped_relu_backward(dy, x, max_value=None, negative_slope=0.0, threshold=0.0, out=None):
    above = dy if max_value is None else np.where(x >= max_value, 0, dy)
    return write(np.where(x <= threshold, negative_slope * dy, above).astype(dy.dtype), out)


def elu(x, alpha=1.0, out=None):
    return write(np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))), out)


def elu_backward(dy, x, alpha=1.0, out=None):
    return write(np.where(x > 0, dy, alpha * np.exp(np.minimum(x, 0)) * dy), out)


def _erfc(x):
    return np.array([math.erfc(value) for value in x.ravel()], x.dtype).reshape(x.shape)


def gelu(x, approximate=False, out=None):
    if approximate:
        return write(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))), out)
    return write(x * _erfc(-math.sqrt(0.5) * x) / 2, out)


def gelu_backward(dy, x, approximate=False, out=None):
    if approximate:
        t = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
        return write(dy * 0.5 * (1 + t + x * (1 - t**2) * math.sqrt(2 / math.pi) * (1 + 0.134145 * x**2)), out)
    return write(dy * (_erfc(-math.sqrt(0.5) * x) / 2 + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)), out)


def sigmoid(x, out=None):
    return write(np.exp(-np.logaddexp(0, -x)).astype(x.dtype), out)


def sigmoid_backward(dy, y, out=None):
    return write(dy * y * (1 - y), out)


def silu(x, out=None):
    return write(x * sigmoid(x), out)


def silu_backward(dy, x, out=None):
    return write(dy * (sigmoid(x) + x * sigmoid(x) * sigmoid(-x)), out)


def tanh(x, out=None):
    e = np.expm1(-2 * np.abs(x))
    return write(np.sign(x) * -e / (2 + e), out)


def tanh_backward(dy, y, out=None):
    return write(dy * (1 - y) * (1 + y), out)


def softplus(x, out=None):
    return write(np.logaddexp(x, 0).astype(x.dtype), out)


def softplus_backward(dy, y, out=None):
    return write(dy * (1 - np.exp(-y)), out)


def softmax(x, axis=-1, out=None):
    return write(np.exp(log_softmax(x, axis)), out)


def softmax_backward(dy, y, axis=-1, out=None):
    return write(y * (dy - exact_sum(dy * y, axis, keepdims=True)), out)


def log_softmax(x, axis=-1, out=None):
    x = x - x.max(axis, keepdims=True)
    return write(x - np.log(exact_sum(np.exp(x), axis, keepdims=True)), out)


def log_softmax_and_softmax(x):
    return log_softmax(x), softmax(x)


def log_softmax_backward(dy, y, axis=-1, out=None):
    return write(dy - np.exp(y) * exact_sum(dy, axis, keepdims=True), out)


# ---------------------------------------------------------------- losses

# From predictions y and targets t (N, ..., K): the losses (N, ...), and their gradient (N, ..., K) if wanted.

EPSILON = 1e-7  # probabilities are kept this far from 0 and 1


def crossentropy(y, t, from_logits, gradient=True):
    """-sum(t log p); with logits, t may also be class indices, int64 (N, ...)"""
    if t.dtype == np.int64:
        is_class = (t >= 0) & (t < y.shape[-1])
        t = np.where(is_class[..., None], t[..., None] == np.arange(y.shape[-1]), np.nan).astype(y.dtype)
    p = softmax(y) if from_logits else y / exact_sum(y, -1, keepdims=True)
    log_p = log_softmax(y) if from_logits else np.log(_clipped(p))
    losses = exact_sum(_times(-t, log_p), -1)
    if from_logits:
        dy = p * exact_sum(t, -1, keepdims=True) - t
    else:
        dp = np.where(_is_clipped(p), 0, -t / _clipped(p))
        dy = (dp - (dp * p).sum(-1, keepdims=True)) / exact_sum(y, -1, keepdims=True)
    return _terms(losses, dy, y, gradient)


def binary_crossentropy(y, t, from_logits, gradient=True):
    """-mean(t log p + (1 - t) log(1 - p))"""
    if from_logits:
        costs = _times(t, np.maximum(-y, 0)) + _times(1 - t, np.maximum(y, 0)) + softplus(-np.abs(y))
        dy = sigmoid(y) - t
    else:
        p = _clipped(y)
        costs = -(t * np.log(p) + (1 - t) * np.log(1 - p))
        dy = np.where(_is_clipped(y), 0, (1 - t) / (1 - p) - t / p)
    return _terms(_mean(costs), dy / y.shape[-1], y, gradient)


def squared_error(y, t, gradient=True):
    return _terms(_mean(np.square(y - t)), (y - t) * (2 / y.shape[-1]), y, gradient)


def absolute_error(y, t, gradient=True):
    return _terms(_mean(np.abs(y - t)), np.sign(y - t) / y.shape[-1], y, gradient)


def huber(y, t, delta, gradient=True):
    e = np.abs(y - t)
    values = np.where(e <= delta, 0.5 * e * e, delta * e - 0.5 * delta**2)
    return _terms(_mean(values), np.clip(y - t, -delta, delta) / y.shape[-1], y, gradient)


def _terms(losses, dy, y, gradient):
    losses, dy = losses.astype(y.dtype), dy.astype(y.dtype)
    return (losses, dy) if gradient else losses


def _mean(values):
    return values.mean(axis=-1, dtype=np.float64)


def _times(t, cost):
    """t * cost, but 0 where that would be 0 times infinity"""
    return np.where((t == 0) & np.isinf(cost), 0, t * cost)


def _clipped(p):
    return np.clip(p, EPSILON, 1 - EPSILON)


def _is_clipped(p):
    return (p < EPSILON) | (p > 1 - EPSILON)


def mean_loss(losses, weights=None, mean=True):
    """The mean or the sum of the losses, as a float64 array (1,)"""
    if weights is not None:
        losses = losses * _spread(weights, losses.ndim)
    total = losses.sum(dtype=np.float64)
    return np.array([total / max(1, losses.size) if mean else total])


def scale_gradient(dy, weights=None, mean=True, out=None):
    """The gradient of `mean_loss`, given dy, the gradient of each loss"""
    scale = np.float64(1 / max(1, math.prod(dy.shape[:-1])) if mean else 1)
    if weights is not None:
        scale = scale * _spread(weights, dy.ndim)
    return write(dy * scale.astype(dy.dtype), out)


def _spread(weights, ndim):
    return weights.reshape(weights.shape + (1,) * (ndim - weights.ndim))


# ---------------------------------------------------------------- penalties on weights


def l1_l2_penalty(w, l1, l2):
    """l1 sum(|w|) + l2 sum(w²), as a float64 array (1,); a factor of 0 leaves its sum out"""
    sizes, squares = (float(exact_sum(values, None)) for values in (np.abs(w), np.square(w)))
    return np.array([(l1 * sizes if l1 else 0.0) + (l2 * squares if l2 else 0.0)])


def add_l1_l2_gradient(w, g, l1, l2):
    """g += l1 sign(w) + 2 l2 w"""
    g += w.dtype.type(l1) * np.sign(w) + w.dtype.type(2 * l2) * w


# ---------------------------------------------------------------- clipping

# `segments` are the (start, stop) ranges of the flat vector g to clip; elsewhere `out` is undefined.


def clip_by_value(g, out, limit, segments):
    for start, stop in segments:
        np.clip(g[start:stop], -limit, limit, out=out[start:stop])


def clip_by_norm(g, out, limit, segments):
    """g limit / max(norm of the segment, limit)"""
    for start, stop in segments:
        _scale(g, out, limit / np.maximum(_norm([g[start:stop]]), limit), [(start, stop)])


def clip_by_global_norm(g, out, limit, segments):
    """g limit / max(norm of all segments, limit)"""
    norm = _norm([g[start:stop] for start, stop in segments])
    _scale(g, out, limit / np.maximum(norm, limit) if np.isfinite(norm) else np.nan, segments)


def _norm(parts):
    g = np.concatenate([np.zeros(1), *parts])
    largest = np.abs(g).max()
    scale = largest if 0 < largest < np.inf else 1.0
    return scale * np.sqrt(np.square(g / scale).sum())


def _scale(g, out, factor, segments):
    for start, stop in segments:
        np.multiply(g[start:stop], g.dtype.type(factor), out=out[start:stop])


# ---------------------------------------------------------------- optimizer steps

# p and the slots are updated in place; an unused slot has length 0 (see kernels/optimizers.py).


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


# The same steps, with the scalars in a float64 array; if `refused` is not 0, nothing changes.


def sgd(p, g, momentum, values, start=0, stop=None, refused=None):
    _step(sgd_step, p, g, (momentum,), values, start, stop, refused)


def rmsprop(p, g, velocity, average_gradient, momentum, values, start=0, stop=None, refused=None):
    _step(rmsprop_step, p, g, (velocity, average_gradient, momentum), values, start, stop, refused)


def adam(p, g, momentum, velocity, velocity_hat, values, start=0, stop=None, refused=None):
    _step(adam_step, p, g, (momentum, velocity, velocity_hat), values, start, stop, refused)


def adagrad(p, g, accumulator, values, start=0, stop=None, refused=None):
    _step(adagrad_step, p, g, (accumulator,), values, start, stop, refused)


def _step(step, p, g, slots, values, start, stop, refused):
    if refused is None or refused[0] == 0:
        slots = [p[:0] if slot is None else slot[start:stop] for slot in slots]
        step(p[start:stop], g[start:stop], *slots, *values.tolist())


# ---------------------------------------------------------------- layout, and elementwise sums and products


def moveaxis(x, source, destination, out=None):
    return write(np.moveaxis(x, source, destination), out)


def pad(x, pads, out=None):
    return write(np.pad(x, ((0, 0), *pads, (0, 0))), out)


def crop(x, pads, out=None):
    (top, bottom), (left, right) = pads
    return write(x[:, top : x.shape[1] - bottom, left : x.shape[2] - right], out)


def multiply(a, b, out=None):
    return write(a * b, out)


def add(a, b, out=None):
    return write(a + b, out)
