"""How far a call of `fit` has got, and the file from which another call resumes it bit for bit.

It is a safetensors file like that of a saved model (saving.py), but with weights and numbers only: the script that
resumes has already made and compiled the same model.

    tensors    weights/conv2d/kernel ...    the weights, and what training changes without a gradient
               optimizer/m ...              the optimizer's vectors
               run/callbacks/...            arrays inside the JSON below
    metadata   run                          JSON: the epoch and the step; the optimizer's numbers; the random states;
                                            which pass over the data is in progress; the sums of the loss and the
                                            metrics; the states of the callbacks, including the history
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from cnnlite.callbacks.history import HISTORY_FORM, History
from cnnlite.files.json_arrays import pack, unpack
from cnnlite.files.model_files import read, write
from cnnlite.files.rollback import all_or_nothing
from cnnlite.files.safetensors_reader import parse_json
from cnnlite.files.saving import (
    assign_weights,
    blaming,
    check_weights,
    optimizer_state,
    random_layers,
    restore_optimizer,
)
from cnnlite.metrics.running_loss import RunningLoss
from cnnlite.nonfinite import is_finite
from cnnlite.support.interrupts import deferred_signals
from cnnlite.support.schema import COUNT, NUMBER, check_form
from cnnlite.types import Logs

if TYPE_CHECKING:
    from cnnlite.layers.flat_parameters import FlatParameters

FORM = {
    "epoch": COUNT, "step": COUNT, "finished": bool, "logs": {str: object}, "sums": ({"total": NUMBER, "samples": COUNT,
    "metrics": {str: object}}, None), "data": dict, "validation": (dict, None), "random": {str: [COUNT]},
    "optimizer_state": dict, "callbacks": {str: object},
}


class Run:
    """A call of `fit` in progress.

    Args:
        model, data, callbacks: the model, the `Epochs` it is trained on, and the `CallbackList`.
        validation: the source of the validation data, or None.
        epoch: the epoch to start with.
        validation_steps: how many batches of the validation data are used; None for all.

    Attributes:
        epoch: the current epoch, or the next one.
        step: how many of its steps are done.
        finished: whether training has ended before the last epoch.
        logs: the logs of the last finished epoch.
        running: the `RunningLoss` of the epoch.
        batch: (x, y, sample_weight) of the current step, in arrays that the next step may overwrite.
        refuses_nonfinite: whether a step is skipped if its loss or its gradient is not finite.
        refused: whether the last step was skipped.
    """

    def __init__(
        self, model: Any, data: Any, validation: Any, callbacks: Any, epoch: int, validation_steps: int | None = None
    ) -> None:
        self.model, self.data, self.validation, self.callbacks = model, data, validation, callbacks
        self.validation_steps, self.first_epoch = validation_steps, epoch
        self.epoch, self.step, self.finished = epoch, 0, False
        self.logs: Logs = {}
        self.running: Any = None
        self.batch: tuple[Any, Any, Any] | None = None
        self.refuses_nonfinite = self.refused = False
        self._sums: Any = None  # those of the steps of this epoch that another process ran

    # Called by fit.

    def begin_steps(self) -> RunningLoss:
        """Return the `RunningLoss` of the epoch, with the sums of the steps done so far."""
        self.running = RunningLoss(self.model.metrics)
        if self._sums is not None:
            self.running.set_state(self._sums)
            self._sums = None
        return self.running

    def refuses(self, loss: float, parameters: FlatParameters) -> bool:
        """Return whether the optimizer must skip a step with this loss and gradient, as a callback has asked."""
        self.refused = self.refuses_nonfinite and not (
            math.isfinite(loss)
            and all(is_finite(parameters.gradient[start:stop]) for start, stop in parameters.trainable_segments())
        )
        return self.refused

    def end_epoch(self, logs: Logs) -> None:
        """Note that an epoch is done, before the callbacks are told."""
        self.epoch, self.step, self.logs, self.running = self.epoch + 1, 0, logs, None

    # Called by BackupAndRestore.

    def save(self, path: str, owner: str) -> None:
        """Write everything that the rest of the run depends on.

        Raises:
            OSError: the file can't be written; the previous one is intact.
            ValueError: a callback or a metric has a state that can't be written.
        """
        model = self.model
        numbers, vectors = optimizer_state(model)
        tensors = {f"weights/{name}": array for name, array in (model.params | model.state).items()} | vectors
        state = {
            "epoch": self.epoch,
            "step": self.step,
            "finished": bool(model.stop_training or self.data.exhausted),
            "logs": self.logs,
            "sums": None if self.running is None else self.running.get_state(),
            "data": self.data.get_state(self.step > 0),
            "validation": self.validation.get_state() if self._reads_validation_once() else None,
            "random": {name: list(layer.random.state) for name, layer in random_layers(model).items()},
            "optimizer_state": numbers,
            "callbacks": self.callbacks.get_state(),
        }
        try:
            text = json.dumps(pack(state, tensors, "run"))
        except TypeError as error:
            raise ValueError(
                f"{owner}: what a callback, a metric or the logs hold must be numbers, strings, arrays, and lists, "
                f"tuples and dicts of them. Received: {error}. Define get_state() and set_state() without it."
            ) from None
        write(path, tensors, {"run": text}, owner)

    def restore(self, path: str, owner: str) -> None:
        """Resume from a file that `save` wrote, or raise and leave everything as it was.

        Only batches already read from a generator can't be put back.

        Raises:
            ValueError: the file is damaged, or belongs to another model, optimizer or data.
        """
        tensors, metadata = read(path, owner)
        if "run" not in metadata:
            raise ValueError(f"{owner}: {path} is not the backup of a run.")
        what = "the backup belongs to another model, optimizer or data"
        model = self.model
        with blaming(path, what):
            state = unpack(parse_json(metadata["run"]), tensors)
            check_form(state, FORM, "the run")
            data, validation = self._where_data_stand(state)
            weights, vectors = ({name.removeprefix(kind): array for name, array in tensors.items()
                                 if name.startswith(kind)} for kind in ("weights/", "optimizer/"))
            check_weights(model, weights, path, owner)
            layers = random_layers(model)
            if set(layers) != set(state["random"]):
                raise ValueError(f"it has the random states of {', '.join(state['random']) or 'no layer'}")
            names = {metric.name for metric in model.metrics}
            if state["sums"] is not None and names != set(state["sums"]["metrics"]):
                raise ValueError(f"it has sums of the metrics {', '.join(state['sums']['metrics']) or 'none'}")
        streams = [layer.random for layer in layers.values()]
        arrays = (model.params | model.state).values()
        with all_or_nothing(
            *arrays, *streams, model.optimizer, *model.metrics, self.data, others=self.callbacks.flat(),
            largest=2 * sum(array.nbytes for array in arrays),  # large enough for float64 averages of the weights
            layers=[*model.walk()],
        ):
            with blaming(path, what), deferred_signals():
                if state["sums"] is not None:
                    RunningLoss(model.metrics).set_state(state["sums"])
                restore_optimizer(model, state, vectors)
                assign_weights(model, weights, path, owner)
                for name, layer in layers.items():
                    layer.random.state = state["random"][name]
                self.callbacks.set_state(state["callbacks"])
            # Last, since reading may take a long time.
            with blaming(path, what, reading_data=True):
                self.data.set_state(data)
                _check_steps(state["step"], self.data.steps)
                if validation is not None:
                    self.validation.set_state(validation)
        self.epoch, self.step, self.logs = state["epoch"], state["step"], state["logs"]
        self._sums = state["sums"]
        self.finished = state["finished"] and not self.step
        model.stop_training = state["finished"]

    def _where_data_stand(self, state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Return the positions in the data and the validation data from a state; a ValueError if they can't be right.

        Batches that were read from a generator are read again, so the file's count of them is checked against the
        number of epochs in its history, which the size of the file limits.
        """
        step, steps = state["step"], self.data.steps
        if self.data.given_steps is not None:  # otherwise the hooks of the data may still change it
            _check_steps(step, steps)
        name = [name for name, callback in self.callbacks.named() if isinstance(callback, History)][-1]
        history = state["callbacks"].get(name, {"history": {}, "epoch": []})
        check_form(history, HISTORY_FORM, "the history")
        epochs = len(history["epoch"])
        if state["epoch"] > self.first_epoch + epochs:
            raise ValueError(f"it has run {state['epoch']} epochs, but its history has {epochs}")
        data, validation = state["data"], state["validation"] if self._reads_validation_once() else None
        if state["epoch"] >= self.callbacks.params["epochs"] or (state["finished"] and not step):
            return {**data, "pass": None}, None  # nothing more will be read
        present = data.get("pass")
        if step and present is None:
            raise ValueError(f"it is {step} steps into an epoch, but has no position in the data")
        if present is not None:
            check_form(present, {"source": dict, "taken": COUNT, "random": object}, "the position in the data")
            check_form(present["source"].get("read", 0), COUNT, "what has been read of the data")
            most = step if steps is None else epochs * steps + step
            _check_batches(max(present["taken"], present["source"].get("read", 0)), most)
        if validation is not None and self.validation_steps is not None:
            check_form(validation.get("read", 0), COUNT, "what has been read of the validation data")
            _check_batches(validation.get("read", 0), epochs * self.validation_steps)
        return data, validation

    def _reads_validation_once(self) -> bool:
        return self.validation is not None and self.validation.reads_once


def _check_steps(step: int, steps: int | None) -> None:
    if steps is not None and step > steps:
        raise ValueError(f"it has run {step} steps of an epoch of {steps}")


def _check_batches(number: int, most: int) -> None:
    if number > most:
        raise ValueError(f"it has read {number} batches of the data for {most} steps")
