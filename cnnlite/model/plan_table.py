"""What `model.plan()` returns: the plans of a model for a batch, as a table."""

from __future__ import annotations

from typing import Any

import numpy as np

from cnnlite.eager import is_eager
from cnnlite.engine.table import table
from cnnlite.layers.parts import SinglePart
from cnnlite.model.training_step import example_plan
from cnnlite.types import Shape


class PlanTable:
    """The table, and the plans that it shows.

    Attributes:
        plans: [("", plan), ...] in the order in which they run; (description, None) for what runs in Python.
        batch_size: the number of samples.
    """

    def __init__(self, plans: list[tuple[str, Any]], batch_size: int) -> None:
        self.plans, self.batch_size = plans, batch_size

    def __str__(self) -> str:
        if not any(plan for _, plan in self.plans):
            return "\n".join(title for title, _ in self.plans)
        texts: list[str] = []
        programs: list[Any] = []
        for title, plan in self.plans:
            if plan is not None:
                programs += plan.programs(self.batch_size)
                continue
            if programs:
                texts.append(table(programs, self.batch_size))
                programs = []
            texts.append(title)
        if programs:
            texts.append(table(programs, self.batch_size))
        return "\n".join(texts)

    __repr__ = __str__


def plan_table(model: Any, batch_size: int, training: bool, sample: Shape | None) -> PlanTable:
    """Return the plan table of a model."""
    if is_eager() or (training and model.run_eagerly):
        raise ValueError(f"{model.name}: there are no plans in eager mode, in which layers run one by one.")
    model._require_layers("plan")
    if sample is None:
        if not model.built or None in model.input_shape[1:]:
            raise ValueError(
                f"{model.name}: plan needs the shape of a sample. Received: input_shape=None, and a model that is "
                f"built for {model.input_shape}. Pass input_shape=(height, width, channels)."
            )
        sample = model.input_shape[1:]
    model.prepare(np.zeros((0, *sample), model.dtype))  # builds the model, or raises if the shape doesn't fit
    with_loss = training and model.compiled and model.loss is not None
    if with_loss:
        plan = example_plan(model, sample)
        if plan is not None:
            return PlanTable([("", plan)], batch_size)
    plans: list[tuple[str, Any]] = []
    for unit in model._units(with_loss and model._fused_loss()[1]):
        if isinstance(unit, SinglePart):
            plans.append((f"in Python: {unit.part.layer.name} ({type(unit.part.layer).__name__})", None))
            sample = tuple(unit.part.layer.compute_output_shape((None, *sample))[1:])
        else:
            plan, sample = unit.plan(tuple(sample), training)
            plans.append(("", plan))
    if with_loss:
        plans.append((f"in Python: {model.loss.name}, and the step of {model.optimizer.name}", None))
    return PlanTable(plans, batch_size)
