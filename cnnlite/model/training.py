"""fit: the loops over epochs and batches; nothing here is specific to one kind of layer.

`Trainer.train_step` is the whole of training: forward, loss, backward, regularisation, optimizer step. The
rest repeats it over batches from `data/batches.py`, shows progress with `progress.py`, and calls the `callbacks`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cnnlite import optimizers
from cnnlite.callbacks import Callback, CallbackList, History, TerminateOnNaN
from cnnlite.callbacks.run_state import Run
from cnnlite.data.batches import Epochs, make_source, make_validation_source, split_validation
from cnnlite.data.samples import checked_samples, optional_integer
from cnnlite.layers.memo import Memo
from cnnlite.layers.pass_memory import deferred_commits, run_deferred_commits, separate_memory
from cnnlite.metrics.preserved import preserved_counts
from cnnlite.metrics.running_loss import RunningLoss
from cnnlite.model.evaluation import Evaluator
from cnnlite.model.passes import MEMORIES_KEPT, Segment
from cnnlite.model.progress import Progress, verbosity
from cnnlite.model.training_step import StepPlan, step_being_recorded, step_plan
from cnnlite.random import RandomStream
from cnnlite.support.arguments import boolean, float_array, integer, number
from cnnlite.support.floating import arithmetic
from cnnlite.support.interrupts import deferred_signals
from cnnlite.support.locks import used_by_one_thread
from cnnlite.types import Array, ArrayLike, Data, Logs, Scores, Shape


class Trainer(Evaluator):
    """What makes a stack of layers a model: it can be compiled, trained, evaluated, and used to predict.

    Attributes:
        history: the `History` of the last `fit`, available while it is still running.
        stop_training: a callback sets it to True to end `fit` after the current batch.
        shuffle_random: the `RandomStream` that shuffles the samples; None before the first `fit`.
        training_run: the state of the `fit` in progress; None otherwise.
    """

    history: Any = None
    stop_training = False
    shuffle_random: RandomStream | None = None
    training_run: Run | None = None

    def train_step(self, x: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> tuple[float, Array]:
        """Take one step of gradient descent on one batch; return its loss and what the loss was computed from.

        A loss that is fused with the last activation takes the logits: log(softmax(z)) is exact where softmax(z)
        has been rounded to 0. The loss is the mean over the batch, plus the penalties of the regularizers.
        """
        loss, fused = self._fused_loss()
        z = self.forward_logits(x, training=True) if fused else self.forward(x, training=True)
        value, dz = loss.value_and_gradient(y, z, sample_weight)
        value = self.add_penalties(value)
        self.backward_weights(dz, from_logits=fused)
        self.add_regularization_gradients()
        self.take_step(value)
        return value, z

    def take_step(self, loss: Any) -> None:
        """Let the optimizer take a step, unless a callback refuses this loss and gradient."""
        step = step_being_recorded()
        if step is not None:
            step.add_update(loss)
            return
        # A user's own optimizer may keep the vector, and write to it at any time.
        is_ours, run = optimizers.is_traceable(self.optimizer), self.training_run
        parameters = self._parameters() if is_ours else self.parameters()
        if run is None or not run.refuses(loss, parameters):
            with deferred_signals():
                self.optimizer.step(parameters)
                run_deferred_commits()

    def fit(
        self,
        x: Data | None = None,
        y: Data | None = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: int | str = "auto",
        callbacks: Callback | Sequence[Callback] | None = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: ArrayLike | None = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | Sequence[int] = 1,
    ) -> History:
        """Train the model.

        Args:
            x: samples (N, ...) of any numeric dtype; each batch is converted to the model's dtype. Or something that
                yields batches (x, y) or (x, y, sample_weight): a generator, which can be read only once; another
                iterable; or an object with `__len__` and `__getitem__`, whose batches are shuffled. Its length may
                change from epoch to epoch. If it has methods `on_epoch_begin` and `on_epoch_end` without arguments,
                they are called before and after the batches of every epoch.
            y: targets (N, ...), in the form that the loss takes.
            batch_size: how many samples a step takes, by default 32. The last batch may be smaller.
            epochs: the number of the last epoch, counted from 1.
            verbose: 1 or "auto" draws a progress bar and leaves a line for each epoch, 2 writes only the lines,
                0 is silent. A file gets only lines.
            callbacks: a list of `cnnlite.callbacks.Callback`.
            validation_split: the fraction, from 0 to below 1, of the samples to validate on. It is the tail of x
                and y, taken before any shuffling: shuffle data first if they are sorted by class.
            validation_data: (x, y) or (x, y, sample_weight) to validate on, or something that yields batches;
                overrides `validation_split`.
            shuffle: whether every epoch takes the samples in a new random order.
            class_weight: a dict from class to the weight of its samples in the loss.
            sample_weight: weights (N,) of the samples in the loss, which is still divided by the number of samples.
            initial_epoch: the epoch to begin with, counted from 0, to continue an earlier run. If it is `epochs` or
                more, nothing is trained.
            steps_per_epoch: how many batches make an epoch; by default all. The next epoch continues where this one
                stopped; data that run out start over. (Keras ends the epoch there, with a warning.)
            validation_steps: how many batches of the validation data to use; by default all.
            validation_batch_size: by default `batch_size`.
            validation_freq: validate after every epoch whose number, counted from 1, is a multiple of this; or a
                list of the numbers of the epochs to validate after.

        Returns:
            a `History`, with the loss and the metrics of each epoch.

        Raises:
            ValueError, TypeError: the data or an argument is not as above; raised before anything is changed. Only data
                that yield batches can fail later: by a bad batch, or if no validation data are left.
            RuntimeError: another thread is training this model, or one that shares layers with it.
        """
        self._require_loss("fit")
        verbose = verbosity(verbose, "fit")
        epochs = integer(epochs, "epochs", "fit")
        initial_epoch = integer(initial_epoch, "initial_epoch", "fit", minimum=0)
        batch_size = optional_integer(batch_size, "batch_size", "fit")
        validates_after = _validation_epochs(validation_freq)
        validation_split = number(validation_split, "validation_split", "fit", minimum=0, below=1)
        if validation_data is None and validation_split:
            (x, y, sample_weight), validation_data = split_validation(x, y, sample_weight, validation_split)
        source = make_source(self, x, y, sample_weight, batch_size, "fit", class_weight)
        steps = optional_integer(steps_per_epoch, "steps_per_epoch", "fit")
        _check_readings(source, steps, epochs - initial_epoch, "steps_per_epoch")
        validation = None
        if validation_data is not None:
            size = optional_integer(validation_batch_size, "validation_batch_size", "fit") or batch_size
            validation = make_validation_source(self, validation_data, size)
            validation_steps = optional_integer(validation_steps, "validation_steps", "fit")
            times = sum(map(validates_after, range(initial_epoch, epochs)))
            _check_readings(validation, validation_steps, times, "validation_steps")
        shuffles = boolean(shuffle, "shuffle", "fit")
        callbacks = CallbackList(callbacks, owner="fit")
        history = History()
        callbacks.append(history)

        with used_by_one_thread("fit", self._what_trains()) as in_use, preserved_counts(in_use):
            self._get_ready(source.shape)
            if shuffles and self.shuffle_random is None:
                self.shuffle_random = RandomStream()
            data = Epochs(source, steps, self.shuffle_random if shuffles else None, epochs=epochs - initial_epoch)
            params = {"verbose": verbose, "epochs": epochs, "steps": data.steps}
            callbacks.set_params(params)
            callbacks.set_model(self)
            outer = self.training_run if any(thing is self for thing in in_use) else None
            outer_history, outer_stops = self.history, self.stop_training
            self.stop_training = False
            watch = _LossWatch(callbacks)
            progress = None
            try:
                run = self.training_run = Run(self, data, validation, callbacks, initial_epoch, validation_steps)
                callbacks.on_train_begin()
                logs = run.logs
                for epoch in () if run.finished else range(run.epoch, epochs):
                    params["steps"] = data.steps  # the data may change it from epoch to epoch
                    progress = Progress(f"Epoch {epoch + 1}/{epochs}", data.steps, verbose)
                    callbacks.on_epoch_begin(epoch)
                    values = self._train_epoch(epoch, data, callbacks, progress, watch)
                    if not progress.steps_done:
                        break
                    logs = values
                    if validation is not None and validates_after(epoch):
                        progress.steps_end(logs, then="validating")
                        validation_epoch = Epochs(validation, validation_steps, repeats=False)
                        values = self._test_epoch(validation_epoch, callbacks)
                        logs = {**logs, **{f"val_{name}": value for name, value in values.items()}}
                    progress.finish(logs)
                    run.end_epoch(logs)
                    callbacks.on_epoch_end(epoch, logs)
                    if self.stop_training or data.exhausted:
                        break
                callbacks.on_train_end(logs)
            finally:
                with deferred_signals():
                    if progress is not None:
                        progress.close()
                    self.training_run = outer
                    if outer is not None:  # an outer fit, whose callback called this one
                        self.history, self.stop_training = outer_history, outer_stops
                    self._release_memory(all_of_it=outer is None)
        return history

    def _train_epoch(
        self,
        epoch: int,
        data: Epochs,
        callbacks: CallbackList,
        progress: Progress,
        watch: _LossWatch,
    ) -> Logs:
        """Take a step for every batch of one epoch; return the loss and the metrics over all of them."""
        run: Any = self.training_run
        running = run.begin_steps()
        progress.steps_done = run.step
        if run.step and self.stop_training:
            return running.logs()
        shows_batches = callbacks.listens("on_train_batch_end")
        for step, (x, y, sample_weight) in enumerate(data.epoch(run.step), run.step):
            run.batch = x, y, sample_weight
            callbacks.on_train_batch_begin(step)
            loss, z = self._make_step(x, y, sample_weight)
            running.add(loss, len(x))
            self._update_metrics(y, z, sample_weight)
            run.step = step + 1
            watch.look_at(loss, epoch, step)
            if progress.step(len(x)):
                progress.show(running.logs())
            if shows_batches:
                callbacks.on_train_batch_end(step, running.logs())
            if self.stop_training:
                break
        return running.logs()

    def train_on_batch(
        self,
        x: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        class_weight: Mapping[int, float] | None = None,
        return_dict: bool = False,
    ) -> Scores:
        """Take one step on one batch, and return its loss and metrics as `evaluate` does.

        The values are for this batch alone, with the weights before the step.
        """
        self._require_loss("train_on_batch")
        x, y, sample_weight = checked_samples(self, x, y, sample_weight, class_weight, "train_on_batch")
        # Signals are deferred here already: the outermost such block costs 10 us, a nested one hardly anything.
        with (
            used_by_one_thread("train_on_batch", self._what_trains()) as in_use, preserved_counts(in_use),
            deferred_signals(second_passes=True),
        ):
            self._get_ready(x.shape)
            running = RunningLoss(self.metrics)
            run = self.training_run  # the run of a fit whose callback calls this, or None
            refused = run is not None and run.refused
            try:
                x = float_array(x, self.dtype, "x", self.name)
                loss, z = self._make_step(x, y, sample_weight, is_own=False)
                running.add(loss, len(x))
                self._update_metrics(y, z, sample_weight)
            finally:
                if run is not None:
                    run.refused = refused
                self._release_memory()
        return self._values(running.logs(), return_dict)

    def _what_trains(self) -> list[Any]:
        """Return what a step changes, so that only one thread may use it: layers, metrics, the optimizer."""
        return [*self.walk(), *self.metrics, self.optimizer]

    def _get_ready(self, shape: Shape) -> None:
        """Create what does not exist yet: weights for an x of that shape, their vector, the optimizer's slots."""
        with deferred_signals():
            if not self.built:
                self.build((None, *shape[1:]))
            self.optimizer.build(self._parameters())

    def _make_step(
        self, x: Array, y: Array, sample_weight: Array | None, is_own: bool = True
    ) -> tuple[float, Array]:
        """Take a step, and commit what the layers have learned without a gradient, unless the step was refused.

        Signals wait for the end of the step. A second Ctrl-C waits only for the compiled code, or for the optimizer's
        step, which also updates the moving averages of BatchNorm.
        """
        run = self.training_run
        # If a model diverges, _LossWatch says so once; NumPy would warn for every array.
        with deferred_signals(second_passes=True), arithmetic(), self._mode(), deferred_commits(), separate_memory():
            if run is not None:
                run.refused = False
            plan = step_plan(self, x, y, sample_weight)
            if plan is not None:
                return plan.run(x, y, sample_weight)
            # Unlike a plan, a user's layer may write to its input, or keep it; x may be the caller's own array.
            result = self.train_step(x if is_own else x.copy(), y, sample_weight)
            if run is None or not run.refused:
                with deferred_signals():
                    run_deferred_commits()  # for a `train_step` that bypasses `take_step`
        return result

    def _release_memory(self, all_of_it: bool = False) -> None:
        """Drop what layers remember of a batch; with `all_of_it`, also the memory that plans ran in."""
        for layer in self.walk():
            if layer._memory is not None:
                layer._memory = None
            memo = getattr(layer, "_memo", None)
            for found in memo.values() if isinstance(memo, Memo) else ():
                for made in found if isinstance(found, list) else [found]:
                    if isinstance(made, Segment):
                        made.release(0 if all_of_it else MEMORIES_KEPT)
                    elif isinstance(made, StepPlan) and all_of_it:
                        made.release()


class _LossWatch:
    """Warns once if the loss is no longer finite, unless a callback deals with that."""

    def __init__(self, callbacks: CallbackList) -> None:
        self.is_on = not any(isinstance(callback, TerminateOnNaN) for callback in callbacks.callbacks)

    def look_at(self, loss: float, epoch: int, step: int) -> None:
        if self.is_on and not math.isfinite(loss):
            self.is_on = False
            warnings.warn(
                f"fit: the loss is {loss} in epoch {epoch + 1} at step {step + 1}, and the weights are no longer "
                "usable. Try a smaller learning rate or an optimizer with clipnorm=1.0; the callback TerminateOnNaN "
                "ends training when this happens.",
                stacklevel=4,
            )


def _validation_epochs(validation_freq: int | Iterable[int]) -> Callable[[int], bool]:
    """Return a function that says whether an epoch, counted from 0, ends with a validation."""
    if isinstance(validation_freq, (list, tuple, set, range)):
        epochs = {integer(epoch, "validation_freq", "fit") for epoch in validation_freq}
        return lambda epoch: epoch + 1 in epochs
    every = integer(validation_freq, "validation_freq", "fit")
    return lambda epoch: (epoch + 1) % every == 0


def _check_readings(source: Any, steps: int | None, times: int, name: str) -> None:
    """Raise a ValueError if data that can be read only once would have to be read several times."""
    if source.reads_once and steps is None and times > 1:
        raise ValueError(
            f"fit: a generator can be read only once, unless {name} says how much of it to take. "
            f"Received: {times} epochs that would read it. Pass {name}=, or an object with __len__ and __getitem__."
        )
