"""Initial weights: each initializer is called with a shape and a dtype and returns a new array.

Weights that are too large make the signal grow from layer to layer; weights that are too small let it die out. Glorot
and He choose the variance from the number of inputs (fan_in) and outputs (fan_out) of a unit, so that the
signal neither grows nor shrinks, forward or backward. Names, defaults and formulas are Keras's. Random initializers
take a `seed`: an integer gives the same values at every call; None (default) draws from the library's stream, which
`cnnlite.utils.set_random_seed` seeds.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cnnlite.random import RandomStream, new_seed
from cnnlite.support.arguments import integer, number, one_of
from cnnlite.support.floating import arithmetic
from cnnlite.support.identifiers import from_identifier, to_config
from cnnlite.types import Array, Config, DTypeLike, Shape


def compute_fans(shape: Shape) -> tuple[int, int]:
    """Return (fan_in, fan_out) for weights of `shape`: (inputs, outputs) or (KH, KW, inputs, outputs)."""
    if len(shape) < 2:
        size = shape[0] if shape else 1
        return size, size
    receptive_field = math.prod(shape[:-2])
    return shape[-2] * receptive_field, shape[-1] * receptive_field


class Initializer:
    """The base class of all initializers; subclasses define `__call__(shape, dtype)`."""

    def __call__(self, shape: Shape, dtype: Any = "float32") -> Array:
        """Return a new array."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__(shape, dtype).")

    def get_config(self) -> Config:
        """Return the arguments that recreate this initializer."""
        return {}


class Constant(Initializer):
    """All weights equal to `value` (default 0)."""

    def __init__(self, value: float = 0.0) -> None:
        self.value = number(value, "value", type(self).__name__)

    def __call__(self, shape: Shape, dtype: DTypeLike = "float32") -> Array:
        with arithmetic():
            return np.full(shape, self.value, dtype)

    def get_config(self) -> Config:
        return {"value": self.value}


class Zeros(Initializer):
    """All weights 0."""

    def __call__(self, shape: Shape, dtype: DTypeLike = "float32") -> Array:
        return np.zeros(shape, dtype)


class Ones(Initializer):
    """All weights 1."""

    def __call__(self, shape: Shape, dtype: DTypeLike = "float32") -> Array:
        return np.ones(shape, dtype)


class _Random(Initializer):
    """A random initializer; with a `seed`, every call returns the same numbers, as in Keras."""

    def __init__(self, seed: int | None = None) -> None:
        self.seed = None if seed is None else integer(seed, "seed", type(self).__name__, minimum=0)

    def __call__(self, shape: Shape, dtype: DTypeLike = "float32") -> Array:
        generator = RandomStream(new_seed() if self.seed is None else self.seed).generator()
        # Drawn in float64 and rounded, so that a seed gives the same weights in either precision.
        with arithmetic():
            return self.draw(generator, tuple(shape)).astype(dtype, order="C")

    def draw(self, generator: np.random.Generator, shape: Shape) -> Array:
        """Return float64 numbers of the given shape."""
        raise NotImplementedError(f"{type(self).__name__} must define draw(generator, shape).")

    def get_config(self) -> Config:
        return {"seed": self.seed}


class RandomNormal(_Random):
    """Normal with `mean` (default 0) and `stddev` (default 0.05)."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        super().__init__(seed)
        self.mean = number(mean, "mean", type(self).__name__)
        self.stddev = number(stddev, "stddev", type(self).__name__, minimum=0)

    def draw(self, generator: np.random.Generator, shape: Shape) -> Array:
        return generator.normal(self.mean, self.stddev, shape)

    def get_config(self) -> Config:
        return {"mean": self.mean, "stddev": self.stddev, "seed": self.seed}


class TruncatedNormal(RandomNormal):
    """Like `RandomNormal`, but values more than two standard deviations from the mean are redrawn."""

    def draw(self, generator: np.random.Generator, shape: Shape) -> Array:
        return self.mean + self.stddev * draw_truncated_normal(generator, shape)


class RandomUniform(_Random):
    """Uniform between `minval` (default -0.05) and `maxval` (default 0.05)."""

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None) -> None:
        super().__init__(seed)
        self.minval = number(minval, "minval", type(self).__name__)
        self.maxval = number(maxval, "maxval", type(self).__name__, minimum=self.minval)

    def draw(self, generator: np.random.Generator, shape: Shape) -> Array:
        return generator.uniform(self.minval, self.maxval, shape)

    def get_config(self) -> Config:
        return {"minval": self.minval, "maxval": self.maxval, "seed": self.seed}


class VarianceScaling(_Random):
    """Draw with variance scale / n, where n is fan_in, fan_out or their mean.

    Args:
        scale: a factor above 0 (default 1).
        mode: "fan_in" (default), "fan_out" or "fan_avg".
        distribution: "truncated_normal" (default), "untruncated_normal" or "uniform".
        seed: an integer for the same values at every call.
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        owner = type(self).__name__
        self.scale = number(scale, "scale", owner, above=0)
        self.mode = one_of(mode, ("fan_in", "fan_out", "fan_avg"), "mode", owner)
        if distribution == "normal":
            distribution = "truncated_normal"
        self.distribution = one_of(
            distribution, ("truncated_normal", "untruncated_normal", "uniform"), "distribution", owner
        )

    def draw(self, generator: np.random.Generator, shape: Shape) -> Array:
        fan_in, fan_out = compute_fans(shape)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        stddev = math.sqrt(self.scale / max(1.0, fan))
        if self.distribution == "uniform":
            limit = math.sqrt(3.0) * stddev
            return generator.uniform(-limit, limit, shape)
        if self.distribution == "untruncated_normal":
            return generator.normal(0.0, stddev, shape)
        # Cutting the tails off at two standard deviations leaves 0.8796 of the standard deviation.
        return stddev / 0.87962566103423978 * draw_truncated_normal(generator, shape)

    def get_config(self) -> Config:
        return {"scale": self.scale, "mode": self.mode, "distribution": self.distribution, "seed": self.seed}


class _NamedScaling(VarianceScaling):
    """A `VarianceScaling` with fixed arguments; only the seed is left to choose."""

    arguments = (1.0, "fan_in", "truncated_normal")

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(*self.arguments, seed=seed)

    def get_config(self) -> Config:
        return {"seed": self.seed}


class GlorotUniform(_NamedScaling):
    """Uniform with variance 2 / (fan_in + fan_out): Keras's default (Glorot and Bengio, 2010)."""

    arguments = (1.0, "fan_avg", "uniform")


class GlorotNormal(_NamedScaling):
    """Truncated normal with variance 2 / (fan_in + fan_out) (Glorot and Bengio, 2010)."""

    arguments = (1.0, "fan_avg", "truncated_normal")


class HeUniform(_NamedScaling):
    """Uniform with variance 2 / fan_in, for ReLU (He et al., 2015)."""

    arguments = (2.0, "fan_in", "uniform")


class HeNormal(_NamedScaling):
    """Truncated normal with variance 2 / fan_in, for ReLU (He et al., 2015)."""

    arguments = (2.0, "fan_in", "truncated_normal")


class LecunUniform(_NamedScaling):
    """Uniform with variance 1 / fan_in (LeCun et al., 1998)."""

    arguments = (1.0, "fan_in", "uniform")


class LecunNormal(_NamedScaling):
    """Truncated normal with variance 1 / fan_in (LeCun et al., 1998)."""

    arguments = (1.0, "fan_in", "truncated_normal")


class Orthogonal(_Random):
    """A matrix with orthonormal rows or columns, whichever are fewer, times `gain`, 1 by default (Saxe et al., 2014).

    All axes but the last are taken as the rows of the matrix; a shape with fewer than two axes is a ValueError.
    """

    def __init__(self, gain: float = 1.0, seed: int | None = None) -> None:
        super().__init__(seed)
        self.gain = number(gain, "gain", type(self).__name__)

    def draw(self, generator: np.random.Generator, shape: Shape) -> Array:
        if len(shape) < 2:
            raise ValueError(f"Orthogonal: the shape must have at least 2 axes. Received: shape={shape}.")
        rows, columns = math.prod(shape[:-1]), shape[-1]
        q, r = np.linalg.qr(generator.normal(size=(max(rows, columns), min(rows, columns))))
        # QR is unique only up to the signs of R's diagonal; fixing them makes Q uniformly distributed.
        q *= np.where(np.diag(r) < 0, -1.0, 1.0)
        return self.gain * (q if rows >= columns else q.T).reshape(shape)

    def get_config(self) -> Config:
        return {"gain": self.gain, "seed": self.seed}


def draw_truncated_normal(generator: np.random.Generator, shape: Shape) -> Array:
    """Draw standard normal values, none of magnitude above 2."""
    values = generator.normal(size=shape)
    outside = np.abs(values) > 2
    while outside.any():
        values[outside] = generator.normal(size=int(outside.sum()))
        outside = np.abs(values) > 2
    return values


# Keras's lower-case names for the same classes.
zeros, ones, constant, orthogonal, variance_scaling = Zeros, Ones, Constant, Orthogonal, VarianceScaling
random_normal, random_uniform, truncated_normal = RandomNormal, RandomUniform, TruncatedNormal
glorot_normal, glorot_uniform = GlorotNormal, GlorotUniform
he_normal, he_uniform = HeNormal, HeUniform
lecun_normal, lecun_uniform = LecunNormal, LecunUniform

INITIALIZERS = {
    "zeros": Zeros,
    "ones": Ones,
    "constant": Constant,
    "random_normal": RandomNormal,
    "random_uniform": RandomUniform,
    "truncated_normal": TruncatedNormal,
    "variance_scaling": VarianceScaling,
    "glorot_uniform": GlorotUniform,
    "glorot_normal": GlorotNormal,
    "he_uniform": HeUniform,
    "he_normal": HeNormal,
    "lecun_uniform": LecunUniform,
    "lecun_normal": LecunNormal,
    "orthogonal": Orthogonal,
}


def get(identifier: Any) -> Initializer:
    """Return the initializer for a name ("he_normal", "HeNormal"), a config or an initializer.

    Raises:
        ValueError: the name is unknown; the message lists the known ones.
    """
    return from_identifier(identifier, INITIALIZERS, Initializer, "initializer")


def serialize(initializer: Any) -> Config | None:
    """Return {"class_name", "config"} for an initializer, or None for None."""
    return to_config(initializer)
