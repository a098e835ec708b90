"""Data objects that read on where they stood, end, change from epoch to epoch or fail: each batch is read once."""

import numpy as np
import pytest

from cnnlite.callbacks import BackupAndRestore, Callback, EarlyStopping, LambdaCallback
from cnnlite.data.batches import Epochs, Stream
from cnnlite.random import RandomStream
from tests.helpers.models import make_data, make_model, weights_of
from tests.helpers.runs import Crash, CrashAt, dropout_model, everything

X, Y = make_data()
BATCHES = [(X[i : i + 10], Y[i : i + 10]) for i in range(0, 50, 10)]


class Delegating:
    """Its __iter__ is a generator that goes on with another one."""

    def __init__(self, batches):
        self.generator = (batch for batch in batches)

    def __iter__(self):
        yield from self.generator


class Looping(Delegating):
    """As tqdm(generator): what is left can be read on, when a pass was not read to its end."""

    def __iter__(self):
        for batch in self.generator:  # noqa: UP028
            yield batch


class SameIterator(Delegating):
    def __iter__(self):
        return self.generator


class StreamInGetitem(Delegating):
    """Has a length and an index, and pays no heed to the index."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return next(self.generator)


class LengthAlone:
    """A loader: it can be read anew, has a length and no index."""

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


def tqdm_of(batches):
    from tqdm.std import tqdm

    return tqdm((batch for batch in batches), disable=True)


READ_ON = [Delegating, Looping, SameIterator, StreamInGetitem, LengthAlone, tqdm_of, iter,
           lambda batches: map(lambda batch: batch, batches), lambda batches: (batch for batch in batches)]
NAMES = ["delegating", "looping", "same iterator", "getitem", "length alone", "tqdm", "iterator", "map", "generator"]


@pytest.mark.parametrize("make", READ_ON, ids=NAMES)
def test_each_batch_of_what_reads_on_is_read_once(make):
    expected, model = make_model(optimizer="adam"), make_model(optimizer="adam")
    losses = expected.fit(LengthAlone(BATCHES), verbose=0).history
    assert model.fit(make(BATCHES), verbose=0, shuffle=False).history == losses
    np.testing.assert_array_equal(weights_of(model), weights_of(expected))
    assert model.optimizer.iterations == 5
    assert model.evaluate(make(BATCHES), verbose=0) == expected.evaluate(LengthAlone(BATCHES), verbose=0)
    predicted = model.predict(make([x for x, _ in BATCHES]), verbose=0)
    np.testing.assert_array_equal(predicted, expected.predict(X, batch_size=10, verbose=0))


@pytest.mark.parametrize("make", READ_ON[:3] + READ_ON[5:], ids=NAMES[:3] + NAMES[5:])
def test_steps_go_on_in_what_reads_on(make):
    seen = []
    model = make_model()
    note = LambdaCallback(on_train_batch_end=lambda *_: seen.append(model.training_run.batch[1][0]))
    model.fit(make([(X[:2], np.full(2, i % 3)) for i in range(6)]), steps_per_epoch=2, epochs=3, verbose=0,
              callbacks=[note])
    assert seen == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("make", READ_ON[:3] + READ_ON[5:], ids=NAMES[:3] + NAMES[5:])
def test_nothing_left_is_an_error_with_a_remedy(make):
    empty = make([])
    for call in (lambda m: m.fit(empty, verbose=0), lambda m: m.evaluate(empty, verbose=0),
                 lambda m: m.predict(empty, verbose=0),
                 lambda m: m.fit(X, Y, validation_data=empty, validation_steps=1, verbose=0)):
        model = make_model()
        with pytest.raises(ValueError, match=r"must yield at least one batch.*yields nothing\. A generator can be"):
            call(model)
        assert model.optimizer.iterations == 0
    whole = make(BATCHES)
    make_model().evaluate(whole, verbose=0)
    with pytest.raises(ValueError, match="yields nothing"):
        make_model().evaluate(whole, verbose=0)


@pytest.mark.parametrize("make", [*READ_ON[:3], tqdm_of], ids=[*NAMES[:3], "tqdm"])
def test_data_that_end_with_an_epoch_end_training_with_a_warning(make):
    model, ends = make_model(), []
    with pytest.warns(UserWarning, match="ran out after 1 of the 4 requested epochs. A generator can be"):
        history = model.fit(make(BATCHES), epochs=4, verbose=0, callbacks=[LambdaCallback(on_train_end=ends.append)])
    assert model.optimizer.iterations == 5
    assert history.epoch == [0]
    assert ends == [{name: values[-1] for name, values in history.history.items()}]


@pytest.mark.parametrize("make", READ_ON[:3] + READ_ON[5:7], ids=NAMES[:3] + NAMES[5:7])
def test_validation_data_that_end_are_no_loss_of_zero(make):
    model = make_model()
    best = EarlyStopping(monitor="val_loss", patience=10)
    with pytest.raises(ValueError, match=r"must yield at least one batch each time.*read to the end"):
        model.fit(X, Y, validation_data=make(BATCHES[:4]), validation_steps=2, epochs=6, verbose=0, callbacks=[best])
    values = model.history.history["val_loss"]
    # What delegates to a generator closes it where a pass is left before its end; tqdm does so in some versions.
    assert len(values) in {Delegating: [1], tqdm_of: [1, 2]}.get(make, [2])
    assert min(values) > 0
    assert best.best == min(values)


def test_the_users_own_errors_come_through():
    def fails():
        yield BATCHES[0]
        raise OSError("the disk is gone")

    class Fails(LengthAlone):
        def __getitem__(self, index):
            return {0: BATCHES[0]}[index]

    class Ends(LengthAlone):
        def __getitem__(self, index):
            return BATCHES[:2][index]

    for data, error, text in ((fails(), OSError, "the disk is gone"), (Fails(BATCHES), KeyError, "[1-4]"),
                              (Ends(BATCHES), IndexError, "list index out of range")):
        with pytest.raises(error, match=text):
            make_model().fit(data, verbose=0)


@pytest.mark.parametrize("seed", range(3))
def test_a_source_may_put_each_batch_into_the_same_arrays(seed):
    class Buffers:
        x, y, weights = np.zeros((2, 1)), np.zeros(2, int), np.zeros(2)

        def __len__(self):
            return 5

        def __getitem__(self, index):
            for array in (self.x, self.y, self.weights):
                array[...] = index
            return self.x, self.y, self.weights

    source = Stream(Buffers(), lambda *parts: parts, "float32", "fit")
    order = [{int(part.ravel()[0]) for part in batch} for batch in source.batches(RandomStream(seed))]
    assert order != [{index} for index in range(5)]
    assert sorted(order, key=min) == [{index} for index in range(5)]


def test_a_length_that_is_no_integer_is_refused():
    class Odd:
        def __len__(self):
            return 2.5

        def __getitem__(self, index):
            return BATCHES[index]

    with pytest.raises(TypeError, match=r"length of x must be the number of its batches, an integer.*'float' object"):
        make_model().fit(Odd(), verbose=0)


# What changes from epoch to epoch.


class Data:
    """As Keras's PyDataset."""

    def __init__(self, lengths=(5,)):
        self.calls, self.lengths, self.ended = [], lengths, 0

    def __len__(self):
        return self.lengths[min(self.ended, len(self.lengths) - 1)]

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(index)
        self.calls.append(index)
        x, y = BATCHES[(index + self.ended) % 5]
        return x + 0.01 * self.ended, y

    def on_epoch_end(self):
        self.calls.append("end")
        self.ended += 1


class Watched(Data):
    def on_epoch_begin(self):
        self.calls.append("begin")


def test_data_hear_of_the_end_of_each_epoch_before_its_validation():
    data, validation = Data(), Data((2,))
    model = make_model()
    note = LambdaCallback(on_test_begin=lambda *_: validation.calls.append(data.calls[-1]))
    model.fit(data, epochs=2, shuffle=False, verbose=0, validation_data=validation, callbacks=[note])
    assert data.calls == [0, 1, 2, 3, 4, "end", 0, 1, 2, 3, 4, "end"]
    assert validation.calls == [0, "end", 0, 1, "end", "end", 0, 1, "end"]  # the first is the look at it
    for call in (model.evaluate, model.predict):
        data = Data((2,))
        call(data, verbose=0)
        assert data.calls == [0, 1, "end"]


def test_data_hear_of_the_beginning_too():
    data = Watched((2,))
    make_model().fit(data, epochs=2, shuffle=False, verbose=0)
    assert data.calls == [0, "begin", 0, 1, "end", "begin", 0, 1, "end"]  # the first is the look at it


def test_data_that_validate_what_they_train_are_those_of_that_time():
    data, validated = Data(), []
    model = make_model()
    note = LambdaCallback(on_test_begin=lambda *_: validated.append(data.calls.count("end")))
    history = model.fit(data, shuffle=False, verbose=0, validation_data=data, callbacks=[note])
    assert validated == [1]
    data = Data()
    data.ended = 1
    assert history.history["val_loss"] == [model.evaluate(data, verbose=0)[0]]


class DataAndCallback(Data, Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(epoch)


class TakesEpoch(Data):
    def on_epoch_begin(self, epoch):
        raise AssertionError


@pytest.mark.parametrize("kind", [DataAndCallback, TakesEpoch])
def test_a_hook_that_takes_an_epoch_is_none_of_the_data(kind):
    data = kind()
    callbacks = [data] if isinstance(data, Callback) else []
    make_model().fit(data, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)
    ends = [0, 1] if callbacks else ["end", "end"]
    assert data.calls == [0, 1, 2, 3, 4, ends[0], 0, 1, 2, 3, 4, ends[1]]


def test_data_hear_of_the_end_of_what_steps_make_an_epoch():
    data = Data((3,))
    make_model().fit(data, epochs=3, steps_per_epoch=2, shuffle=False, verbose=0)
    assert data.calls == [0, 1, "end", 2, 0, "end", 1, 2, "end"]


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_length_that_changes_is_that_of_the_next_epoch(shuffle):
    data, model, steps = Data((2, 4, 1)), make_model(), []
    note = LambdaCallback(on_epoch_begin=lambda *_: steps.append(note.params["steps"]))
    model.fit(data, epochs=4, shuffle=shuffle, verbose=0, callbacks=[note])
    epochs = [sorted(part.split()) for part in " ".join(map(str, data.calls)).split("end")]
    assert epochs == [["0", "1"], ["0", "1", "2", "3"], ["0"], ["0"], []]
    assert steps == [2, 4, 1, 1]


def test_data_that_become_empty_end_training_with_a_warning():
    model = make_model()
    with pytest.warns(UserWarning, match="ran out after 1 of the 3 requested epochs"):
        assert model.fit(Data((2, 0)), epochs=3, verbose=0).epoch == [0]


@pytest.mark.parametrize("steps", [None, 2])
@pytest.mark.parametrize("save_freq", ["epoch", 1])
def test_a_run_that_is_resumed_finds_data_that_changed_as_often(tmp_path, save_freq, steps):
    def run(*callbacks):
        model = dropout_model(1)
        try:
            model.fit(Data((2, 4, 3)), epochs=4, steps_per_epoch=steps, verbose=0, callbacks=list(callbacks))
        except Crash:
            return None
        return everything(model)

    expected = run()
    for number in (3, 5, 7):
        folder = tmp_path / str(number)
        assert run(BackupAndRestore(folder, save_freq), CrashAt("on_train_batch_end", number)) is None
        assert run(BackupAndRestore(folder, save_freq)) == expected


def test_the_epochs_of_a_backup_are_repeated_as_far_as_there_are_any():
    def data():
        return Epochs(Stream(Watched((3,)), lambda *parts: parts, "float32", "fit"), epochs=4)

    ended = data()
    for _ in range(2):
        list(ended.epoch())
    state = ended.get_state(within_epoch=False)
    for epochs, calls in ((2, 2), (2**62, 4)):
        other = data()
        other.set_state({**state, "epochs": epochs})
        other.set_state({**state, "epochs": epochs})  # as where an epoch is resumed in its middle
        assert other.source.source.calls == [0, *["begin", "end"] * calls]
    del state["epochs"]  # as earlier versions wrote it
    other = data()
    other.set_state(state)
    assert other.source.source.calls == [0]


def test_a_loader_with_a_length_says_how_many_steps_there_are():
    history = make_model().fit(LengthAlone(BATCHES), verbose=0)
    assert history.params["steps"] == 5


@pytest.mark.parametrize("error", [TypeError, NotImplementedError])
def test_a_loader_without_a_length_is_read_to_its_end(error):
    class Unknown(LengthAlone):
        def __len__(self):
            raise error("a stream has no length")

    history = make_model().fit(Unknown(BATCHES), epochs=2, verbose=0)
    assert history.epoch == [0, 1]
    assert history.params["steps"] is None
