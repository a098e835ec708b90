"""evaluate and predict: forward passes in inference mode."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np

from cnnlite.callbacks import Callback, CallbackList
from cnnlite.data.batches import Epochs, make_input_source, make_source
from cnnlite.data.samples import checked_samples, number_array, optional_integer
from cnnlite.metrics.preserved import preserved_counts
from cnnlite.metrics.running_loss import RunningLoss
from cnnlite.model.compiling import Compiled
from cnnlite.model.progress import Progress, verbosity
from cnnlite.support.floating import arithmetic, conversion
from cnnlite.support.locks import used_by_one_thread
from cnnlite.types import Array, ArrayLike, Data, Logs, Scores


class Evaluator(Compiled):
    """The part of a model that runs forward only, in inference mode."""

    def test_step(self, x: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> tuple[float, Array]:
        """Return what `train_step` returns, in inference mode and without changing anything."""
        loss, fused = self._fused_loss()
        z = self.forward_logits(x) if fused else self.forward(x)
        return loss(y, z, sample_weight) + self.regularization_loss(), z

    def evaluate(
        self,
        x: Data | None = None,
        y: Data | None = None,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        sample_weight: ArrayLike | None = None,
        steps: int | None = None,
        callbacks: Callback | Sequence[Callback] | None = None,
        return_dict: bool = False,
    ) -> Scores:
        """Return the loss and the metrics on data, in inference mode; nothing in the model changes.

        A callback of `fit` or `evaluate` may call this: what their metrics have accumulated is restored afterwards.

        Args:
            x, y, sample_weight, batch_size, verbose, callbacks: as for `fit`.
            steps: how many batches to use; by default all.
            return_dict: True returns a dict keyed by name; default False.

        Returns:
            the loss as a float if there are no metrics; otherwise a list in the order of `metrics_names`.

        Raises:
            ValueError: the model has no layers or no loss, or x, y and sample_weight don't fit it or each other.
            TypeError: x, y or sample_weight is not numeric.
            RuntimeError: another thread is using the same metrics.
        """
        self._require_loss("evaluate")
        verbose = verbosity(verbose, "evaluate")
        batch_size = optional_integer(batch_size, "batch_size", "evaluate")
        source = make_source(self, x, y, sample_weight, batch_size, "evaluate")
        data = Epochs(source, optional_integer(steps, "steps", "evaluate"), repeats=False)
        callbacks = CallbackList(callbacks, self, "evaluate", verbose=verbose, epochs=1, steps=data.steps)
        progress = Progress("Evaluate", data.steps, verbose)
        with (
            contextlib.closing(progress), used_by_one_thread("evaluate", self.metrics) as in_use,
            preserved_counts(in_use)
        ):
            logs = self._test_epoch(data, callbacks, progress)
            progress.finish(logs)
        return self._values(logs, return_dict)

    def _test_epoch(self, data: Epochs, callbacks: CallbackList, progress: Progress | None = None) -> Logs:
        """Return the loss and the metrics over the batches of `data`."""
        running = RunningLoss(self.metrics)
        callbacks.on_test_begin()
        for step, (x, y, sample_weight) in enumerate(data.epoch()):
            callbacks.on_test_batch_begin(step)
            with arithmetic(), self._mode():
                loss, z = self.test_step(x, y, sample_weight)
            running.add(loss, len(x))
            self._update_metrics(y, z, sample_weight)
            if progress is not None and progress.step(len(x)):
                progress.show(running.logs())
            if callbacks.listens("on_test_batch_end"):
                callbacks.on_test_batch_end(step, running.logs())
        logs = running.logs()
        callbacks.on_test_end(logs)
        return logs

    def predict(
        self,
        x: Data,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        steps: int | None = None,
        callbacks: Callback | Sequence[Callback] | None = None,
    ) -> Array:
        """Return the outputs for x, in the same order, as a new array.

        Several threads may predict with one model at the same time. While another thread trains it, some of the
        weights used may be one step older than others.

        Args:
            x: samples (N, ...), or something that yields batches of x.
            batch_size: how many samples to compute at a time, by default 32; more samples need more memory.
            verbose: 1 or "auto" draws a progress bar in a terminal or a notebook; no line is left behind.
            steps: how many batches to use; by default all.
            callbacks: as for `fit`.

        Raises:
            ValueError: the model has no layers, x doesn't fit it, or the outputs of the batches differ in shape.
            TypeError: x is not numeric.
        """
        self._require_layers("predict")
        verbose = verbosity(verbose, "predict")
        source = make_input_source(self, x, optional_integer(batch_size, "batch_size", "predict"))
        data = Epochs(source, optional_integer(steps, "steps", "predict"), repeats=False)
        callbacks = CallbackList(callbacks, self, "predict", verbose=verbose, epochs=1, steps=data.steps)
        outputs = []
        callbacks.on_predict_begin()
        with contextlib.closing(Progress("Predict", data.steps, verbose, line=False)) as progress:
            for step, (batch, _, _) in enumerate(data.epoch()):
                callbacks.on_predict_batch_begin(step)
                # A copy: a model that only reshapes returns a view of the batch, whose memory the next batch reuses.
                with arithmetic(), self._mode():
                    outputs.append(self.forward(batch).copy())
                if progress.step(len(batch)):
                    progress.show({})
                callbacks.on_predict_batch_end(step, {"outputs": outputs[-1]})
        callbacks.on_predict_end()
        shapes = {output.shape[1:] for output in outputs}
        if len(shapes) > 1:
            raise ValueError(
                "predict: the outputs of all batches must have the same shape to form one array. Received: the shapes "
                f"{', '.join(map(str, sorted(shapes)))}. Call predict_on_batch for each batch."
            )
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs)

    def test_on_batch(
        self,
        x: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        return_dict: bool = False,
    ) -> Scores:
        """Return the loss and the metrics of one batch, as `evaluate` does, with the same arguments and errors."""
        self._require_loss("test_on_batch")
        x, y, sample_weight = checked_samples(self, x, y, sample_weight, owner="test_on_batch")
        with used_by_one_thread("test_on_batch", self.metrics) as in_use, preserved_counts(in_use):
            running = RunningLoss(self.metrics)
            with conversion():
                x = np.array(x, dtype=self.dtype, order="C")
            with arithmetic(), self._mode():
                loss, z = self.test_step(x, y, sample_weight)
            running.add(loss, len(x))
            self._update_metrics(y, z, sample_weight)
            return self._values(running.logs(), return_dict)

    def predict_on_batch(self, x: ArrayLike) -> Array:
        """Return the outputs (N, ...) for one batch x (N, ...) as a new array; the errors are those of `predict`."""
        x = number_array(x, "x", "predict_on_batch")
        return self.predict(x, batch_size=len(x), verbose=0)
