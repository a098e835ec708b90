"""Buffers and their graph: shapes, which stages write and read them, and the contents of a record."""

import threading

import numpy as np
import pytest

from cnnlite.engine.buffers import CHUNKS, WEIGHT, WORK, N, Samples, chunk_count
from cnnlite.engine.graph import Graph, current_graph
from cnnlite.engine.stages import FIXED_WORDS, NONE, stage
from cnnlite.layers.weights import ArrayDict
from tests.engine.made_up import batch, copy_weights, double, new_graph, scale


@stage(reads="x w", writes="y", sizes="size", floats="slope")
def _with_all(r, run, first, last):
    pass


# Buffers.


@pytest.mark.parametrize(("shape", "expected"), [
    ((N, 24), (N, 24)),
    ((N, -1), (N, 24)),
    ((N, 2, -1, 3), (N, 2, 4, 3)),
    ((-1, 6), (Samples(4), 6)),
    ((Samples(2), 12), (Samples(2), 12)),
    ((-1,), (Samples(24),)),
])
def test_a_buffer_of_samples_in_another_shape(shape, expected):
    _, x = new_graph(4, 6)
    for view in (x.reshape(shape), x.reshape(*shape), x.reshape(list(shape))):
        assert view.shape == expected
        assert (view.number, view.dtype, view.sample_size) == (x.number, x.dtype, 24)
        assert view.reshape(x.shape).shape == x.shape


def test_a_buffer_without_samples_in_another_shape():
    graph = Graph(np.float64)
    assert graph.work((4, 6)).reshape(3, -1).shape == (3, 8)
    assert graph.work(()).reshape(1).shape == (1,)
    assert graph.work((0, 3)).reshape(-1).shape == (0,)


@pytest.mark.parametrize("shape", [(N, 25), (N, 5, -1), (24,), (4, 6), (-1, 5), (Samples(3), 6), ()])
def test_a_shape_of_other_numbers_is_refused(shape):
    _, x = new_graph(4, 6)
    with pytest.raises(ValueError, match=r"A buffer of shape \(N, 4, 6\) can't be reshaped to"):
        x.reshape(shape)


@pytest.mark.parametrize("use", [np.asarray, np.exp, lambda x: x + np.ones(3), lambda x: np.ones(3) * x])
def test_numpy_refuses_a_buffer(use):
    _, x = new_graph(3)
    with pytest.raises(TypeError):
        use(x)


def test_so_many_times_as_many_as_there_are_samples():
    assert N * 3 == 3 * N == Samples(3) != N
    assert hash(N * 3) == hash(Samples(3))
    assert (repr(N), repr(N * 3), repr(Samples(3, 5))) == ("N", "3 N", "15")


def test_a_batch_is_cut_into_a_power_of_two_of_chunks_none_of_which_is_empty():
    assert [chunk_count(n) for n in (0, 1, 2, 3, 4, 15, 16, 17, 33, 10**9)] == [1, 1, 2, 2, 4, 8, 16, 16, 16, 16]


def test_a_buffer_says_whose_its_first_axis_is():
    graph, x = new_graph(2, 3)
    sums, weights = graph.work((CHUNKS, 5)), graph.work((5,))
    assert [(b.of_samples, b.of_chunks, b.sample_size) for b in (x, sums, weights)] == [
        (True, False, 6), (False, True, 5), (False, False, 5)]


# The graph.


def test_a_stage_is_told_all_that_its_record_holds_and_nothing_else():
    graph, x = new_graph(3)
    arguments = dict(x=x, w=None, y=graph.work(x.shape), size=3, slope=0.5)
    graph.add(_with_all, **arguments)
    without = {name: value for name, value in arguments.items() if name != "size"}
    for wrong, name in (({**arguments, "top": 1}, "top"), (without, "size")):
        message = rf"The stage with_all got wrong arguments\. Unexpected or missing: \['{name}'\]"
        with pytest.raises(TypeError, match=message):
            graph.add(_with_all, **wrong)
    assert len(graph.steps) == 1


def test_a_record_holds_the_places_of_buffers_and_numbers():
    graph, x = new_graph(3)
    y = graph.work(x.shape)
    graph.add(_with_all, x=x, w=None, y=y, size=-3, slope=0.1)
    (record,) = graph.records(graph.steps)
    assert record.tolist() == (FIXED_WORDS + x.number, NONE, FIXED_WORDS + y.number, -3, 0.1)


def test_a_graph_knows_who_makes_and_who_reads_a_buffer():
    graph, x = new_graph(3)
    y = double(x)
    double(y)
    double(y, y)
    first, second, third = graph.steps
    storage = graph.buffers[y.reshape(N, 1, 3).number]
    assert storage.made_by == [first, third]
    assert storage.used_by == [second, third]


def test_a_weight_is_known_again_and_any_other_array_stays_what_it_is():
    weights = ArrayDict()
    weights.bind("w", np.ones(3, "float32"))
    graph = Graph(np.float32, [weights])
    known = graph.of_array(weights["w"])
    assert graph.of_array(weights["w"]) is known
    assert graph.buffers[known.number].kind == WEIGHT
    other = np.ones(3, "float32")
    constant = graph.of_array(other)
    assert constant is graph.of_array(other)
    assert constant.number != known.number
    assert graph.buffers[constant.number].owner is other


def test_what_follows_from_weights_alone_is_fixed():
    graph, x = new_graph(3)
    w, calls = graph.of_array(np.ones(3, "float32")), np.zeros(1, np.int64)
    packed = copy_weights(graph, w, calls)
    again = copy_weights(graph, packed, calls)
    of_x, of_a_value = batch(x), batch(graph.value(lambda: 1, (1,), np.float64))
    y = scale(x, packed)
    assert [graph.is_fixed(buffer) for buffer in (w, packed, again)] == [True] * 3
    assert [graph.is_fixed(buffer) for buffer in (x, of_x, of_a_value, y)] == [False] * 4
    assert list(map(graph.is_fixed_step, graph.steps)) == [True, True, False, False, False]


def test_a_weight_that_a_stage_writes_is_not_fixed_nor_is_what_is_made_of_it():
    graph, w = Graph(np.float32), np.ones(3, "float32")
    buffer = graph.of_array(w)
    packed = copy_weights(graph, buffer, np.zeros(1, np.int64))
    double(packed, buffer)
    assert not graph.is_fixed(buffer)
    assert not graph.is_fixed(packed)
    assert graph.buffers[packed.number].kind == WORK


def test_the_graph_that_is_being_made_is_that_of_the_thread():
    outer, inner, seen = Graph(np.float32), Graph(np.float32), []
    with outer.recording():
        with inner.recording():
            assert current_graph() is inner
        thread = threading.Thread(target=lambda: seen.append(current_graph()))
        thread.start()
        thread.join()
        with pytest.raises(RuntimeError), inner.recording():
            raise RuntimeError
        assert current_graph() is outer
    assert current_graph() is None
    assert seen == [None]


def test_a_view_of_a_whole_weight_is_the_weight_and_one_of_a_part_is_refused():
    weights = {"kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4)}
    graph = Graph(np.float32, [weights])
    kernel = graph.of_array(weights["kernel"])
    for shape in ((6, 4), (24,), (2, 3, 4)):
        view = graph.of_array(weights["kernel"].reshape(shape))
        assert (view.number, view.shape) == (kernel.number, shape)
    assert graph.of_array(weights["kernel"].copy()).number != kernel.number
    for part in (weights["kernel"][1], weights["kernel"][:1], weights["kernel"].T, weights["kernel"][:, ::2]):
        with pytest.raises(ValueError, match="partial or transposed view of kernel, of shape"):
            graph.of_array(part)
