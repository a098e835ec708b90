"""One step of each optimizer over a stretch of the flat parameter vector, in one pass over memory.

p are the parameters and g their gradient. p and the slots (the vectors that an optimizer keeps from step to
step) are changed in place. An optional slot that is not in use is an array of length 0. `decay` is the
learning rate times the weight decay: that share of p is taken off before the step.

Division is written `np.divide` because numba's `/` stops to look for a zero, which is against the rule that
infinities pass, and keeps the loop from being vectorised (Adam on 200,000 parameters: 0.06 ms, with `/` 0.46 ms).
"""

import numpy as np

from cnnlite.engine.jit import kernel
from cnnlite.kernels.checks import require
from cnnlite.kernels.threads import CHUNK, chunk, chunks_of, run


def _require(owner, p, g, optional=(), **slots):
    """Check that the gradient and each slot are as long as p; a slot that is `optional` may have length 0."""
    require(p, "p", 1, None, owner)
    require(g, "g", p.shape, p.dtype, owner)
    for name, slot in slots.items():
        if name not in optional or slot.size:
            require(slot, name, p.shape, p.dtype, owner)


def _run(task, arguments):
    p = arguments[0]
    run(task, chunks_of(p.size), arguments, alone=p.size <= 2 * CHUNK)


def sgd_step(p, g, momentum, learning_rate, beta, nesterov, decay):
    """Step of SGD with the factor `beta` and the slot `momentum`, of length 0 for plain SGD.

        plain       p -= learning_rate * g
        momentum    m = beta * m - learning_rate * g;  p += m
        Nesterov    m as above;                        p += beta * m - learning_rate * g
    """
    _require("sgd_step", p, g, ("momentum",), momentum=momentum)
    number = p.dtype.type
    _run(_sgd_task, (p, g, momentum, number(learning_rate), number(beta), nesterov, number(decay)))


@kernel
def _sgd_task(p, g, momentum, learning_rate, beta, nesterov, decay, unit):
    p, g, momentum = chunk(p, unit), chunk(g, unit), chunk(momentum, unit)
    has_momentum = momentum.size > 0
    for i in range(p.size):
        change = -learning_rate * g[i]
        if has_momentum:
            m = beta * momentum[i] + change
            momentum[i] = m
            change = beta * m + change if nesterov else m
        p[i] = p[i] - decay * p[i] + change


def rmsprop_step(p, g, velocity, average_gradient, momentum, learning_rate, rho, beta, epsilon, decay):
    """Step of RMSprop; `average_gradient` has length 0 if not centred, `momentum` if `beta` is 0.

        v = rho * v + (1 - rho) * g²
        a = rho * a + (1 - rho) * g                        (0 if not centred)
        d = learning_rate * g / sqrt(v - a² + epsilon)
        m = beta * m + d                                   (d without momentum)
        p -= m
    """
    _require("rmsprop_step", p, g, ("average_gradient", "momentum"), velocity=velocity,
             average_gradient=average_gradient, momentum=momentum)
    number = p.dtype.type
    _run(_rmsprop_task, (p, g, velocity, average_gradient, momentum, number(learning_rate), number(rho),
                         number(1 - rho), number(beta), number(epsilon), number(decay)))


@kernel
def _rmsprop_task(p, g, velocity, average_gradient, momentum, learning_rate, rho, one_minus_rho, beta, epsilon, decay,
                  unit):
    p, g = chunk(p, unit), chunk(g, unit)
    velocity, momentum = chunk(velocity, unit), chunk(momentum, unit)
    average_gradient = chunk(average_gradient, unit)
    centered = average_gradient.size > 0
    has_momentum = momentum.size > 0
    for i in range(p.size):
        v = rho * velocity[i] + one_minus_rho * g[i] * g[i]
        velocity[i] = v
        if centered:
            a = rho * average_gradient[i] + one_minus_rho * g[i]
            average_gradient[i] = a
            v -= a * a
        change = np.divide(learning_rate * g[i], np.sqrt(v + epsilon))
        if has_momentum:
            change += beta * momentum[i]
            momentum[i] = change
        p[i] = p[i] - decay * p[i] - change


def adam_step(p, g, momentum, velocity, velocity_hat, alpha, beta_1, beta_2, epsilon, decay):
    """Step of Adam; `velocity_hat` has length 0 without AMSGrad.

        m += (1 - beta_1) * (g - m)
        v += (1 - beta_2) * (g² - v)
        v_hat = max(v_hat, v)                              (v without AMSGrad)
        p -= alpha * m / (sqrt(v_hat) + epsilon)

    `alpha` is the learning rate with the correction of the bias that m and v have from starting at 0:
    learning_rate * sqrt(1 - beta_2**t) / (1 - beta_1**t) at step t = 1, 2, ...
    """
    _require("adam_step", p, g, ("velocity_hat",), momentum=momentum, velocity=velocity, velocity_hat=velocity_hat)
    number = p.dtype.type
    _run(_adam_task, (p, g, momentum, velocity, velocity_hat, number(alpha), number(1 - beta_1), number(1 - beta_2),
                      number(epsilon), number(decay)))


@kernel
def _adam_task(p, g, momentum, velocity, velocity_hat, alpha, one_minus_beta_1, one_minus_beta_2, epsilon, decay,
               unit):
    p, g = chunk(p, unit), chunk(g, unit)
    momentum, velocity, velocity_hat = chunk(momentum, unit), chunk(velocity, unit), chunk(velocity_hat, unit)
    amsgrad = velocity_hat.size > 0
    for i in range(p.size):
        m = momentum[i] + one_minus_beta_1 * (g[i] - momentum[i])
        v = velocity[i] + one_minus_beta_2 * (g[i] * g[i] - velocity[i])
        momentum[i] = m
        velocity[i] = v
        if amsgrad:
            v = np.maximum(velocity_hat[i], v)
            velocity_hat[i] = v
        p[i] = p[i] - decay * p[i] - np.divide(alpha * m, np.sqrt(v) + epsilon)


def adagrad_step(p, g, accumulator, learning_rate, epsilon, decay):
    """Step of Adagrad.

        s += g²
        p -= learning_rate * g / sqrt(s + epsilon)
    """
    _require("adagrad_step", p, g, accumulator=accumulator)
    number = p.dtype.type
    _run(_adagrad_task, (p, g, accumulator, number(learning_rate), number(epsilon), number(decay)))


@kernel
def _adagrad_task(p, g, accumulator, learning_rate, epsilon, decay, unit):
    p, g, accumulator = chunk(p, unit), chunk(g, unit), chunk(accumulator, unit)
    for i in range(p.size):
        s = accumulator[i] + g[i] * g[i]
        accumulator[i] = s
        p[i] = p[i] - decay * p[i] - np.divide(learning_rate * g[i], np.sqrt(s + epsilon))
