"""A whole training step, the optimizer's step included, as one plan: a single call into compiled code.

The plan is made by calling `Trainer.train_step` with the buffers of a graph instead of arrays. That works if everything
that it calls is the library's own: the layers, the loss, the regularizers and the optimizer. Otherwise `train_step`
runs as it is, and the passes over the layers have plans of their own (`passes.py`).
"""

from __future__ import annotations

import copy
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnlite import fusion, losses, optimizers, regularizers
from cnnlite.eager import is_eager
from cnnlite.engine.buffers import N
from cnnlite.engine.graph import Graph, stages_of
from cnnlite.engine.plan import TrainingPlan
from cnnlite.engine.program import Memory
from cnnlite.kernels.finite import nonfinite
from cnnlite.layers.overrides import keeps
from cnnlite.layers.parts import parts_of
from cnnlite.layers.pass_memory import deferred_commits, separate_memory
from cnnlite.model.passes import PLANS_KEPT
from cnnlite.support.floating import arithmetic
from cnnlite.support.interrupts import deferred_signals
from cnnlite.types import Array, Shape

if TYPE_CHECKING:
    from cnnlite.layers.flat_parameters import FlatParameters

# Methods of a model: if one is overridden, `train_step` may not do what the plan would.
_METHODS = (
    "train_step", "take_step", "add_penalties", "prepare", "forward", "forward_logits", "backward", "backward_weights",
    "forward_pass", "backward_pass", "regularization_loss", "add_regularization_gradients", "parameters",
    "compute_output_shape",
)


_being_recorded: ContextVar[StepPlan | None] = ContextVar("being_recorded", default=None)


def step_being_recorded() -> StepPlan | None:
    """Return the plan that is being made by calling `train_step`, or None."""
    return _being_recorded.get()


def step_plan(model: Any, x: Array, y: Any, sample_weight: Any, optimizer: Any = None) -> StepPlan | None:
    """Return the plan of a training step of a model on batches like this one, or None if there can't be one.

    With an optimizer other than the model's, the plan is for display, and is not cached.
    """
    loss, fused = model._fused_loss()
    optimizer = model.optimizer if optimizer is None else optimizer
    if (
        is_eager() or not model.memo.get("is one segment", lambda: _is_one_segment(model))
        or not losses.is_traceable(loss, model.dtype) or loss.reduction == "none"
        or not optimizers.is_traceable(optimizer)
    ):
        return None
    penalties = [(id(layer), key, penalty) for layer in model.walk() if layer.regularizers and layer.trainable
                 for key, penalty in layer.regularizers.items()]
    if not all(regularizers.is_traceable(penalty) for _, _, penalty in penalties):
        return None
    parameters = model._parameters()
    optimizer.build(parameters)  # the optimizer or some weights may be new since it was last built
    run = model.training_run
    settings = *vars(loss).values(), *((layer, key, penalty.l1, penalty.l2) for layer, key, penalty in penalties)
    try:
        hash(settings)
    except TypeError:  # an array, say, whose changes would go unnoticed
        return None
    key = (
        "step", x.shape[1:], getattr(y, "shape", ())[1:], fused, None if sample_weight is None else sample_weight.ndim,
        id(loss), settings, id(optimizer), optimizer.plan_key(), id(parameters),
        run is not None and run.refuses_nonfinite, fusion.is_on(),
    )
    if optimizer is not model.optimizer:
        return StepPlan(model, x, y, sample_weight, optimizer)
    return model.memo.get(key, lambda: StepPlan(model, x, y, sample_weight, optimizer), PLANS_KEPT)


def _is_one_segment(model: Any) -> bool:
    parts = [part for layer in model.inner_layers for part in parts_of(layer)]
    return keeps(model, *_METHODS) and all(part.is_ours and part.layer.dtype == model.dtype for part in parts)


class StepPlan:
    """The plan of a training step.

    Args:
        model: the model, built and compiled.
        x, y, sample_weight: a batch; only its shapes and dtypes matter.
        optimizer: the optimizer, built for the model.
    """

    def __init__(self, model: Any, x: Array, y: Any, sample_weight: Any, optimizer: Any) -> None:
        self._model, self._parameters = model, model._parameters()
        self._loss, _ = model._fused_loss()
        self._optimizer = optimizer
        self._output_shape = tuple(model.compute_output_shape((None, *x.shape[1:]))[1:])
        with arithmetic():
            t, weights = self._prepared(len(x), y, sample_weight)
        parameters, slots = self._parameters, self._optimizer.slots
        layers = list(model.walk())
        dicts = [arrays for layer in layers for arrays in (layer._params, layer._grads, layer._state) if arrays]
        self._graph = graph = Graph(model.dtype, [*dicts, parameters.arrays, slots])
        self._x = graph.given((N, *x.shape[1:]))
        self._t = graph.given((N, *t.shape[1:]), t.dtype)
        self._weights = None if weights is None else graph.given((N, *weights.shape[1:]), weights.dtype)
        self._refused: Any = None
        with graph.recording(), separate_memory(), deferred_commits() as self._commits:
            token = _being_recorded.set(self)
            try:
                self._value, self._z = model.train_step(self._x, self._t, self._weights)
            finally:
                _being_recorded.reset(token)
        kept = [self._value, self._z, *([] if self._refused is None else [self._refused])]
        self.plan = TrainingPlan(graph, kept, joined=fusion.is_on(), in_sections=False,
                                 memory=model.memo.get("memory of steps", Memory))
        self._states = [layer._state for layer in layers if layer._state]

    def _prepared(self, samples: int, y: Any, sample_weight: Any) -> tuple[Array, Array | None]:
        """Return the targets and weights as the kernels take them, or raise a ValueError; call within `arithmetic`."""
        shape = (samples, *self._output_shape)
        t = self._loss.prepare_targets(y, shape, self._model.dtype)
        return t, None if sample_weight is None else self._loss.prepare_weights(sample_weight, shape, self._model.dtype)

    def add_update(self, value: Any) -> None:
        """Add the optimizer's step, and the update of what layers learn without a gradient; `take_step` calls it."""
        graph, parameters, optimizer = self._graph, self._parameters, self._optimizer
        graph.section = 1  # the weights are views into the vector, so everything else must run first
        vector, gradient = graph.of_array(parameters.vector), graph.of_array(parameters.gradient)
        run = self._model.training_run
        with stages_of(optimizer.name):
            if run is not None and run.refuses_nonfinite:
                self._refused = nonfinite(value, gradient, parameters.trainable_segments())
            count = len(optimizer.step_values(1.0, 0.0))  # `next_values` may call a user's schedule
            values = graph.value(optimizer.next_values, (count,), np.float64)
            optimizer.step(_Parameters(parameters, vector, gradient, values, self._refused))
        for commit in self._commits:
            commit(self._refused)

    def run(self, x: Array, y: Any, sample_weight: Any) -> tuple[float, Array]:
        """Take a step; return its loss, and what the loss was computed from, which is valid until the next step.

        Call it within `floating.arithmetic`.
        """
        t, weights = self._prepared(len(x), y, sample_weight)
        given = {self._x.number: x, self._t.number: as_given(t, self._t.dtype)}
        if weights is not None and self._weights is not None:
            given[self._weights.number] = as_given(weights, self._weights.dtype)
        run = self._model.training_run
        with deferred_signals():  # the weights and their step count must change together
            self.plan.run(len(x), given)
            if self._refused is not None:
                run.refused = bool(self.plan.array(self._refused)[0])
            if run is None or not run.refused:
                self._optimizer.finish_step(self._parameters)
                self._parameters.note_step()
                for arrays in self._states:
                    arrays.version += 1
        z = self._z
        is_x = z.number == self._x.number  # in a model that only reshapes
        return float(self.plan.array(self._value)[0]), x.reshape((-1, *z.shape[1:])) if is_x else self.plan.array(z)


    def release(self) -> None:
        """Free the memory in which the steps run."""
        self.plan.release()


class _Parameters:
    """Stands in for `FlatParameters` while an optimizer's step is added: buffers instead of arrays."""

    def __init__(self, parameters: FlatParameters, vector: Any, gradient: Any, values: Any, refused: Any) -> None:
        self.vector, self.gradient, self.values, self.refused = vector, gradient, values, refused
        self.slices, self.trainable_segments = parameters.slices, parameters.trainable_segments


def as_given(x: Any, dtype: Any) -> Array:
    """Return an array as compiled code takes it: contiguous, aligned, of the dtype."""
    if type(x) is np.ndarray and x.dtype == dtype and x.flags.carray:
        return x
    x = np.ascontiguousarray(x, dtype)
    return x if x.flags.aligned else x.copy()


def example_plan(model: Any, sample: Shape) -> TrainingPlan | None:
    """Return the plan of a training step on samples of a shape, without sample weights; None if there can't be one."""
    if not model.built:
        model.build((None, *sample))
    # Looking at a plan must not bind the optimizer to weights.
    optimizer = model.optimizer if model.optimizer.is_built else copy.copy(model.optimizer)
    loss, _ = model._fused_loss()
    shape = (1, *model.compute_output_shape((None, *sample))[1:])
    if not losses.is_traceable(loss, model.dtype):
        return None
    for y in np.zeros(shape, model.dtype), np.zeros(shape[:-1], np.int64):  # try both forms of labels
        try:
            made = step_plan(model, np.zeros((1, *sample), model.dtype), y, None, optimizer)
        except ValueError:
            continue
        return None if made is None else made.plan
    return None
