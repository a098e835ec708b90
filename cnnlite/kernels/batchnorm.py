"""Batch normalisation of M samples of C channels, x (M, C), where M counts every pixel of every image.

Sums over M are cut into chunks of rows, by the shape of x alone, and the sums of the chunks are added in float64
in the order of the rows: the same bits for any number of threads. A chunk is small enough to stay in the
processor's cache for the second look at it.
"""

import numpy as np
from numba import prange

from cnnlite.kernels._jit import kernel


def chunk_rows(channels):
    """Return how many rows a chunk has: about 64 kB of float32, and at most 512, over which a float32 sum is good."""
    return min(max(16384 // max(channels, 1), 64), 512)


def batchnorm_statistics(x):
    """Return (mean, variance) of each channel, both (C,): variance = 1/M Σ (x − mean)², the biased one.

    Each chunk is looked at twice, for its mean and then for its squared deviations M2 from it, and chunks are
    combined by M2 = Σ (M2_k + n_k (mean_k − mean)²) (Chan, Golub and LeVeque, 1979), which unlike
    Σx² / M − mean² stays accurate where the mean is large beside the deviation. Without samples both are 0;
    both are NaN where a channel holds NaN or an infinity.
    """
    channels = x.shape[1]
    mean, variance = np.zeros(channels, x.dtype), np.zeros(channels, x.dtype)
    rows = chunk_rows(channels)
    chunks = -(-x.shape[0] // rows)
    if chunks:
        _statistics(x, rows, np.empty((chunks, channels)), np.empty((chunks, channels)), mean, variance)
    return mean, variance


def batchnorm_normalize(x, mean, inv_std, gamma, beta, out=None):
    """Return y = gamma (x − mean) inv_std + beta, of the shape of x; the other arrays are (C,)."""
    y = np.empty_like(x) if out is None else out
    _affine(x, mean, inv_std * gamma, beta, chunk_rows(x.shape[1]), y)
    return y


def batchnorm_backward(dy, x, mean, inv_std, gamma, out=None):
    """Return (dx, dgamma, dbeta) where mean and inv_std were those of x itself.

    With x̂ = (x − mean) inv_std (Ioffe and Szegedy, 2015, section 3):

        dbeta  = Σ dy
        dgamma = Σ dy x̂
        dx     = gamma inv_std (dy − dbeta / M − x̂ dgamma / M)

    Args:
        dy, x: (M, C).
        mean, inv_std, gamma: (C,).
        out: an array for dx.
    """
    dx = np.empty_like(x) if out is None else out
    channels = x.shape[1]
    dgamma, dbeta = np.zeros(channels, x.dtype), np.zeros(channels, x.dtype)
    rows = chunk_rows(channels)
    chunks = -(-x.shape[0] // rows)
    if chunks:
        sums, terms = np.empty((2, chunks, channels)), np.empty((3, channels), x.dtype)
        _backward(dy, x, mean, inv_std, gamma, rows, sums, terms, dgamma, dbeta, dx)
    return dx, dgamma, dbeta


def batchnorm_inference_backward(dy, inv_std, gamma, out=None):
    """Return dx = gamma inv_std dy, where mean and inv_std are constants such as moving averages."""
    nothing = np.zeros_like(gamma)
    return batchnorm_normalize(dy, nothing, inv_std, gamma, nothing, out)


@kernel
def _chunk_statistics(x, mean, m2):
    """Write the mean and Σ (x − mean)² of one chunk x (rows, C)."""
    rows, channels = x.shape
    count = x.dtype.type(rows)
    center, error, square = np.empty_like(x[0]), np.zeros_like(x[0]), np.zeros_like(x[0])
    for c in range(channels):
        center[c] = 0
    for row in range(rows):
        for c in range(channels):
            center[c] += x[row, c] - x[0, c]
    for c in range(channels):
        center[c] = x[0, c] + center[c] / count
    # The rounding error of the center shows as the sum of the deviations from it, and is taken out again.
    for row in range(rows):
        for c in range(channels):
            deviation = x[row, c] - center[c]
            error[c] += deviation
            square[c] += deviation * deviation
    for c in range(channels):
        mean[c] = np.float64(center[c]) + np.float64(error[c]) / rows
        m2[c] = np.float64(square[c]) - np.float64(error[c]) ** 2 / rows


@kernel
def _combine_statistics(means, m2s, rows, total, mean, variance):
    chunks, channels = means.shape
    exact, m2 = np.zeros(channels), np.zeros(channels)
    for k in range(chunks):
        count = min(rows, total - k * rows)
        for c in range(channels):
            exact[c] += means[k, c] * count
    for c in range(channels):
        exact[c] /= total
    for k in range(chunks):
        count = min(rows, total - k * rows)
        for c in range(channels):
            m2[c] += m2s[k, c] + count * (means[k, c] - exact[c]) ** 2
    for c in range(channels):
        mean[c] = exact[c]
        # Rounding can take a variance of 0 just below it. A NaN is not less than 0 and stays.
        variance[c] = 0.0 if m2[c] < 0 else m2[c] / total


@kernel(parallel=True)
def _statistics(x, rows, means, m2s, mean, variance):
    for k in prange(means.shape[0]):
        _chunk_statistics(x[k * rows : (k + 1) * rows], means[k], m2s[k])
    _combine_statistics(means, m2s, rows, x.shape[0], mean, variance)


@kernel
def _affine_chunk(x, mean, scale, beta, y):
    for row in range(x.shape[0]):
        for c in range(x.shape[1]):
            y[row, c] = (x[row, c] - mean[c]) * scale[c] + beta[c]


@kernel(parallel=True)
def _affine(x, mean, scale, beta, rows, y):
    for k in prange((x.shape[0] + rows - 1) // rows):
        part = slice(k * rows, (k + 1) * rows)
        _affine_chunk(x[part], mean, scale, beta, y[part])


@kernel
def _chunk_gradient_sums(dy, x, mean, of_dy, of_product):
    """Write Σ dy and Σ dy (x − mean) of one chunk."""
    rows, channels = x.shape
    total, product = np.zeros_like(x[0]), np.zeros_like(x[0])
    for row in range(rows):
        for c in range(channels):
            total[c] += dy[row, c]
            product[c] += dy[row, c] * (x[row, c] - mean[c])
    for c in range(channels):
        of_dy[c] = total[c]
        of_product[c] = product[c]


@kernel
def _combine_gradient_sums(sums, total, inv_std, gamma, dgamma, dbeta, terms):
    """Write dgamma, dbeta, and the terms of dx = terms[0] (dy − terms[1] − (x − mean) terms[2])."""
    _, chunks, channels = sums.shape
    of_dy, of_product = np.zeros(channels), np.zeros(channels)
    for k in range(chunks):
        for c in range(channels):
            of_dy[c] += sums[0, k, c]
            of_product[c] += sums[1, k, c]
    for c in range(channels):
        dbeta[c] = of_dy[c]
        dgamma[c] = of_product[c] * inv_std[c]
        terms[0, c] = gamma[c] * inv_std[c]
        terms[1, c] = of_dy[c] / total
        terms[2, c] = np.float64(inv_std[c]) ** 2 * of_product[c] / total


@kernel
def _gradient_chunk(dy, x, mean, terms, dx):
    for row in range(x.shape[0]):
        for c in range(x.shape[1]):
            dx[row, c] = terms[0, c] * (dy[row, c] - terms[1, c] - (x[row, c] - mean[c]) * terms[2, c])


@kernel(parallel=True)
def _backward(dy, x, mean, inv_std, gamma, rows, sums, terms, dgamma, dbeta, dx):
    chunks = sums.shape[1]
    for k in prange(chunks):
        part = slice(k * rows, (k + 1) * rows)
        _chunk_gradient_sums(dy[part], x[part], mean, sums[0, k], sums[1, k])
    _combine_gradient_sums(sums, x.shape[0], inv_std, gamma, dgamma, dbeta, terms)
    for k in prange(chunks):
        part = slice(k * rows, (k + 1) * rows)
        _gradient_chunk(dy[part], x[part], mean, terms, dx[part])
