"""What the hooks of callbacks are called with: the number where there is one, and a dict."""

import numpy as np
import pytest

import cnnlite
from cnnlite import layers
from cnnlite.callbacks import Callback, CallbackList, EarlyStopping, LambdaCallback
from cnnlite.callbacks.base import HOOKS

WITH_NUMBER = [hook for hook in HOOKS if "epoch" in hook or "batch" in hook]
X, Y = np.ones((4, 3), np.float32), np.ones((4, 1), np.float32)


def make_model():
    model = cnnlite.Sequential([cnnlite.Input(shape=(3,)), layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    return model


def call_everything(model, callbacks):
    model.fit(X, Y, epochs=2, batch_size=2, validation_data=(X, Y), verbose=0, callbacks=callbacks)
    values = model.evaluate(X, Y, verbose=0, callbacks=callbacks, return_dict=True)
    model.predict(X, verbose=0, callbacks=callbacks)
    return values


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_takes_a_function_of_its_number_and_the_logs(hook):
    seen = []
    function = (lambda number, logs: seen.append((number, logs))) if hook in WITH_NUMBER else (
        lambda logs: seen.append((0, logs)))
    call_everything(make_model(), [LambdaCallback(**{hook: function})])
    assert seen
    assert all(type(number) is int and type(logs) is dict for number, logs in seen)
    assert all(logs == {} for _, logs in seen if hook.endswith("_begin"))


def test_the_hooks_of_a_subclass_get_a_dict_each():
    seen = []

    class Note(Callback):
        pass

    for hook in HOOKS:
        setattr(Note, hook, lambda self, *args, hook=hook: seen.append((hook, *args)))
    call_everything(make_model(), [Note()])
    assert {hook for hook, *_ in seen} == set(HOOKS) - {"on_batch_begin", "on_batch_end"}
    assert all(len(args) == 1 + (hook in WITH_NUMBER) and type(args[-1]) is dict for hook, *args in seen)


def test_a_callback_list_of_ones_own_passes_on_a_dict_too():
    seen = []
    every = CallbackList([LambdaCallback(on_train_begin=seen.append, on_epoch_begin=lambda *args: seen.append(args))])
    every.on_train_begin()
    every.on_train_begin(None)
    every.on_epoch_begin(3)
    every.on_epoch_begin(3, logs=None)
    assert seen == [{}, {}, (3, {}), (3, {})]


def test_what_a_callback_adds_changes_no_result_but_the_history_at_the_end_of_an_epoch():
    hooks = {hook: (lambda number, logs: logs.update(more=1.0)) if hook in WITH_NUMBER else (
        lambda logs: logs.update(more=1.0)) for hook in HOOKS if hook != "on_epoch_end"}
    model = make_model()
    values = call_everything(model, [LambdaCallback(**hooks)])
    assert set(values) == {"loss", "mae"}
    assert set(model.history.history) == {"loss", "mae", "val_loss", "val_mae"}
    assert len(model.evaluate(X, Y, verbose=0, callbacks=[LambdaCallback(**hooks)])) == 2


def test_the_callbacks_after_one_see_what_it_added():
    seen = []
    first = LambdaCallback(on_test_end=lambda logs: logs.update(more=1))
    second = LambdaCallback(on_test_end=lambda logs: seen.append(logs["more"]))
    make_model().evaluate(X, Y, verbose=0, callbacks=[first, second])
    assert seen == [1]


@pytest.mark.parametrize(("hook", "function"), [
    ("on_epoch_end", lambda epoch: None),
    ("on_train_batch_begin", lambda batch: None),
    ("on_batch_end", lambda: None),
    ("on_train_begin", lambda: None),
    ("on_test_end", lambda number, logs: None),
])
def test_a_function_that_can_not_be_called_as_its_hook_is_refused_when_given(hook, function):
    with pytest.raises(TypeError, match=rf"LambdaCallback: {hook} must take \(.*logs\). Received: {hook}=<function"):
        LambdaCallback(**{hook: function})


def test_a_hook_of_a_subclass_that_can_not_be_called_is_refused_before_training():
    class Wrong(Callback):
        def on_epoch_end(self, epoch):
            pass

    model = make_model()
    before = model.get_weights()
    with pytest.raises(TypeError, match=r"fit: Wrong: on_epoch_end must take \(epoch, logs\)"):
        model.fit(X, Y, verbose=0, callbacks=[Wrong()])
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_built_in_functions_are_taken_as_they_are():
    seen = {}
    LambdaCallback(on_train_begin=seen.update).on_train_begin({"a": 1})
    assert seen == {"a": 1}


def test_an_object_without_set_model_is_no_callback():
    hooks = {hook: lambda self, *args: None for hook in HOOKS}
    with pytest.raises(TypeError, match="must be a list of Callback objects"):
        make_model().fit(X, Y, verbose=0, callbacks=[type("Hooks", (), hooks)()])


def test_a_callback_that_only_watches_training_may_be_given_to_evaluate():
    make_model().evaluate(X, Y, verbose=0, callbacks=[EarlyStopping("unheard of")])
