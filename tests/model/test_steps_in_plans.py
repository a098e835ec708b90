"""The rest of a training step after the layers, as stages of a plan: losses, penalties, clipping, optimizers."""

import numpy as np
import pytest

from cnnlite import losses, optimizers, regularizers
from cnnlite.engine.buffers import N
from cnnlite.engine.graph import Graph
from cnnlite.engine.plan import TrainingPlan
from cnnlite.kernels.finite import add_numbers
from tests.helpers.optimizing import ALL as OPTIMIZERS
from tests.helpers.optimizing import IDS, again, random_parameters
from tests.kernels.drawn import compiled_kernels_needed
from tests.kernels.stages import assert_same_bits
from tests.losses.test_losses import RNG, case, every_loss


@every_loss
@pytest.mark.parametrize("weighting", ["none", "samples", "values"])
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum"])
@compiled_kernels_needed
def test_in_a_plan_a_loss_has_the_bits_that_it_has_of_arrays(loss, weighting, reduction):
    rng = RNG(14)
    loss = type(loss)(**{**loss.get_config(), "reduction": reduction})
    y_true, y_pred = case(loss, rng, (5, 2, 3))
    y_pred = y_pred.astype(np.float32)
    weights = {"none": None, "samples": rng.uniform(0, 2, 5), "values": rng.uniform(0, 2, (5, 2))}[weighting]
    expected = loss.value_and_gradient(y_true, y_pred, weights)
    given = {"y": y_pred, "t": loss.prepare_targets(y_true, y_pred.shape, y_pred.dtype)}
    if weights is not None:
        given["weights"] = loss.prepare_weights(weights, y_pred.shape, y_pred.dtype)

    def both(y, t, weights=None):
        return *loss.value_and_gradient(t, y, weights), loss(t, y, weights)

    value, gradient, alone = assert_same_bits(both, given, " ".join(given))
    assert value == alone == expected[0]
    np.testing.assert_array_equal(gradient, expected[1])


@compiled_kernels_needed
def test_in_a_plan_a_vector_counts_as_a_column():
    loss, y_true, y_pred = losses.MeanSquaredError(), [0.0, 1.0, 1.0], np.float32([0.2, 0.7, 0.4])
    t = loss.prepare_targets(y_true, y_pred.shape, y_pred.dtype)
    value, gradient = assert_same_bits(lambda y, t: loss.value_and_gradient(t, y), {"y": y_pred, "t": t}, "y t")
    assert value == loss(y_true, y_pred)
    np.testing.assert_array_equal(gradient, loss.backward(y_true, y_pred))


@every_loss
def test_prepared_targets_are_checked_and_take_any_form_that_the_loss_takes(loss):
    y_true, _ = case(loss, RNG(15), (4, 5))
    t = loss.prepare_targets(y_true, (4, 5), np.float32)
    sparse = t.dtype == np.int64
    assert t.shape == ((4,) if sparse else (4, 5))
    assert t.dtype == (np.int64 if sparse else np.float32)
    assert t.flags.c_contiguous
    np.testing.assert_array_equal(loss.prepare_targets(np.asarray(y_true).tolist(), (4, 5), np.float32), t)
    with pytest.raises(ValueError, match=r"y_true\.shape"):
        loss.prepare_targets(y_true[:3], (4, 5), np.float32)
    assert loss.prepare_weights(2.0, (4, 5), np.float32).tolist() == [2, 2, 2, 2]
    with pytest.raises(ValueError, match="sample_weight must have one number per sample"):
        loss.prepare_weights([1.0, 2.0], (4, 5), np.float32)


@every_loss
def test_only_a_loss_as_it_was_written_is_traceable(loss, monkeypatch):
    assert losses.is_traceable(loss, np.float32)
    assert losses.is_traceable(loss, np.float64)
    assert not losses.is_traceable(type(loss)(dtype="float64"), np.float32)
    assert not losses.is_traceable(type("Mine", (type(loss),), {})(), np.float32)
    changed = type(loss)()
    changed.gradient = lambda y_true, y_pred: 0 * y_pred
    assert not losses.is_traceable(changed, np.float32)
    for method in ("forward", "terms", "prepare_targets"):
        with monkeypatch.context() as patch:
            patch.setattr(type(loss), method, lambda self, *args: None)
            assert not losses.is_traceable(loss, np.float32)
    assert losses.is_traceable(loss, np.float32)


class Traced:
    """The parameters of a model, with buffers for the two vectors."""

    def __init__(self, parameters, graph, count):
        self.vector, self.gradient = graph.of_array(parameters.vector), graph.of_array(parameters.gradient)
        self.values, self.refused = graph.given((count,), np.float64), graph.given((1,), np.int64)
        self.slices, self.trainable_segments = parameters.slices, parameters.trainable_segments


def plan_of_steps(optimizer, parameters):
    """Return a function that does an optimizer step in a plan; `refused` suppresses the update."""
    optimizer.build(parameters)
    graph = Graph(parameters.vector.dtype)
    traced = Traced(parameters, graph, len(optimizer.next_values()))
    optimizer.step(traced)
    plan = TrainingPlan(graph, [])

    def step(refused=False):
        given = {traced.values.number: np.array(optimizer.next_values()), traced.refused.number: np.array([refused])}
        plan.run(1, {number: array.astype(graph.buffers[number].buffer.dtype) for number, array in given.items()})
        if not refused:
            optimizer.finish_step(parameters)

    return step


def draw_gradient(parameters, step):
    parameters.gradient[:] = np.random.default_rng(100 + step).normal(size=parameters.vector.size)


CLIPPING = [{}, {"clipvalue": 0.5}, {"clipnorm": 0.5}, {"global_clipnorm": 0.5}, {"weight_decay": 0.1}]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=IDS)
@pytest.mark.parametrize("settings", CLIPPING, ids=["plain", *(key for setting in CLIPPING for key in setting)])
@compiled_kernels_needed
def test_steps_by_a_plan_have_the_bits_of_steps_on_arrays(optimizer, settings):
    schedule = optimizers.schedules.ExponentialDecay(0.1, decay_steps=2, decay_rate=0.5)
    mine, theirs = (again(optimizer, learning_rate=schedule, **settings) for _ in range(2))
    parameters, expected = random_parameters(frozen=(1,)), random_parameters(frozen=(1,))
    step = plan_of_steps(mine, parameters)
    for number in range(4):
        draw_gradient(parameters, number)
        draw_gradient(expected, number)
        step()
        theirs.step(expected)
        np.testing.assert_array_equal(parameters.vector, expected.vector)
    assert mine.iterations == theirs.iterations == 4
    for name, slot in theirs.slots.items():
        np.testing.assert_array_equal(mine.slots[name], slot)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=IDS)
@compiled_kernels_needed
def test_a_step_that_is_refused_leaves_weights_and_slots_as_they_are(optimizer):
    optimizer, parameters = again(optimizer, clipnorm=1.0), random_parameters()
    step = plan_of_steps(optimizer, parameters)
    draw_gradient(parameters, 0)
    step()
    before = [parameters.vector.copy(), *(slot.copy() for slot in optimizer.slots.values())]
    step(refused=True)
    for array, old in zip([parameters.vector, *optimizer.slots.values()], before):
        np.testing.assert_array_equal(array, old)
    assert optimizer.iterations == 1
    step()
    assert (parameters.vector != before[0]).all()


def test_the_key_of_a_step_changes_with_what_its_stages_depend_on_and_with_nothing_else():
    optimizer = optimizers.SGD(0.1)
    optimizer.build(random_parameters())
    keys = [optimizer.plan_key()]
    optimizer.learning_rate = 0.5
    optimizer.nesterov = True
    optimizer.weight_decay = 0.1
    assert optimizer.plan_key() == keys[0]
    for name, value in (("clipnorm", 1.0), ("clipnorm", 2.0), ("momentum", 0.9)):
        setattr(optimizer, name, value)
        assert optimizer.plan_key() not in keys
        keys.append(optimizer.plan_key())
    optimizer.momentum = 0.5
    assert optimizer.plan_key() == keys[-1]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=IDS)
def test_only_an_optimizer_as_it_was_written_is_traceable(optimizer, monkeypatch):
    assert optimizers.is_traceable(again(optimizer, learning_rate=optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)))
    changed, cls = again(optimizer), type(optimizer)
    changed.update = lambda *args: None
    assert not optimizers.is_traceable(changed)
    assert not optimizers.is_traceable(type("Mine", (cls,), {})())
    for method in ("step", "update", "step_with"):
        with monkeypatch.context() as patch:
            patch.setattr(cls, method, lambda self, *args: None)
            assert not optimizers.is_traceable(again(optimizer))
    assert optimizers.is_traceable(again(optimizer))


def test_a_subclass_changes_the_step_by_its_update():
    class Halved(optimizers.SGD):
        def update(self, p, g, slots, learning_rate, decay):
            super().update(p, g, slots, learning_rate / 2, decay)

    mine, theirs = random_parameters(), random_parameters()
    draw_gradient(mine, 0)
    draw_gradient(theirs, 0)
    Halved(0.5).step(mine)
    optimizers.SGD(0.25).step(theirs)
    np.testing.assert_array_equal(mine.vector, theirs.vector)


@pytest.mark.parametrize("penalty", [regularizers.L1(0.3), regularizers.L2(0.3), regularizers.L1L2(0.2, 0.4)])
def test_only_a_regularizer_as_it_was_written_is_traceable(penalty, monkeypatch):
    assert regularizers.is_traceable(penalty)
    assert not regularizers.is_traceable(type("Mine", (type(penalty),), {})())
    changed = type(penalty)()
    changed.gradient = lambda weights: weights
    assert not regularizers.is_traceable(changed)
    monkeypatch.setattr(regularizers.L1L2, "gradient", lambda self, weights: weights)
    assert not regularizers.is_traceable(penalty)
    w, g = np.ones(3, np.float32), np.ones(3, np.float32)
    penalty.add_gradient(w, g)
    assert g.tolist() == [2, 2, 2]


@compiled_kernels_needed
def test_one_plan_holds_the_loss_the_penalty_and_the_step():
    rng, loss, penalty = RNG(0), losses.MeanSquaredError(), regularizers.L1L2(0.1, 0.2)
    optimizer, parameters, expected = optimizers.Adam(0.1, clipnorm=0.1), random_parameters(), random_parameters()
    twin = optimizers.Adam(0.1, clipnorm=0.1)
    y_true, y_pred = case(loss, rng, (37, 4))
    y_pred = y_pred.astype(np.float32)
    draw_gradient(parameters, 0)
    draw_gradient(expected, 0)

    # With arrays.
    value, gradient = loss.value_and_gradient(y_true, y_pred)
    value += penalty(expected.vector)
    penalty.add_gradient(expected.vector, expected.gradient)
    twin.step(expected)

    # In a plan.
    optimizer.build(parameters)
    graph = Graph(np.float32)
    y, t, traced = graph.given((N, 4)), graph.given((N, 4)), Traced(parameters, graph, 5)
    total, dy = loss.value_and_gradient(t, y)
    total = add_numbers(total, penalty(traced.vector))
    penalty.add_gradient(traced.vector, traced.gradient)
    optimizer.step(traced)
    plan = TrainingPlan(graph, [total, dy])
    given = {y: y_pred, t: loss.prepare_targets(y_true, y_pred.shape, y_pred.dtype),
             traced.values: np.array(optimizer.next_values()), traced.refused: np.array([0])}
    plan.run(37, {buffer.number: array for buffer, array in given.items()})
    assert plan.array(total) == value
    np.testing.assert_array_equal(plan.array(dy), gradient)
    np.testing.assert_array_equal(parameters.gradient, expected.gradient)
    np.testing.assert_array_equal(parameters.vector, expected.vector)
