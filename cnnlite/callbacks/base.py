"""The hooks that training calls, a list of callbacks that passes them on, and a callback made of functions."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable
from typing import Any

from cnnlite.types import Logs


class Callback:
    """The base class of all callbacks; subclasses override the hooks that they need.

    `epoch` and `batch` count from 0. `logs` is a dict of the loss and the metrics of the epoch so far; at the end
    of an epoch it includes those of the validation data ("val_loss"); in hooks that mark a beginning, it is empty. An
    entry added to it at the end of an epoch goes into the history; in any other hook, only the callbacks called after
    this one see it. Setting `self.model.stop_training = True` ends training after the batch.

    Attributes:
        model: the model being trained.
        params: {"verbose", "epochs", "steps"} of the call.

    Example:

    >>> import cnnlite
    >>> class Note(cnnlite.callbacks.Callback):
    ...     def on_epoch_end(self, epoch, logs=None):
    ...         print(f"after epoch {epoch + 1} the loss is {logs['loss']:.3f}")
    """

    model: Any = None
    params: dict | None = None
    comes_last = False  # whether it is called after all others, whatever its place in the list

    def get_state(self) -> dict[str, Any]:
        """Return what the callback remembers from epoch to epoch, for `BackupAndRestore` to keep.

        Numbers, strings, arrays, and lists, tuples and dicts of them. A callback of your own that remembers something
        defines this and `set_state`; without them it starts afresh in a resumed run.
        """
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_state` returned.

        Called after `on_train_begin` and, if an epoch is resumed midway, once more after its `on_epoch_begin`. If it
        raises anything, the backup is refused: the model, the optimizer and the attributes of the callbacks, including
        the lists, dicts and arrays in them, are put back as they were.
        """

    def set_model(self, model: Any) -> None:
        """Called before `on_train_begin`, with the model being trained."""
        self.model = model

    def set_params(self, params: dict[str, Any]) -> None:
        """Called before `set_model`, with {"verbose", "epochs", "steps"}."""
        self.params = params

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Called once, before the first epoch."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Called once, after the last epoch, with its logs."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Called before each epoch of `fit`."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Called after each epoch of `fit` and the validation that follows it."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Called before each training step."""
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Called after each training step."""
        self.on_batch_end(batch, logs)

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """An older name for `on_train_batch_begin`."""

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """An older name for `on_train_batch_end`."""

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Called when `evaluate`, or validation within `fit`, begins."""

    def on_test_end(self, logs: Logs | None = None) -> None:
        """Called when `evaluate`, or validation within `fit`, ends."""

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Called before each batch of `evaluate`."""

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Called after each batch of `evaluate`."""

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """Called when `predict` begins."""

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """Called when `predict` ends."""

    def on_predict_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Called before each batch of `predict`."""

    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Called after each batch of `predict`, with {"outputs": the predictions}."""


HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))
_REQUIRED = (*HOOKS, "set_model", "set_params")
_OLDER_NAMES = {"on_train_batch_begin": "on_batch_begin", "on_train_batch_end": "on_batch_end"}


class CallbackList(Callback):
    """Several callbacks as one, called in list order, except that those with `comes_last` come last.

    Args:
        callbacks: a callback, a list of them, or None.
        model: the model that they are attached to.
        owner: the method of the model that received them, for errors.
        **params: what they find in `params`.
    """

    def __init__(self, callbacks: Any = None, model: Any = None, owner: str = "fit", **params: Any) -> None:
        if callbacks is None:
            callbacks = []
        if not isinstance(callbacks, (list, tuple)):
            callbacks = [callbacks]
        for callback in callbacks:
            # Any object with the hooks will do, so that callbacks written for Keras run.
            if isinstance(callback, type) or not all(callable(getattr(callback, name, None)) for name in _REQUIRED):
                raise TypeError(
                    f"{owner}: callbacks must be a list of Callback objects. Received: {callback!r} in it."
                )
        self.callbacks = list(callbacks)
        self._arrange()
        for hook, listeners in self._listeners.items():
            for callback in listeners:
                _check_arguments(getattr(callback, hook), hook, f"{owner}: {type(callback).__name__}")
        self.set_params(params)
        if model is not None:
            self.set_model(model)

    def append(self, callback: Any) -> None:
        """Add a callback at the end."""
        self.callbacks.append(callback)
        self._arrange()

    def listens(self, hook: str) -> bool:
        """Return whether any callback uses this hook; if none does, a step need not build its logs."""
        return bool(self._listeners[hook])

    def flat(self) -> list[Any]:
        """Return all callbacks, including those in nested lists."""
        return [one for callback in self.callbacks
                for one in (callback.flat() if isinstance(callback, CallbackList) else [callback])]

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        for callback in self.callbacks:
            callback.set_model(model)

    def set_params(self, params: dict[str, Any]) -> None:
        super().set_params(params)
        for callback in self.callbacks:
            callback.set_params(params)

    def get_state(self) -> dict[str, Any]:
        """Return the states of the callbacks that have one, by class name: {"EarlyStopping 1": {...}}."""
        named = ((name, getattr(callback, "get_state", None)) for name, callback in self.named())
        states = {name: get_state() for name, get_state in named if callable(get_state)}
        return {name: state for name, state in states.items() if state}

    def set_state(self, state: dict[str, Any]) -> None:
        for name, callback in self.named():
            if name in state:
                callback.set_state(state[name])

    def named(self) -> list[tuple[str, Any]]:
        """Return [(name, callback), ...] with the names that `get_state` uses."""
        counts: Counter[str] = Counter()
        named = []
        for callback in self.callbacks:
            name = type(callback).__name__
            counts[name] += 1
            named.append((f"{name} {counts[name]}", callback))
        return named

    def _arrange(self) -> None:
        self.callbacks.sort(key=_comes_last)
        self.comes_last = any(map(_comes_last, self.callbacks))
        self._listeners = {
            hook: [callback for callback in self.callbacks if _overrides(callback, hook)] for hook in HOOKS
        }


def _comes_last(callback: Any) -> bool:
    return getattr(callback, "comes_last", False)


def _overrides(callback: Any, hook: str) -> bool:
    if isinstance(callback, CallbackList):
        return callback.listens(hook)
    names = [hook, _OLDER_NAMES[hook]] if hook in _OLDER_NAMES else [hook]
    return any(
        getattr(getattr(callback, name), "__func__", None) is not getattr(Callback, name) for name in names
    )


def _takes_number(hook: str) -> bool:
    """Return whether a hook takes the index of the epoch or the batch before the logs."""
    return "epoch" in hook or "batch" in hook


def _check_arguments(function: Callable[..., Any], hook: str, owner: str) -> None:
    """Raise a TypeError unless a function takes the arguments of its hook."""
    try:
        inspect.signature(function).bind(*((0, {}) if _takes_number(hook) else ({},)))
    except ValueError:  # a built-in function without a signature
        pass
    except TypeError as error:
        wanted = f"({'epoch' if 'epoch' in hook else 'batch'}, logs)" if _takes_number(hook) else "(logs)"
        raise TypeError(
            f"{owner}: {hook} must take {wanted}. Received: {hook}={function!r}, which does not: {error}."
        ) from None


def _pass_on(hook: str) -> Callable[..., None]:
    def prepared(logs: Logs | None) -> Logs:
        if logs is None:
            return {}
        # Entries added at the end of an epoch are for the caller too; the result of evaluate must not grow.
        return logs if hook == "on_epoch_end" else dict(logs)

    def call(self: CallbackList, logs: Logs | None = None) -> None:
        listeners = self._listeners[hook]
        if listeners:
            logs = prepared(logs)
            for callback in listeners:
                getattr(callback, hook)(logs)

    def call_with_number(self: CallbackList, number: int, logs: Logs | None = None) -> None:
        listeners = self._listeners[hook]
        if listeners:
            logs = prepared(logs)
            for callback in listeners:
                getattr(callback, hook)(number, logs)

    passed_on: Callable[..., None] = call_with_number if _takes_number(hook) else call
    passed_on.__name__, passed_on.__doc__ = hook, getattr(Callback, hook).__doc__
    return passed_on


for _hook in HOOKS:
    setattr(CallbackList, _hook, _pass_on(_hook))


class LambdaCallback(Callback):
    """A callback made of functions, each passed under the name of its hook.

    Args:
        on_epoch_begin, on_epoch_end: called with (epoch, logs).
        on_train_begin, on_train_end: called with (logs).
        on_train_batch_begin, on_train_batch_end: called with (batch, logs).
        **kwargs: any other hook of `Callback`.

    Raises:
        TypeError: there is no such hook, or the function can't be called with its arguments.

    Example:

    >>> import cnnlite
    >>> show = cnnlite.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, logs["loss"]))
    """

    def __init__(
        self,
        on_epoch_begin: Callable[..., Any] | None = None,
        on_epoch_end: Callable[..., Any] | None = None,
        on_train_begin: Callable[..., Any] | None = None,
        on_train_end: Callable[..., Any] | None = None,
        on_train_batch_begin: Callable[..., Any] | None = None,
        on_train_batch_end: Callable[..., Any] | None = None,
        **kwargs: Callable[..., Any] | None,
    ) -> None:
        functions = {
            "on_epoch_begin": on_epoch_begin, "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin, "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin, "on_train_batch_end": on_train_batch_end,
            **kwargs,
        }
        for hook, function in functions.items():
            if hook not in HOOKS:
                raise TypeError(f"LambdaCallback: there is no hook {hook!r}. The hooks are: {', '.join(HOOKS)}.")
            if function is not None:
                if not callable(function):
                    raise TypeError(f"LambdaCallback: {hook} must be a function. Received: {hook}={function!r}.")
                _check_arguments(function, hook, "LambdaCallback")
                setattr(self, hook, function)
