"""JAX: the network, its loss and Adam in plain functions, compiled as one step."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
if hasattr(os, "sched_setaffinity"):
    # XLA starts one thread per core it may use, and has no switch for it.
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[: int(os.environ["OMP_NUM_THREADS"])])

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from benchmarks.nets import DROPOUT, net_of, shapes
from benchmarks.sides.data import batch

MOMENTUM, EPSILON = 0.99, 1e-3  # of BatchNorm
RATE, BETA_1, BETA_2, ADAM_EPSILON = 1e-3, 0.9, 0.999, 1e-7


def prepare(job, layout, threads):
    net = net_of(job)
    weights, statistics = build(net)
    x, y = batch(net.input_shape, job["batch"])
    x, y = jnp.asarray(x), jnp.asarray(y)
    count = sum(array.size for array in jax.tree.leaves(weights))
    if job["kind"] == "infer":
        answer = jax.jit(lambda x: apply(net, weights, statistics, x, None)[0])
        return lambda: answer(x).block_until_ready(), count
    state = {"weights": weights, "statistics": statistics, "m": zeros_like(weights), "v": zeros_like(weights),
             "steps": jnp.zeros(()), "key": jax.random.key(0)}
    # Donate the old state, so that the new one can reuse its memory.
    step = jax.jit(lambda state, x, y: training_step(net, state, x, y), donate_argnums=0)

    def run():
        nonlocal state
        state, loss = step(state, x, y)
        jax.block_until_ready(state)
        return float(loss)

    return run, count


def training_step(net, state, x, y):
    key, new_key = jax.random.split(state["key"])

    def loss_of(weights):
        logits, statistics = apply(net, weights, state["statistics"], x, key)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1).mean(), statistics

    (loss, statistics), gradients = jax.value_and_grad(loss_of, has_aux=True)(state["weights"])
    steps = state["steps"] + 1
    m = jax.tree.map(lambda m, g: BETA_1 * m + (1 - BETA_1) * g, state["m"], gradients)
    v = jax.tree.map(lambda v, g: BETA_2 * v + (1 - BETA_2) * g * g, state["v"], gradients)
    rate = RATE * jnp.sqrt(1 - BETA_2**steps) / (1 - BETA_1**steps)
    weights = jax.tree.map(lambda w, m, v: w - rate * m / (jnp.sqrt(v) + ADAM_EPSILON), state["weights"], m, v)
    return {"weights": weights, "statistics": statistics, "m": m, "v": v, "steps": steps, "key": new_key}, loss


def apply(net, weights, statistics, x, key):
    """Return the logits and BatchNorm's new running statistics; inference if `key` is None."""
    new = []
    for i, (kind, *numbers) in enumerate(net.layers):
        if kind == "conv":
            dimensions = ("NHWC", "HWIO", "NHWC")
            strides = numbers[4], numbers[4]
            x = lax.conv_general_dilated(x, weights[i][0], strides, numbers[2].upper(), dimension_numbers=dimensions)
        elif kind == "depthwise":
            dimensions = ("NHWC", "HWIO", "NHWC")
            x = lax.conv_general_dilated(x, weights[i][0], (1, 1), numbers[1].upper(), dimension_numbers=dimensions,
                                         feature_group_count=x.shape[-1])
        elif kind == "dense":
            x = x @ weights[i][0]
        elif kind == "leaky relu":
            x = jax.nn.leaky_relu(x, numbers[0])
        elif kind == "average":
            x = x.mean((1, 2))
        elif kind == "relu":
            x = jax.nn.relu(x)
        elif kind == "pool":
            size, strides, padding = numbers
            window, strides = (1, size, size, 1), (1, strides, strides, 1)
            x = lax.reduce_window(x, -jnp.inf, lax.max, window, strides, padding.upper())
        elif kind == "flatten":
            x = x.reshape(len(x), -1)
        elif kind == "dropout" and key is not None:
            kept = jax.random.bernoulli(jax.random.fold_in(key, i), 1 - DROPOUT, x.shape)
            x = jnp.where(kept, x / (1 - DROPOUT), 0)
        elif kind == "batchnorm":
            mean, variance = statistics[len(new)]
            if key is not None:
                old = mean, variance
                axes = tuple(range(x.ndim - 1))
                mean, variance = x.mean(axes), x.var(axes)
                new.append([MOMENTUM * was + (1 - MOMENTUM) * now for was, now in zip(old, (mean, variance))])
            else:
                new.append([mean, variance])
            gamma, beta = weights[i]
            x = (x - mean) * (gamma * lax.rsqrt(variance + EPSILON)) + beta
        if kind in ("conv", "depthwise", "dense") and len(weights[i]) > 1:
            x = x + weights[i][1]
    return x, new


def build(net):
    """Return the weights of each layer, as a list of lists, and the running mean and variance of each BatchNorm."""
    generator = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(generator.normal(size=shape) / np.sqrt(np.prod(shape[:-1])), dtype=jnp.float32)

    weights, statistics = [], []
    for (kind, *numbers), before, _ in shapes(net):
        arrays = []
        if kind == "conv":
            filters, size, _, bias, _ = numbers
            arrays = [normal(size, size, before[-1], filters), *[jnp.zeros(filters)] * bias]
        elif kind == "depthwise":
            size, _, bias = numbers
            arrays = [normal(size, size, 1, before[-1]), *[jnp.zeros(before[-1])] * bias]
        elif kind == "dense":
            units, bias = numbers
            arrays = [normal(before[0], units), *[jnp.zeros(units)] * bias]
        elif kind == "batchnorm":
            arrays = [jnp.ones(before[-1]), jnp.zeros(before[-1])]
            statistics.append([jnp.zeros(before[-1]), jnp.ones(before[-1])])
        elif kind == "residual":
            raise ValueError("build: residual is not implemented for JAX yet.")
        weights.append(arrays)
    return weights, statistics


def zeros_like(weights):
    return jax.tree.map(jnp.zeros_like, weights)
