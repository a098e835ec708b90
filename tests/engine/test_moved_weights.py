"""Weights whose array is replaced while a plan is being made or run, as the first training step does."""

import gc
import weakref

import numpy as np

from cnnlite.engine.buffers import WEIGHT
from cnnlite.engine.graph import Graph
from cnnlite.engine.snapshot import Snapshot
from cnnlite.layers.weights import ArrayDict


def graph_of_a_weight():
    weights = ArrayDict({"kernel": np.ones(3, np.float32)})
    return weights, Graph(np.float32, [weights])


def test_an_array_that_came_while_the_graph_was_made_is_the_weight():
    weights, graph = graph_of_a_weight()
    before = graph.of_array(weights["kernel"])
    weights.bind("kernel", np.zeros(3, np.float32))
    assert graph.of_array(weights["kernel"]) is before
    assert graph.of_array(np.zeros(3, np.float32)) is not before


def test_an_array_that_a_run_may_read_lives_as_long_as_its_addresses_are_kept():
    weights, graph = graph_of_a_weight()
    weights.bind("kernel", np.zeros(3, np.float32))
    snapshot = Snapshot([storage for storage in graph.buffers if storage.kind == WEIGHT], copies=True)
    read = weakref.ref(weights["kernel"])
    weights.bind("kernel", np.ones(3, np.float32))
    gc.collect()
    assert read() is not None
    assert not snapshot.holds()
    del snapshot
    assert read() is None
