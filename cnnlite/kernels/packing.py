"""Weights in the form in which a kernel reads them, kept from call to call and made anew when they have changed.

Packing weights costs more than a single image does (W1: 80 us beside 50), and in training it would allocate anew
in each step. So the packed form is kept for each array of weights, beside a copy of the array by which a change is
found. That is exact, whoever changed the weights and however, and costs one pass over them.
"""

import threading
import weakref

from cnnlite.kernels._jit import kernel as compiled

_kept: dict = {}
_lock = threading.Lock()


def packed(weights, form, pack, anew=False):
    """Return `pack(weights, out)`, or what it returned before if the weights are what they were.

    Args:
        weights: a C-contiguous array of which the packed form is asked for again and again.
        form: a name for the form, and whatever else but the array it depends on.
        pack: called with the weights and the array that it returned before, to be written to, or None.
        anew: pack without asking whether anything changed, into the same memory: beside much work that is cheaper.
    """
    key = id(weights), form
    # One thread at a time: another one must not take what this one is just writing.
    with _lock:
        entry = _kept.get(key)
        try:
            if entry is None or entry.weights() is not weights:
                entry = _kept[key] = _Entry(weights, key)
            if anew:
                entry.copy = None
            elif entry.copy is None:
                entry.copy = weights.copy()
            elif not _renew(weights.reshape(-1), entry.copy.reshape(-1)):
                return entry.result
            entry.result = pack(weights, entry.result)
        except BaseException:  # a KeyboardInterrupt as well: what is half done must not be taken for done
            _kept.pop(key, None)
            raise
        return entry.result


class _Entry:
    """The packed form of an array, and a copy of the array if it is known to be that of this very copy."""

    def __init__(self, weights, key):
        self.weights = weakref.ref(weights, lambda _: _kept.pop(key, None))
        self.copy = self.result = None


@compiled
def _renew(new, old):
    """Copy, and return whether anything was different; a NaN always is."""
    different = 0
    for i in range(new.size):
        different |= new[i] != old[i]
    if different:
        for i in range(new.size):
            old[i] = new[i]
    return different != 0
