"""Plans: their inputs and outputs, their handling of weights, and concurrent runs."""

import os
import signal
import threading
import warnings

import numpy as np
import pytest

from cnnlite.engine.buffers import N
from cnnlite.engine.graph import Graph
from cnnlite.engine.plan import INPUT, WEIGHTS, WORKSPACES_KEPT, Plan, TrainingPlan
from cnnlite.layers.weights import ArrayDict
from tests.engine.made_up import batch, copy_positive, copy_weights, double, fail_at_three, new_graph, scale
from tests.kernels.drawn import compiled_kernels_needed

pytestmark = compiled_kernels_needed
MUCH = 1e9  # enough work that all threads take part


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 100, shape).astype("float32")


class Scaling:
    """A plan of y = 2 x w, whose prologue copies w and counts its calls."""

    def __init__(self, work=0.0):
        self.weights, self.calls = ArrayDict(), np.zeros(1, np.int64)
        self.weights.bind("w", np.array([1, 2, 3], "float32"))
        graph = Graph(np.float32, [self.weights])
        self.x = graph.given((N, 3))
        packed = copy_weights(graph, graph.of_array(self.weights["w"]), self.calls)
        self.plan = Plan(graph, [scale(double(self.x, work=work), packed)])

    def __call__(self, x):
        return self.plan.run(len(x), {self.x.number: x})[0]


# Inputs and outputs.


@pytest.mark.parametrize("work", [0, MUCH])
@pytest.mark.parametrize("joined", [True, False])
def test_one_plan_serves_any_number_of_samples_and_each_result_is_new(joined, work):
    graph, x = new_graph(8, 3)
    plan = Plan(graph, [double(double(x), work=work)], joined)
    earlier = []
    for n in (0, 1, 17, 33, 1, 17):
        array = numbers(n, 8, 3, seed=len(earlier))
        (y,) = plan.run(n, {x.number: array})
        earlier.append((y, 4 * array))
    for y, expected in earlier:
        np.testing.assert_array_equal(y, expected)


def test_results_may_be_written_to_a_given_array_and_come_in_each_shape_that_is_asked_for():
    graph, x = new_graph(2, 3)
    y = double(x)
    plan = Plan(graph, [y, y.reshape(N, 6), y.reshape(-1, 3)])
    array, out = numbers(4, 2, 3), np.zeros((4, 2, 3), "float32")
    results = plan.run(4, {x.number: array, y.number: out})
    assert [result.shape for result in results] == [(4, 2, 3), (4, 6), (8, 3)]
    assert results[0] is out
    assert all(np.shares_memory(result, out) for result in results)
    np.testing.assert_array_equal(out, 2 * array)


def test_what_no_result_needs_is_not_computed():
    graph, x = new_graph(3)
    y = double(x)
    fail_at_three(y, 8)
    plan = Plan(graph, [y])
    assert [step.stage.name for step in plan.steps] == ["double"]
    plan.run(2, {x.number: numbers(2, 3)})


def test_a_plan_that_failed_runs_again():
    graph, x = new_graph(3)
    plan = Plan(graph, [double(x), fail_at_three(x, 8)])
    for _ in range(2):
        with pytest.raises(RuntimeError, match="1 units of the plan failed: a stage read out of bounds"):
            plan.run(2, {x.number: numbers(2, 3)})


def test_values_are_asked_for_before_each_run():
    graph, x = new_graph(3)
    values = iter([[1, 2, 3], [4, 5, 6]])
    plan = Plan(graph, [scale(x, graph.value(lambda: next(values), (3,), np.float32))])
    ones = np.ones((2, 3), "float32")
    for expected in ([1, 2, 3], [4, 5, 6]):
        np.testing.assert_array_equal(plan.run(2, {x.number: ones})[0], [expected] * 2)
    with pytest.raises(StopIteration):
        plan.run(2, {x.number: ones})


# Weights.


def test_what_is_made_of_weights_is_made_again_only_if_they_have_changed():
    scaling, x = Scaling(), np.ones((2, 3), "float32")
    for _ in range(3):
        np.testing.assert_array_equal(scaling(x), [[2, 4, 6]] * 2)
    assert scaling.calls[0] == 1
    scaling.weights["w"] = [5, 6, 7]
    for _ in range(3):
        np.testing.assert_array_equal(scaling(x), [[10, 12, 14]] * 2)
    assert scaling.calls[0] == 2


def in_place(weights):
    weights["w"][1] = 9


def through_a_view(weights):
    weights["w"].reshape(3, 1)[1:2].fill(9)


def by_assignment(weights):
    weights["w"] = [1, 9, 3]


def by_another_array(weights):
    weights.bind("w", np.array([1, 9, 3], "float32"))


@pytest.mark.parametrize("change", [in_place, through_a_view, by_assignment, by_another_array])
@pytest.mark.parametrize("when", ["before", "after"])
def test_every_change_of_an_array_that_was_handed_out_is_seen(change, when):
    scaling, x = Scaling(), np.ones((1, 3), "float32")
    if when == "after":
        scaling(x)
    weights = scaling.weights.handed_over()
    np.testing.assert_array_equal(scaling(x), [[2, 4, 6]])
    before = scaling.calls[0]
    change(weights)
    for _ in range(2):
        np.testing.assert_array_equal(scaling(x), [[2, 18, 6]])
    assert scaling.calls[0] == before + 1


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -0.0, 1e-45, np.nextafter(np.float32(2), 3)])
def test_weights_are_compared_bit_by_bit(value):
    scaling, x = Scaling(), np.ones((1, 3), "float32")
    w = scaling.weights.handed_over()["w"]
    for number in (0.0, value, value, 0.0):
        w[2] = number
        assert scaling(x)[0, 2].tobytes() == np.float32(2 * np.float32(number)).tobytes()
    assert scaling.calls[0] == 3


def test_a_weight_that_only_a_later_stage_reads_is_read_as_it_is():
    weights = ArrayDict()
    weights.bind("w", np.array([1, 2, 3], "float32"))
    graph = Graph(np.float32, [weights])
    x = graph.given((N, 3))
    plan, ones = Plan(graph, [scale(x, graph.of_array(weights["w"]))]), np.ones((1, 3), "float32")
    for values in ([1, 2, 3], [4, 5, 6]):
        weights["w"] = values
        np.testing.assert_array_equal(plan.run(1, {x.number: ones})[0], [values])
    weights.bind("w", np.array([7, 8, 9], "float32"))
    np.testing.assert_array_equal(plan.run(1, {x.number: ones})[0], [[7, 8, 9]])


def test_weights_of_which_nothing_could_be_made_leave_nothing_half_done():
    weights = ArrayDict()
    weights.bind("w", np.array([1, 2, -3], "float32"))
    graph = Graph(np.float32, [weights])
    x = graph.given((N, 3))
    plan = Plan(graph, [scale(x, copy_positive(graph, graph.of_array(weights["w"])))])
    ones = np.ones((1, 3), "float32")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="1 units of the plan failed"):
            plan.run(1, {x.number: ones})
    weights["w"] = [1, 2, 3]
    np.testing.assert_array_equal(plan.run(1, {x.number: ones})[0], [[1, 2, 3]])


# Concurrency.


@pytest.mark.parametrize("work", [0, MUCH])
def test_eight_threads_at_once_each_get_their_own_results(work):
    scaling, wrong, start = Scaling(work), [], threading.Barrier(8)

    def runs(seed):
        x = numbers(1 + seed, 3, seed=seed)
        start.wait()
        for _ in range(50):
            if not np.array_equal(scaling(x), 2 * x * [1, 2, 3]):
                wrong.append(seed)

    workers = [threading.Thread(target=runs, args=(seed,)) for seed in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []
    assert scaling.calls[0] == 1
    assert all(len(pool) <= WORKSPACES_KEPT for pool in scaling.plan._pools.values())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.parametrize("work", [0, MUCH])
def test_a_forked_child_runs_the_plan_of_its_parent(work):
    scaling, x = Scaling(work), numbers(40, 3)
    expected = scaling(x)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(60)  # or the child would outlive a test that gives up
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the warning that it has only one thread
                code = 0 if np.array_equal(scaling(x), expected) and np.array_equal(scaling(x[:1]), expected[:1]) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(scaling(x), expected)


# Training.


def test_a_training_plan_runs_in_sections_and_keeps_what_it_was_told_to():
    graph, x = new_graph(3)
    y = double(x)
    graph.section = 1
    z, later = double(y), graph.given((N, 3))
    w = double(later)
    plan = TrainingPlan(graph, [y, z, w])
    one, other = numbers(5, 3), numbers(5, 3, seed=1)
    plan.run(5, {x.number: one}, section=0)
    np.testing.assert_array_equal(plan.array(y), 2 * one)
    plan.run(5, {later.number: other}, section=1)
    np.testing.assert_array_equal(plan.array(z), 4 * one)
    np.testing.assert_array_equal(plan.array(w), 2 * other)
    plan.run(2, {x.number: other[:2], later.number: one[:2]})
    np.testing.assert_array_equal(plan.array(y), 2 * other[:2])
    np.testing.assert_array_equal(plan.array(w), 2 * one[:2])


def test_a_training_plan_writes_weights_and_finds_them_where_they_are_now():
    weights = ArrayDict()
    weights.bind("w", np.array([1, 2, 3], "float32"))
    graph = Graph(np.float32, [weights])
    w = graph.of_array(weights["w"])
    double(w, w)
    plan = TrainingPlan(graph, [])
    plan.run(1, {})
    np.testing.assert_array_equal(weights["w"], [2, 4, 6])
    before = weights["w"]
    weights.bind("w", np.array([5, 6, 7], "float32"))
    plan.run(1, {})
    np.testing.assert_array_equal(weights["w"], [10, 12, 14])
    np.testing.assert_array_equal(before, [2, 4, 6])


def test_what_only_the_gradient_of_the_input_needs_is_left_out_for_weights():
    graph, x = new_graph(1)
    shared = batch(x)
    for_weights, for_input = batch(shared), batch(shared)
    plan = TrainingPlan(graph, [for_weights], [for_input])
    plan.run(1, {x.number: numbers(1, 1)})
    arrays = [plan.array(buffer) for buffer in (for_weights, for_input)]
    for purposes, expected in ((WEIGHTS, [True, False]), (INPUT, [True, True]), (WEIGHTS | INPUT, [True, True])):
        for array in arrays:
            array[:] = 0
        plan.run(1, {x.number: numbers(1, 1)}, purposes=purposes)
        assert [bool(array[0]) for array in arrays] == expected


def test_a_training_plan_asks_for_values_once_for_all_sections():
    graph, x = new_graph(3)
    asked = []
    value = graph.value(lambda: asked.append(1) or [len(asked)] * 3, (3,), np.float32)
    y = scale(x, value)
    graph.section = 1
    z = scale(x, value)
    plan, ones = TrainingPlan(graph, [y, z]), np.ones((2, 3), "float32")
    for run in (1, 2):
        plan.run(2, {x.number: ones}, section=0)
        plan.run(2, {}, section=1)
        assert len(asked) == run
        assert (plan.array(y) == run).all()
        assert (plan.array(z) == run).all()
