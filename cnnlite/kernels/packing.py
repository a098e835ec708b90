"""Weights in the form in which a kernel reads them, kept from call to call and made anew when they have changed.

Packing weights costs more than a single image does (W1: 80 us beside 50), and in training it would allocate anew
in each step. So the packed forms are kept for each array of weights, beside a copy of the array by which a change is
found. That is exact, whoever changed the weights and however, and costs one pass over them.
"""

import functools
import weakref

from cnnlite.engine.jit import kernel as compiled
from cnnlite.locks import in_forked_children, new_lock

FORMS = 8  # of an array, of which the oldest goes: what depends on the size of an image has no end

_kept: dict = {}
_lock = new_lock()
in_forked_children(_kept.clear)  # another thread may have been at work on it


def packed(weights, forms, anew=False):
    """Return [pack(weights, out) for each of the forms], or what they were before if the weights have not changed.

    Args:
        weights: a C-contiguous array of which packed forms are asked for again and again.
        forms: pairs (form, pack): a name that tells the form, and whatever else but the array it depends on; and a
            function, called with the weights and the array that it returned before, to be written to, or None.
        anew: pack without asking whether anything changed, into the same memory: beside much work that is cheaper.
    """
    # One thread at a time: another one must not take what this one is just writing.
    with _lock:
        entry = _kept.get(id(weights))
        try:
            if entry is None or entry.weights() is not weights:
                entry = _kept[id(weights)] = _Entry(weights)
            entry.look(weights, anew)
            return [entry.form(weights, *form) for form in forms]
        except BaseException:  # a KeyboardInterrupt as well: what is half done must not be taken for done
            _kept.pop(id(weights), None)
            raise


class _Entry:
    """The packed forms of an array, and a copy of the array if it is known to be that which they were made of."""

    def __init__(self, weights):
        # Not a function in Python, within which a signal's handler may be called: what that raises would be lost.
        self.weights = weakref.ref(weights, functools.partial(_kept.pop, id(weights)))
        self.copy, self.results, self.fresh = None, {}, set()

    def look(self, weights, anew):
        """Note whether the weights are what they were."""
        if not anew and self.copy is not None:
            if not _renew(weights.reshape(-1), self.copy):
                return
        else:
            self.copy = None if anew else weights.flatten()
        self.fresh.clear()

    def form(self, weights, name, pack):
        if name not in self.fresh:
            if name not in self.results and len(self.results) == FORMS:
                oldest = next(iter(self.results))
                del self.results[oldest]
                self.fresh.discard(oldest)
            self.results[name] = pack(weights, self.results.get(name))
            self.fresh.add(name)
        return self.results[name]


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
