"""Every kernel again in a few lines of plain NumPy, under the same name and with the same arguments.

This is what the kernels in `cnnlite/kernels/` are held to by the tests, and what a debugger can step
through in their place: with the environment variable `CNNLITE_KERNELS=reference` the whole library runs
on this file.

Shapes: N images, H rows, W columns, C channels; OH and OW are the size of the output; F filters; a
kernel is (KH, KW, C, F). `pads` is ((top, bottom), (left, right)).
"""

import numpy as np

# ---------------------------------------------------------------- matrix products and convolution


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
