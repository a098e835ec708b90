"""Which stages are joined, where barriers stand, and where buffers lie."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from cnnlite.engine import schedule
from cnnlite.engine.buffers import N, chunk_count
from cnnlite.engine.graph import Graph
from cnnlite.engine.schedule import ALIGNMENT, Schedule, lay_out, size_of
from tests.engine.made_up import (
    batch,
    batch_of,
    copy_positive,
    count,
    double,
    mark_rows,
    new_graph,
    scale,
    spread,
    whole,
)


def names(graph, kept=(), **how):
    """Return the names of the stages in each track of each group."""
    return _names(Schedule(graph, graph.steps, kept, **how))


def _names(schedule):
    return [[[step.stage.name for step in track.steps] for track in group] for group in schedule.groups]


# Joined stages, and barriers.


def test_stages_of_the_same_samples_follow_one_another():
    graph, x = new_graph(8)
    whole(mark_rows(double(x)))
    assert names(graph) == [[["double", "mark_rows", "whole"]]]
    assert names(graph, joined=False) == [[["double"]], [["mark_rows"]], [["whole"]]]


def test_a_stage_of_the_whole_batch_waits_and_is_waited_for():
    graph, x = new_graph(1)
    y = double(x)
    scale(y, batch(y))
    assert names(graph) == [[["double"]], [["batch"]], [["scale"]]]


def test_a_stage_of_the_batch_that_waits_for_nothing_runs_beside_the_others():
    graph, x = new_graph(1)
    batch(x)
    double(double(x))
    assert names(graph) == [[["batch"], ["double", "double"]]]


def test_sums_over_samples_belong_to_the_samples_and_are_there_when_all_are():
    graph, x = new_graph(1)
    batch(count(double(x)))
    assert names(graph) == [[["double", "count"]], [["batch"]]]


def test_a_stage_comes_as_early_as_it_can():
    graph, x = new_graph(1)
    scale(x, batch(x))
    double(x)
    assert names(graph) == [[["batch"], ["double"]], [["scale"]]]


def weighted_graph():
    """Return a graph, its input buffer, and the buffer of a weight."""
    weight = np.ones(1, np.float32)
    graph = Graph(np.float32, [{"w": weight}])
    return graph, graph.given((N, 1)), graph.of_array(weight)


def test_what_is_made_of_weights_alone_comes_just_before_it_is_needed():
    graph, x, w = weighted_graph()
    first, second = copy_positive(graph, w), copy_positive(graph, w)
    y = scale(x, first)
    scale(scale(y, batch(y)), second)
    assert names(graph) == [[["copy_positive"]], [["scale"]], [["batch"], ["copy_positive"]], [["scale", "scale"]]]
    # One stage per group: the order stays the same.
    assert names(graph, joined=False)[:2] == [[["copy_positive"]], [["copy_positive"]]]


def test_what_is_made_of_weights_comes_before_they_change_and_within_its_section():
    graph, x, w = weighted_graph()
    made = copy_positive(graph, w)
    y = double(x)
    batch_of(y, w)
    scale(scale(y, batch(batch(y))), made)
    assert sorted(names(graph)[0]) == [["copy_positive"], ["double"]]
    assert names(graph)[1] == [["batch"], ["batch"]]
    graph, x, w = weighted_graph()
    made = copy_positive(graph, w)
    double(x)
    graph.section = 1
    y = double(double(x))
    scale(scale(y, batch(y)), made)
    assert sorted(names(graph)[0]) == [["copy_positive"], ["double"]]


def test_what_is_written_to_an_array_of_somebody_else_is_no_preparation():
    graph, x, w = weighted_graph()
    theirs = graph.given((1,))
    batch_of(w, theirs)
    y = double(x)
    scale(scale(y, batch(y)), theirs)
    assert sorted(names(graph)[0]) == [["batch"], ["double"]]


def test_nobody_writes_over_what_a_stage_of_the_batch_still_reads():
    graph, x = new_graph(1)
    y = double(x)
    batch(y)
    double(x, y)
    assert names(graph) == [[["double"]], [["batch"]], [["double"]]]


@pytest.mark.parametrize(("follower", "joins"), [(double, True), (mark_rows, False), (whole, False)])
def test_in_bands_only_what_needs_no_other_rows_follows_at_once(follower, joins):
    graph, x = new_graph(8, 6, 3)
    follower(double(x))
    first, *others = names(graph, banded=True)
    assert (others == []) == joins
    assert first[0][0] == "double"


def test_sections_never_join_and_each_begins_with_a_group_of_its_own():
    graph, x = new_graph(8)
    y = double(double(x))
    graph.section = 1
    double(y)
    graph.section = 2
    graph.section = 3
    double(x)
    ours = Schedule(graph, graph.steps)
    assert _names(ours) == [[["double", "double"]], [["double"]], [["double"]]]
    assert ours.sections == [0, 1, 2, 2]


def test_a_track_ends_where_its_weights_would_not_stay_in_the_cache():
    graph, x = new_graph(schedule.RESIDENT_BYTES // 8 + 1)
    w = np.ones(x.shape[1], "float32")
    scale(scale(x, w), w.copy())
    double(x)
    assert names(graph) == [[["scale", "double"]], [["scale"]]]


def test_what_has_hardly_any_weights_or_as_a_rule_nothing_to_do_still_joins():
    size = schedule.RESIDENT_BYTES // 4 + 1
    for numbers, rare, joins in ((1, False, True), (schedule.LIGHT_BYTES // 4 + 1, False, False), (size, True, True)):
        graph, x = new_graph(size)
        scale(x, np.ones(size, "float32"))
        small = graph.given((N, numbers))
        scale(small, np.ones(numbers, "float32"))
        graph.steps[-1].rare = rare
        assert len(names(graph)) == (1 if joins else 2)


def test_a_light_stage_that_adds_does_not_cut_a_full_track_into_chunks():
    size = schedule.RESIDENT_BYTES // 4 + 1
    graph, x = new_graph(size)
    scale(x, np.ones(size, "float32"))
    count(x)
    assert names(graph) == [[["scale"]], [["count"]]]


# Where buffers lie.


def local(graph, kept=()):
    """Return, for each buffer number, how many tracks keep that buffer in thread-local memory."""
    found = {}
    for group in Schedule(graph, graph.steps, kept).groups:
        for track in group:
            for buffer in track.local:
                found[buffer.number] = found.get(buffer.number, 0) + 1
    return found


def test_what_only_one_track_needs_is_in_memory_of_the_thread():
    graph, x = new_graph(4)
    y = double(x)
    z = double(y)
    batch(z)
    assert local(graph) == {y.number: 1}
    assert local(graph, kept=[y]) == {}
    ours = Schedule(graph, graph.steps)
    assert ours.lives() == {z.number: (0, 1), graph.steps[-1].outputs[0].number: (1, 1)}
    assert not any(track.local for group in Schedule(graph, graph.steps, banded=True).groups for track in group)


def test_what_is_spread_from_little_is_made_again_where_it_is_needed():
    graph, x = new_graph(2)
    y = spread(x, 4)
    double(y)
    scale(y, batch(double(y), 8))
    assert names(graph) == [[["spread", "double", "double"]], [["batch"]], [["spread", "scale"]]]
    assert local(graph)[y.number] == 2


def test_what_only_other_tracks_read_is_not_made_where_it_was_asked_for():
    graph, x = new_graph(2)
    y = spread(double(x), 4)
    scale(y, batch(double(x), 8))
    assert names(graph) == [[["double", "double"]], [["batch"]], [["spread", "scale"]]]
    assert local(graph)[y.number] == 1


def test_what_is_spread_from_much_is_kept():
    graph, x = new_graph(2)
    y = spread(x, 1)
    scale(y, batch(double(y), 2))
    assert names(graph) == [[["spread", "double"]], [["batch"]], [["scale"]]]
    assert y.number not in local(graph)


def test_a_buffer_is_needed_from_the_group_that_makes_it_to_the_last_that_reads_it():
    graph, x = new_graph(1)
    y = double(x)
    z = batch(y)
    batch(z)
    scale(y, z)
    lives = Schedule(graph, graph.steps).lives()
    assert lives[y.number] == (0, 2)
    assert lives[z.number] == (1, 2)


@pytest.mark.parametrize("in_sections", [True, False])
def test_what_one_section_has_of_another_is_there_however_often_that_is_run(in_sections):
    graph, x = new_graph(1)
    y = double(x)
    graph.section = 1
    batch(y)
    graph.section = 2
    batch(x)
    lives = Schedule(graph, graph.steps, in_sections=in_sections).lives()
    assert lives[y.number] == (0, 3 if in_sections else 1)


@st.composite
def buffers_and_lives(draw):
    count = draw(st.integers(0, 12))
    sizes = {i: draw(st.integers(0, 500)) for i in range(count)}
    spans = st.tuples(st.integers(0, 6), st.integers(0, 6)).map(lambda span: tuple(sorted(span)))
    return sizes, {i: draw(spans) for i in range(count)}


@given(buffers_and_lives())
def test_no_two_buffers_that_are_needed_at_once_overlap(drawn):
    sizes, lives = drawn
    places, size = lay_out(sizes, lives)
    assert set(places) == set(sizes)
    for number, place in places.items():
        assert place % ALIGNMENT == 0
        assert 0 <= place <= place + sizes[number] <= size
        for other, begin in places.items():
            at_once = lives[number][0] <= lives[other][1] and lives[other][0] <= lives[number][1]
            if other != number and at_once and sizes[number] and sizes[other]:
                assert place + sizes[number] <= begin or begin + sizes[other] <= place
    assert size <= sum(-(-one // ALIGNMENT) * ALIGNMENT for one in sizes.values())


def test_buffers_that_are_never_needed_at_once_share_memory():
    places, size = lay_out({0: 640, 1: 640, 2: 64}, {0: (0, 1), 1: (2, 3), 2: (1, 2)})
    assert places == {0: 0, 1: 0, 2: 640}
    assert size == 704


# Units.


@pytest.mark.parametrize("n", [0, 1, 17, 33, 1000])
def test_units_cover_all_samples_and_those_of_sums_are_the_chunks(n):
    graph, x = new_graph(4)
    count(double(x, together=8))
    double(batch(x))
    (adding, *_), *_ = Schedule(graph, graph.steps).groups
    assert adding.units(n) == chunk_count(n)
    graph, x = new_graph(4)
    double(x, together=8)
    ((track,),) = Schedule(graph, graph.steps).groups
    together = track.samples_together(n)
    assert track.units(n) == -(-n // together)
    assert 1 <= together <= 8
    assert track.units(n) >= min(n, schedule.TASKS)
    assert track.units(n, bands=4) == 4 * n


def test_as_many_samples_together_as_their_local_buffers_leave_in_the_cache():
    graph, x = new_graph(schedule.LOCAL_BYTES // 8 // 4)
    y = double(double(x, together=100), together=2)
    ((track,),) = Schedule(graph, graph.steps, [y]).groups
    assert track.samples_together(10**6) == 8


def test_the_bytes_of_a_buffer_follow_from_the_number_of_samples():
    graph, x = new_graph(3)
    sums, weights = count(x), graph.work((5,), np.float64)
    assert [size_of(x, n) for n in (0, 1, 17)] == [0, 12, 204]
    assert [size_of(sums, n) for n in (0, 1, 17)] == [8, 8, 128]
    assert size_of(weights, 17) == 40
    assert size_of(x.reshape(3 * N, 1), 17) == 204
