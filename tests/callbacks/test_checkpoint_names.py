"""The names of checkpoints: what is wrong with a template is said when it is given, or before training."""

import numpy as np
import pytest

import cnnlite
from cnnlite import layers
from cnnlite.callbacks import Callback, LambdaCallback, LearningRateScheduler, ModelCheckpoint
from tests.helpers.dictated import Model, run

X, Y = np.ones((6, 3), np.float32), np.ones((6, 1), np.float32)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make_model():
    model = cnnlite.Sequential([cnnlite.Input(shape=(3,)), layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    return model


def fit(model, filepath, *others, callback=None, **arguments):
    callback = callback or ModelCheckpoint(filepath)
    return model.fit(X, Y, verbose=0, callbacks=[*others, callback], **arguments)


@pytest.mark.parametrize("template", [
    "{epoch:02q}", "{epoch", "epoch}", "{loss:d}", "{val_loss:03d}", "{}", "{0}", "{epoch!z}", "{loss[0]}",
    "{loss.unheard_of}", "{epoch:", "{mae:.2q}", "{loss:s}", "{loss:{width}}", "{batch:.2q}", "{epoch.x}/{loss}",
    "{epoch:999999999999999}",
])
def test_a_format_that_no_value_can_have_is_refused_when_given(template):
    with pytest.raises(ValueError, match=r"ModelCheckpoint: filepath may name .*Received: filepath=.*wrong: "):
        ModelCheckpoint(template)


@pytest.mark.parametrize("template", [
    "m", "{epoch}", "{epoch:02d}-{val_loss:.2f}", "{epoch:.1f}", "{{x}}-{epoch!r:>3}", "{loss!s:.4}", "{loss:g}%",
    "{step:04d}-{ratio:.2}", "{tag:s}", "{loss.real:.1f}", "{epoch:{epoch}d}",
])
def test_a_format_that_some_value_can_have_is_taken(template):
    ModelCheckpoint(template)


@pytest.mark.parametrize(("filepath", "error"), [(None, TypeError), (3, TypeError), ("", ValueError),
                                                 ("folder/", ValueError), ("a\0b", ValueError)])
def test_what_is_no_name_of_a_file_is_refused_when_given(filepath, error):
    with pytest.raises(error, match=r"ModelCheckpoint: filepath must be .*Received: filepath="):
        ModelCheckpoint(filepath)


@pytest.mark.parametrize("template", ["{accuracy}", "{epoch}-{val_loss:.2f}", "{learning_rate}", "{batch}"])
def test_a_value_that_there_will_not_be_is_refused_before_training(template):
    model = make_model()
    with pytest.raises(ValueError, match=r"filepath may name .*Available: epoch, loss, mae"):
        fit(model, template)
    assert model.optimizer.iterations == 0


@pytest.mark.parametrize("template", ["{mae:03d}", "{val_mae:s}"])
def test_a_format_that_a_metric_can_not_have_is_refused_before_training(template):
    model = make_model()
    with pytest.raises(ValueError, match=r"filepath may name .*What is wrong: Unknown format code"):
        fit(model, template, LambdaCallback(on_epoch_end=print), validation_data=(X, Y))
    assert model.optimizer.iterations == 0


def test_a_value_that_there_will_be_is_not(tmp_path):
    class Adds(Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["own"] = 7

    fit(make_model(), "{epoch}-{mae:.0f}-{val_mae:.0f}", validation_data=(X, Y))
    fit(make_model(), "{learning_rate:.2f}", LearningRateScheduler(lambda epoch: 0.25))
    fit(make_model(), "{own:03d}", Adds())
    fit(make_model(), "{own:s}", LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(own="text")))
    names = {path.name for path in tmp_path.iterdir()}
    assert {"0.25", "007", "text"} <= names
    assert len(names) == 4
    with pytest.raises(ValueError, match=r"Available: epoch, loss, mae, own \(Unknown format code 'x'"):
        fit(make_model(), "{own:x}", LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(own=0.5)))


def test_the_batch_has_a_name_between_epochs_as_in_keras(tmp_path):
    fit(make_model(), None, callback=ModelCheckpoint("{epoch}-{batch:02d}-{loss:.0f}", save_freq=2), batch_size=1)
    assert sorted(path.name[:5] for path in tmp_path.iterdir()) == ["1-02-", "1-04-", "1-06-"]
    model = make_model()
    with pytest.raises(ValueError, match="Available: batch, epoch, loss, mae"):
        fit(model, None, callback=ModelCheckpoint("{val_loss}", save_freq=2), validation_data=(X, Y))
    assert model.optimizer.iterations == 0


def test_a_folder_in_the_place_of_the_file_is_found_before_training(tmp_path):
    (tmp_path / "m").mkdir()
    model = make_model()
    with pytest.raises(IsADirectoryError, match=r"ModelCheckpoint: .*is a folder"):
        fit(model, "m")
    assert model.optimizer.iterations == 0


def test_outside_of_fit_only_the_logs_can_say_which_values_there_are():
    with pytest.raises(ValueError, match="Available: epoch, val_loss"):
        run(ModelCheckpoint("{accuracy}"), [1], model=Model())


class PerClass(cnnlite.metrics.Mean):
    def update_state(self, y_true, y_pred, sample_weight=None):
        pass

    def result(self):
        return np.zeros(2)


def test_a_metric_of_your_own_with_several_values_is_found_before_training():
    model = cnnlite.Sequential([cnnlite.Input(shape=(3,)), layers.Dense(1)])
    model.compile("sgd", "mse", metrics=[PerClass("own")])
    with pytest.raises(ValueError, match=r"ModelCheckpoint: filepath may name .*wrong: "):
        fit(model, "{own:.2f}")
    assert model.optimizer.iterations == 0
