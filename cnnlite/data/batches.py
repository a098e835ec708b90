"""Turn what users pass to `fit` (arrays, lists, generators) into batches that a model can take.

A source yields batches (x, y, sample_weight): `Arrays` cuts them out of arrays in memory, `Stream` (streams.py) passes
on those of a generator. `Epochs` decides where an epoch ends, and `samples.py` what is valid.
"""

import warnings
from collections.abc import Mapping

import numpy as np

from cnnlite.data.samples import check_same_length, checked_samples, number_array, output_shape_for
from cnnlite.data.streams import ANEW, Stream, check_same_data, type_name
from cnnlite.random import RandomStream
from cnnlite.support.arguments import is_sparse
from cnnlite.support.floating import conversion
from cnnlite.support.schema import COUNT, check_form


class Arrays:
    """Batches of arrays in memory. The last one may be smaller; nothing is dropped or repeated.

    Only one batch at a time is converted to the model's dtype, into a buffer that the next one reuses: uint8
    images stay uint8, and the arrays themselves are only read.

    A compiled kernel for this would not pay, even if it included a first `Rescaling`. In a training step of 12 ms
    (batches of 128 MNIST images, on one core), gathering and converting the rows takes 0.026 ms, the labels and the
    step's share of the shuffling 0.002, and the layer 0.015: 0.4% together. A compiled loop that gathers, converts and
    scales in one pass took 0.030 ms, with or without the scaling; for 32x32x3 images it took 0.084 ms, against 0.091
    for gathering and converting and 0.064 for the layer.

    Attributes:
        steps: how many batches a pass has.
        samples: how many samples a pass has.
        shape: the shape of x.
        reads_once: whether only one pass is possible.
    """

    reads_once = False
    owner = "fit"

    def __init__(self, x, y, sample_weight, batch_size, dtype):
        self.x, self.y, self.sample_weight = x, y, sample_weight
        self.batch_size, self.dtype = batch_size, np.dtype(dtype)
        self.shape, self.samples = x.shape, len(x)
        self.steps = -(-self.samples // batch_size)

    def get_state(self):
        """Return what must be the same in another process for its batches to be the same."""
        return {"samples": self.samples, "batch_size": self.batch_size}

    def set_state(self, state):
        """Raise a ValueError unless the batches are the same as in the process that returned `state`."""
        check_same_data(self.get_state(), state)

    def on_epoch_begin(self):
        """Do nothing: arrays don't change."""

    on_epoch_end = on_epoch_begin

    def batches(self, random=None, skip=0):
        """Yield (x, y, sample_weight), in order or shuffled by a `RandomStream`, without the first `skip` batches."""
        order = None if random is None else random.generator().permutation(self.samples)
        shape = (min(self.batch_size, self.samples), *self.x.shape[1:])
        buffer = np.empty(shape, self.dtype)
        raw = buffer if self.x.dtype == self.dtype else np.empty(shape, self.x.dtype)
        for start in range(skip * self.batch_size, self.samples, self.batch_size):
            stop = min(start + self.batch_size, self.samples)
            x = buffer[: stop - start]
            rows: slice | np.ndarray = slice(start, stop)
            if order is not None:
                rows = order[start:stop]
            if order is not None and self.x.flags.c_contiguous:
                # Only mode="clip" lets take write directly into its output.
                np.take(self.x, order[start:stop], axis=0, out=raw[: stop - start], mode="clip")
                if raw is not buffer:
                    with conversion():
                        x[...] = raw[: stop - start]
            else:
                with conversion():
                    x[...] = self.x[rows]  # np.take would copy all of a non-contiguous array
            yield x, _rows(self.y, rows), _rows(self.sample_weight, rows)


def _rows(array, rows):
    # A copy, which indexing with an array makes anyway, so that a user's own loss or metric can't change the data.
    if array is None:
        return None
    return array[rows].copy() if isinstance(rows, slice) else array[rows]


class Epochs:
    """The batches of a source, epoch by epoch.

    Args:
        source: an `Arrays` or a `Stream`.
        steps: how many batches make an epoch; None for a whole pass. With `steps`, the next epoch continues
            where the last one ended, and starts a new pass when the source runs out.
        random: the `RandomStream` that shuffles, or None for no shuffling.
        repeats: False stops when the source runs out, so that no sample counts twice.
        epochs: the maximum number of epochs.
    """

    def __init__(self, source, steps=None, random=None, repeats=True, epochs=1):
        self.source, self.random, self.repeats, self.epochs = source, random, repeats, epochs
        self.given_steps = steps
        self.exhausted = False
        self._ended = 0  # finished epochs
        self._pass = iter(())
        self._taken = 0  # batches of the current pass
        self._length = source.steps  # of the current pass
        self._random_before = None  # the random state before the current pass

    @property
    def steps(self):
        """How many batches the next epoch has; None if unknown."""
        return self.source.steps if self.given_steps is None else self.given_steps

    def epoch(self, done=0):
        """Yield the batches of the next epoch; if `set_state` resumed in the middle of it, all but the first `done`.

        Raises:
            ValueError: the data can't be repeated, and none are left.
        """
        self.source.on_epoch_begin()
        if not done:
            self._leave_changed_pass()
        if self.given_steps is None and not done:
            self._begin_pass()
        step = done
        while step != self.given_steps:
            batch = next(self._pass, None)
            if batch is None and self.given_steps is not None and (self.repeats or step == 0):
                self._begin_pass()
                batch = next(self._pass, None)
            if batch is None:
                self._run_out(step)
                break
            self._taken += 1
            yield batch
            step += 1
        self._ended += 1
        self.source.on_epoch_end()
        self._leave_changed_pass()

    def _run_out(self, step):
        """Handle the end of the source after `step` steps of the epoch."""
        if step == 0 and not self.repeats:
            raise ValueError(
                f"{self.source.owner}: the data must yield at least one batch each time they are read. Received: "
                f"nothing, as they had already been read to the end. {ANEW}"
            )
        if step and self.given_steps is None:
            return
        self.exhausted = True
        if self.given_steps is None:
            warnings.warn(
                f"The data ran out after {self._ended} of the {self.epochs} requested epochs. {ANEW}",
                stacklevel=5,
            )
        else:
            warnings.warn(
                f"The data ran out after {step} of the {self.given_steps} requested steps. "
                "Ask for fewer steps or epochs, or let a generator yield forever.",
                stacklevel=5,
            )

    def _begin_pass(self):
        self._random_before = None if self.random is None else self.random.state
        self._pass = self.source.batches(self.random)
        self._taken, self._length = 0, self.source.steps

    def _leave_changed_pass(self):
        """Abandon a pass cut short by `steps` if the length of the data has changed, and with it the indices."""
        if self._length != self.source.steps:
            self._pass, self._taken = iter(()), 0

    def get_state(self, within_epoch):
        """Return the position of the next batch: its pass, and the place within the pass."""
        present = None
        if self._taken and (within_epoch or self.given_steps is not None):
            before = None if self._random_before is None else list(self._random_before)
            present = {"source": self.source.get_state(), "taken": self._taken, "random": before}
        random = None if self.random is None else list(self.random.state)
        return {"random": random, "pass": present, "epochs": self._ended}

    def set_state(self, state):
        """Resume from what `get_state` returned; a ValueError if that was within a pass over different data."""
        pair = ([COUNT], None)
        form = {"random": pair, "pass": ({"source": dict, "taken": COUNT, "random": pair}, None), "epochs": COUNT}
        state = {"epochs": 0, **state}  # earlier versions did not count them
        check_form(state, form, "the position in the data")
        while self._ended < min(state["epochs"], self.epochs):
            # Data that change from epoch to epoch must do so as often as before.
            self._ended += 1
            self.source.on_epoch_begin()
            self.source.on_epoch_end()
        present = state["pass"]
        if present is not None:
            if (present["random"] is None) != (self.random is None):
                raise ValueError(f"the data are {'not ' if self.random is None else ''}shuffled, unlike before")
            self.source.set_state(present["source"])
            random = None
            if self.random is not None:
                random = RandomStream(0)
                random.state = self._random_before = present["random"]
            self._pass = self.source.batches(random, skip=present["taken"])
            self._taken, self._length = present["taken"], self.source.steps
        if state["random"] is not None and self.random is not None:
            self.random.state = state["random"]


def is_stream(x):
    """Return whether x yields batches, rather than being an array or a list of samples."""
    if isinstance(x, (list, tuple, Mapping, str, bytes, np.ndarray)) or hasattr(x, "__array__") or is_sparse(x):
        return False
    return hasattr(x, "__iter__") or (hasattr(x, "__len__") and hasattr(x, "__getitem__"))


def make_source(model, x, y, sample_weight, batch_size, owner, class_weight=None):
    """Return the `Arrays` or `Stream` of data to fit or evaluate, checked before anything is changed."""
    if not is_stream(x):
        x, y, sample_weight = checked_samples(model, x, y, sample_weight, class_weight, owner)
        return Arrays(x, y, sample_weight, batch_size or 32, model.dtype)
    if y is not None or sample_weight is not None:
        given = "y" if y is not None else "sample_weight"
        raise ValueError(
            f"{owner}: {given} must not be given if x yields batches. Received: x=a {type_name(x)}. "
            "Let it yield (x, y) or (x, y, sample_weight)."
        )

    def check(x, y, sample_weight):
        return checked_samples(model, x, y, sample_weight, class_weight, owner)

    return Stream(x, check, model.dtype, owner)


def make_validation_source(model, data, batch_size):
    """Return the source of the `validation_data` of `fit`."""
    owner = "fit (validation)"
    if is_stream(data):
        source = make_source(model, data, None, None, batch_size, owner)
        source.look_again()  # it may also be the training data, which an epoch may change first
        return source
    if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
        form = f"{type_name(data)} of {len(data)}" if isinstance(data, (tuple, list)) else type_name(data)
        raise ValueError(
            "fit: validation_data must be (x, y) or (x, y, sample_weight), or something that yields batches. "
            f"Received: a {form}."
        )
    x, y, sample_weight = (*data, None)[:3]
    return make_source(model, x, y, sample_weight, batch_size, owner)


def make_input_source(model, x, batch_size):
    """Return the source of data to predict: x alone, which may contain NaN."""

    def check(x, y=None, sample_weight=None):
        x = number_array(x, "x", "predict")
        output_shape_for(model, x.shape, "predict")
        return x, None, None

    if is_stream(x):
        return Stream(x, check, model.dtype, "predict")
    x, _, _ = check(x)
    return Arrays(x, None, None, batch_size or 32, model.dtype)


def split_validation(x, y, sample_weight, validation_split):
    """Return ((x, y, w) to train on, (x, y, w) to validate on), which is the tail before any shuffling."""
    if is_stream(x):
        raise ValueError(
            f"fit: validation_split must be 0 if x yields batches. Received: validation_split={validation_split}. "
            "Pass validation_data= instead."
        )
    x = number_array(x, "x", "fit")
    arrays = [x]
    for name, values in (("y", y), ("sample_weight", sample_weight)):
        arrays.append(None if values is None else number_array(values, name, "fit"))
        if values is not None:
            check_same_length(x, arrays[-1], name, "fit")
    samples = len(x)
    kept = int(samples * (1 - validation_split))  # like Keras, which rounds the training part down
    if not 0 < kept < samples:
        raise ValueError(
            f"fit: validation_split must leave samples on both sides. Received: validation_split={validation_split} "
            f"of {samples} samples, {kept} of them for training. Pass validation_data=(x, y) instead."
        )
    return (
        [None if array is None else array[:kept] for array in arrays],
        [None if array is None else array[kept:] for array in arrays],
    )
