"""One step of each optimizer over a part of the flat parameter vector, in one pass over memory.

p are the parameters and g their gradient. p and the slots (the vectors that an optimizer keeps from step to step) are
changed in place. `decay` is the learning rate times the weight decay: that fraction of p is subtracted before the step.

Each step comes in two forms. `adam_step(p, g, ..., alpha, beta_1, ...)` takes numbers, and an array of length 0 for an
unused slot. `adam(p, g, ..., values)` takes the same numbers as a float64 array, in the same order, which a plan reads
anew in each run. It also takes None for an unused slot, and

    start, stop     which part of the vectors to change; by default all
    refused         int64 (1,), or None: if it is not 0, nothing changes

Division is written `np.divide`, which follows NumPy under either of numba's error models. Under Python's, `/` would
check for a zero divisor: infinities would not propagate, and the loop would not be vectorised (see `engine/jit.py`).
"""

import numpy as np

from cnnlite.engine.jit import jit
from cnnlite.engine.stages import BATCH, NONE, array, array_as, stage
from cnnlite.kernels.checks import require
from cnnlite.kernels.operation import graph_of, operation

CHUNK = 1 << 15  # numbers that a thread takes at a time


def _add_step(added, owner, p, g, slots, values, start, stop, refused):
    """Check the arrays and add a stage.

    Args:
        slots: by name, (the vector, whether it may be left out).
    """
    require(p, "p", 1, None, owner)
    require(g, "g", p.shape, p.dtype, owner)
    used = {}
    for name, (slot, is_optional) in slots.items():
        if is_optional and (slot is None or slot.shape == (0,)):
            slot = None
        else:
            require(slot, name, p.shape, p.dtype, owner)
        used[name] = slot
    require(values, "values", (VALUES[owner],), np.dtype(np.float64), owner)
    if refused is not None:
        require(refused, "refused", (1,), np.dtype(np.int64), owner)
    stop = p.shape[0] if stop is None else stop
    if not 0 <= start <= stop <= p.shape[0]:
        raise ValueError(
            f"{owner}: start and stop must lie within the {p.shape[0]} numbers of p. "
            f"Received: start={start}, stop={stop}."
        )
    graph_of(p, g, values).add(added, units=-(-(stop - start) // CHUNK), p=p, g=g, values=values, refused=refused,
                               start=start, stop=stop, work=16 * (stop - start), **used)


# How many numbers each step takes.
VALUES = {"sgd_step": 4, "rmsprop_step": 5, "adam_step": 5, "adagrad_step": 3}


@jit
def _is_refused(r, run):
    return r.refused != NONE and array_as(run, r.refused, (1,), np.int64)[0] != 0


@jit
def _part(r, run, place, first, last):
    """Return the part of a vector that some units cover, or an empty array if the vector is absent."""
    start = r.start + first * CHUNK
    stop = min(r.stop, r.start + last * CHUNK) if place != NONE else start
    return array(run, place, (stop,))[start:stop]


def sgd_step(p, g, momentum, learning_rate, beta, nesterov, decay):
    """Step of SGD with the factor `beta` and the slot `momentum`, of length 0 for plain SGD.

        plain       p -= learning_rate * g
        momentum    m = beta * m - learning_rate * g;  p += m
        Nesterov    m as above;                        p += beta * m - learning_rate * g
    """
    sgd(p, g, momentum, np.array([learning_rate, beta, nesterov, decay], np.float64))


@operation(samples="")
def sgd(p, g, momentum, values, start=0, stop=None, refused=None):
    """Step of SGD with values = [learning_rate, beta, nesterov, decay]; see `sgd_step`."""
    _add_step(_sgd, "sgd_step", p, g, {"momentum": (momentum, True)}, values, start, stop, refused)


@stage(reads="p g momentum values refused", writes="p momentum", sizes="start stop", footprint=BATCH)
def _sgd(r, run, first, last):
    if _is_refused(r, run):
        return
    p, g = _part(r, run, r.p, first, last), _part(r, run, r.g, first, last)
    momentum = _part(r, run, r.momentum, first, last)
    values, number = array_as(run, r.values, (4,), np.float64), p.dtype.type
    learning_rate, beta, nesterov, decay = number(values[0]), number(values[1]), values[2] != 0, number(values[3])
    has_momentum = r.momentum != NONE
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
    rmsprop(p, g, velocity, average_gradient, momentum,
            np.array([learning_rate, rho, beta, epsilon, decay], np.float64))


@operation(samples="")
def rmsprop(p, g, velocity, average_gradient, momentum, values, start=0, stop=None, refused=None):
    """Step of RMSprop with values = [learning_rate, rho, beta, epsilon, decay]; see `rmsprop_step`."""
    slots = {"velocity": (velocity, False), "average_gradient": (average_gradient, True),
             "momentum": (momentum, True)}
    _add_step(_rmsprop, "rmsprop_step", p, g, slots, values, start, stop, refused)


@stage(reads="p g velocity average_gradient momentum values refused", writes="p velocity average_gradient momentum",
       sizes="start stop", footprint=BATCH)
def _rmsprop(r, run, first, last):
    if _is_refused(r, run):
        return
    p, g = _part(r, run, r.p, first, last), _part(r, run, r.g, first, last)
    velocity, momentum = _part(r, run, r.velocity, first, last), _part(r, run, r.momentum, first, last)
    average_gradient = _part(r, run, r.average_gradient, first, last)
    values, number = array_as(run, r.values, (5,), np.float64), p.dtype.type
    learning_rate, rho, one_minus_rho = number(values[0]), number(values[1]), number(1 - values[1])
    beta, epsilon, decay = number(values[2]), number(values[3]), number(values[4])
    centered, has_momentum = r.average_gradient != NONE, r.momentum != NONE
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

    `alpha` is the learning rate, corrected for the bias that m and v have because they start at 0:
    learning_rate * sqrt(1 - beta_2**t) / (1 - beta_1**t) at step t = 1, 2, ...
    """
    adam(p, g, momentum, velocity, velocity_hat, np.array([alpha, beta_1, beta_2, epsilon, decay], np.float64))


@operation(samples="")
def adam(p, g, momentum, velocity, velocity_hat, values, start=0, stop=None, refused=None):
    """Step of Adam with values = [alpha, beta_1, beta_2, epsilon, decay]; see `adam_step`."""
    slots = {"momentum": (momentum, False), "velocity": (velocity, False), "velocity_hat": (velocity_hat, True)}
    _add_step(_adam, "adam_step", p, g, slots, values, start, stop, refused)


@stage(reads="p g momentum velocity velocity_hat values refused", writes="p momentum velocity velocity_hat",
       sizes="start stop", footprint=BATCH)
def _adam(r, run, first, last):
    if _is_refused(r, run):
        return
    p, g = _part(r, run, r.p, first, last), _part(r, run, r.g, first, last)
    momentum, velocity = _part(r, run, r.momentum, first, last), _part(r, run, r.velocity, first, last)
    velocity_hat, amsgrad = _part(r, run, r.velocity_hat, first, last), r.velocity_hat != NONE
    values, number = array_as(run, r.values, (5,), np.float64), p.dtype.type
    alpha, one_minus_beta_1, one_minus_beta_2 = number(values[0]), number(1 - values[1]), number(1 - values[2])
    epsilon, decay = number(values[3]), number(values[4])
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
    adagrad(p, g, accumulator, np.array([learning_rate, epsilon, decay], np.float64))


@operation(samples="")
def adagrad(p, g, accumulator, values, start=0, stop=None, refused=None):
    """Step of Adagrad with values = [learning_rate, epsilon, decay]; see `adagrad_step`."""
    _add_step(_adagrad, "adagrad_step", p, g, {"accumulator": (accumulator, False)}, values, start, stop, refused)


@stage(reads="p g accumulator values refused", writes="p accumulator", sizes="start stop", footprint=BATCH)
def _adagrad(r, run, first, last):
    if _is_refused(r, run):
        return
    p, g = _part(r, run, r.p, first, last), _part(r, run, r.g, first, last)
    accumulator = _part(r, run, r.accumulator, first, last)
    values, number = array_as(run, r.values, (3,), np.float64), p.dtype.type
    learning_rate, epsilon, decay = number(values[0]), number(values[1]), number(values[2])
    for i in range(p.size):
        s = accumulator[i] + g[i] * g[i]
        accumulator[i] = s
        p[i] = p[i] - decay * p[i] - np.divide(learning_rate * g[i], np.sqrt(s + epsilon))
