"""all_or_nothing: what a block that raises has changed is put back."""

from collections import defaultdict, deque

import numpy as np
import pytest

from cnnlite.callbacks import Callback
from cnnlite.files.rollback import all_or_nothing
from cnnlite.metrics import BinaryAccuracy
from cnnlite.random import RandomStream


class Thing:
    def __init__(self):
        self.number, self.items, self.table = 1, [1, [2]], {"a": {3}, "b": (np.zeros(2), deque([4], 5))}
        self.counts, self.metric, self.random = defaultdict(int, a=1), BinaryAccuracy(), RandomStream(7)
        self.other = Callback()
        self.other.number = 1


def spoil(thing, error=None):
    thing.number, thing.new = 2, 3
    thing.items[1].append(9)
    thing.items.pop(0)
    thing.table["a"].add(9)
    array, queue = thing.table.pop("b")
    array += 1
    queue.appendleft(9)
    thing.counts["b"] += 1
    thing.metric.update_state(np.ones(2), np.ones(2))
    thing.random.key()
    del thing.random
    thing.other.number = 2
    if error is not None:
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_was_changed_is_put_back_into_the_same_objects(error):
    thing = Thing()
    items, table, metric, random, array = thing.items, thing.table, thing.metric, thing.random, thing.table["b"][0]
    with pytest.raises(error), all_or_nothing(thing):
        spoil(thing, error)
    assert set(vars(thing)) == set(vars(Thing()))
    assert thing.number == 1
    for mine, before in ((thing.items, items), (thing.table, table), (thing.metric, metric), (thing.random, random)):
        assert mine is before
    assert items == [1, [2]]
    assert table["a"] == {3}
    assert table["b"][0] is array
    assert not array.any()
    assert table["b"][1] == deque([4], 5)
    assert thing.counts == {"a": 1}
    assert str(vars(metric)) == str(vars(BinaryAccuracy()))
    assert random.state == (7, 0)
    assert thing.other.number == 2  # which was not passed


def test_what_was_changed_stays_where_nothing_is_raised():
    thing = Thing()
    with all_or_nothing(thing):
        spoil(thing)
    assert thing.number == 2
    assert thing.items == [[2, 9]]


def test_large_arrays_of_the_others_are_not_copied():
    thing = Thing()
    thing.small, thing.large, thing.fixed = np.zeros(4), np.zeros(5), np.zeros(1)
    thing.fixed.flags.writeable = False
    thing.cycle = [thing]

    def add():
        thing.small += 1
        thing.large += 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), all_or_nothing(others=[thing], largest=32):
        add()
    assert (thing.small == 0).all()
    assert (thing.large == 1).all()
