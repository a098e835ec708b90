"""Random numbers that depend on a seed and nothing else.

Everything random in cnnlite (initial weights, dropout masks, the order of the samples) draws from a
`RandomStream`, which is two integers: a seed and a count of how often it was used. Two integers are easy to save, so a
resumed training run draws exactly the numbers that it would have drawn. NumPy's global state is
never touched.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cnnlite.support.arguments import integer
from cnnlite.support.locks import new_lock

_lock = new_lock()  # two threads must not get the same key


class RandomStream:
    """A seed, and a count of the generators or keys handed out so far.

    Args:
        seed: an integer from 0 to 2**64 - 1, or None to draw one from the library's own stream, which
            `cnnlite.utils.set_random_seed` sets.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = new_seed() if seed is None else checked_seed(seed, "RandomStream")
        self.count = 0

    def key(self) -> tuple[int, int]:
        """Return (seed, count), a Philox key that no earlier call returned, and advance the count."""
        # A Philox key has 128 bits; with (seed, count) as the key, streams never overlap.
        with _lock:
            self.count += 1
            return (self.seed, self.count - 1)

    def generator(self) -> np.random.Generator:
        """Return a NumPy Generator that no earlier call returned, and advance the count."""
        return np.random.Generator(np.random.Philox(key=np.array(self.key(), dtype=np.uint64)))

    @property
    def state(self) -> tuple[int, int]:
        """The position of the stream, as two integers; assign them back to return to it."""
        return (self.seed, self.count)

    @state.setter
    def state(self, state: Sequence[int]) -> None:
        seed, count = state
        seed = checked_seed(seed, "RandomStream")
        count = integer(count, "count", "RandomStream", minimum=0)
        if count >= 2**64:
            raise ValueError(f"RandomStream: count must be less than 2**64. Received: count={count}.")
        self.seed, self.count = seed, count


def set_random_seed(seed: int) -> None:
    """Make everything random from here on depend on `seed` alone.

    The same seed gives the same weights, masks and order of samples, bit for bit, in every run and for
    every number of threads. Call it before the layers are made.

    Example:

    >>> import cnnlite
    >>> cnnlite.utils.set_random_seed(7)
    >>> a = cnnlite.initializers.GlorotUniform()((2, 2))
    >>> cnnlite.utils.set_random_seed(7)
    >>> b = cnnlite.initializers.GlorotUniform()((2, 2))
    >>> bool((a == b).all())
    True
    """
    _library.state = (checked_seed(seed, "set_random_seed"), 0)


def checked_seed(seed: int, owner: str) -> int:
    """Return `seed` as an int from 0 to 2**64 - 1; TypeError or ValueError otherwise."""
    seed = integer(seed, "seed", owner, minimum=0)
    if seed >= 2**64:
        raise ValueError(f"{owner}: seed must be less than 2**64. Received: seed={seed}.")
    return seed


def new_seed() -> int:
    """Draw a seed from the library's own stream."""
    return int(_library.generator().integers(2**63))


_library = RandomStream(seed=int(np.random.SeedSequence().generate_state(1, np.uint64)[0]) >> 1)
