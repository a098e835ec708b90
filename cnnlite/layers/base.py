"""What every layer shares: input checks, buffers, and the memory between forward and backward."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnlite import initializers, regularizers
from cnnlite.engine.graph import current_graph, stages_of
from cnnlite.layers.changes import Memo, WeakSet, note_change
from cnnlite.layers.overrides import LayerType
from cnnlite.layers.settings import DTypeSetting
from cnnlite.layers.weights import ArrayDict, only_reading, zeros_to_be_loaded
from cnnlite.support.arguments import boolean, float_array, shape_tuple
from cnnlite.support.floating import conversion, converted_or_raise
from cnnlite.support.interrupts import held_back_interrupts
from cnnlite.support.locks import in_forked_children, new_lock
from cnnlite.types import Array, ArrayLike, Config, DTypeLike, Identifier, Shape

if TYPE_CHECKING:
    from typing_extensions import Self


# The attributes that a pass may set on a layer; all others determine what the layer computes.
_SET_BY_PASSES = frozenset(("_memory", "_memos", "_memo", "_flat", "_kept_loss", "training_run", "history",
                            "stop_training", "shuffle_random"))

_construction = new_lock()
_under_construction: list[Layer] = []
in_forked_children(_under_construction.clear)

# Arguments of Keras's layers that scripts spell out with their default, None, which has no effect.
_NOT_OFFERED = (
    "activity_regularizer", "kernel_constraint", "bias_constraint", "depthwise_constraint", "beta_constraint",
    "gamma_constraint",
)


_commits: ContextVar[list[Callable[[Any], None]] | None] = ContextVar("commits", default=None)


@contextlib.contextmanager
def held_commits() -> Iterator[list[Callable[[Any], None]]]:
    """Collect what layers `commit` within the block instead of running it, and yield the list."""
    commits: list[Callable[[Any], None]] = []
    token = _commits.set(commits)
    try:
        yield commits
    finally:
        _commits.reset(token)


# What layers keep for `backward` in this context, by layer id; None if each layer keeps its own.
_apart: ContextVar[dict[int, tuple[Any, ...]] | None] = ContextVar("apart", default=None)


@contextlib.contextmanager
def remembering_apart() -> Iterator[None]:
    """Within the block, keep what layers `remember` apart from all other passes and threads; drop it at the end."""
    token = _apart.set({})
    try:
        yield
    finally:
        _apart.reset(token)


def commit_held() -> None:
    """Run the commits that were held back, in order."""
    commits = _commits.get() or []
    while commits:
        commits.pop(0)(None)


class Layer(metaclass=LayerType):
    """The base class of all layers, including your own.

    A layer of your own defines `forward` and `backward`, and `build` if it has weights:

    >>> import numpy as np
    >>> import cnnlite
    >>> class Scale(cnnlite.layers.Layer):
    ...     '''y = x * scale'''
    ...     def build(self, input_shape):
    ...         self.add_weight("scale", (input_shape[-1],), "ones")
    ...     def forward(self, x, training=False):
    ...         if training:
    ...             self.remember(x)
    ...         return x * self.params["scale"]
    ...     def backward(self, dy):
    ...         (x,) = self.recall()
    ...         self.grads["scale"] = (dy * x).sum(axis=0)
    ...         return dy * self.params["scale"]
    >>> cnnlite.check_gradients(Scale(), np.random.default_rng(0).normal(size=(4, 3))).ok
    True

    Args:
        name: what summaries, files and errors call it; made from the class's name by default.
        dtype: "float32" or "float64"; by default `cnnlite.config.floatx()`, which is "float32".
        trainable: False keeps the weights as they are while a model trains.
        input_shape: the shape of one sample, without the batch axis; for the first layer of a `Sequential`.

    The arguments of a layer are attributes too. Setting one checks it as the argument is checked, and takes effect from
    the next pass; one that the weights depend on (`filters`, `units`) can't change once the layer is built.

    Attributes:
        params: the trainable arrays by name ("kernel", "bias", "gamma", "beta").
        grads: the gradient of the loss with respect to each of `params`, filled in by `backward`.
        state: arrays that training changes without a gradient ("moving_mean").
        inner_layers: the layers inside this one, such as the activation of a `Dense`; assign it as a whole.
    """

    rank: int | None = None  # how many axes an input must have, including the batch; None accepts any number
    channel_axis: int | None = None  # the axis whose size the weights depend on; None if there is none
    takes_any_rank = False  # whether the weights fit inputs with any number of axes (a layer without weights does)
    dtype: Any = DTypeSetting()

    def __init__(
        self,
        *,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        trainable: bool = True,
        input_shape: Shape | None = None,
        **unknown: Any,
    ) -> None:
        owner = type(self).__name__
        for argument, value in unknown.items():
            if argument not in _NOT_OFFERED:
                raise TypeError(f"{owner} takes no argument {argument!r}. Received: {argument}={value!r}.")
            if value is not None:
                raise ValueError(f"{owner}: {argument} is not supported. Received: {argument}={value!r}. Leave it out.")
        self.name_is_given = name is not None
        self.name = snake_case(owner) if name is None else name
        self.dtype = dtype
        self.trainable = boolean(trainable, "trainable", owner)
        self.given_input_shape = None if input_shape is None else shape_tuple(input_shape, "input_shape", owner)
        self.built = False
        self.input_shape: Shape | None = None
        self._params, self._grads, self._state = ArrayDict(), ArrayDict(), ArrayDict()
        self.regularizers: dict[str, regularizers.Regularizer] = {}
        self.inner_layers: Sequence[Layer] = ()
        self._memory: tuple[Any, ...] | None = None  # what the last pass in training mode kept for backward

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles carry over: not the memos of models, and not the last pass."""
        return {**{name: value for name, value in vars(self).items() if name != "_memos"}, "_memory": None}

    def __setattr__(self, name: str, value: Any) -> None:
        # A tuple, as a layer could be added to a list without anyone noticing.
        super().__setattr__(name, tuple(value) if name == "inner_layers" else value)
        if name not in _SET_BY_PASSES:
            note_change(self)

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        note_change(self)

    @property
    def memos(self) -> WeakSet[Memo]:
        """The `Memo`s to empty when the layer changes."""
        memos = vars(self).get("_memos")
        if memos is None:
            memos = vars(self).setdefault("_memos", WeakSet())
        return memos

    # What a layer defines. (x is Any, so that a layer of your own may annotate it as np.ndarray.)

    def build(self, input_shape: Shape) -> None:
        """Create the weights for inputs of `input_shape`, whose first entry, the batch, may be None."""
        self.check_input_shape(input_shape)
        input_shape = (None, *input_shape[1:])
        if self.rank is not None and len(input_shape) != self.rank:
            raise ValueError(
                f"{self.name}: the input must have {self.rank} axes, including the batch. "
                f"Received: shape={input_shape}, which has {len(input_shape)}."
            )
        axis = self.channel_axis
        if axis is not None and input_shape[axis] is None:
            raise ValueError(
                f"{self.name}: the size of axis {axis} of the input must be known. Received: shape={input_shape}."
            )
        self.input_shape = input_shape
        self.built = True

    def forward(self, x: Any, training: bool = False) -> Array:
        """Return y; with `training=True` also remember what `backward` needs."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(x, training=False).")

    def backward(self, dy: Array) -> Array:
        """Take d loss / dy of the last training forward, fill `grads` and return d loss / dx."""
        raise NotImplementedError(f"{type(self).__name__} must define backward(dy).")

    def backward_weights(self, dy: Array) -> None:
        """Fill `grads` only: what a model calls when the gradient of the input is not needed."""
        self.backward(dy)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of the output for an input of that shape; None stays None."""
        return tuple(input_shape)

    def check_settings(self) -> None:
        """Raise a ValueError if the arguments don't fit together; called when one of them has been changed."""

    def get_config(self) -> Config:
        """Return the arguments that recreate this layer, as plain values that JSON can hold."""
        config = {"name": self.name, "dtype": self.dtype.name, "trainable": self.trainable}
        if self.given_input_shape is not None:
            config["input_shape"] = list(self.given_input_shape)
        return config

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Make a layer from what `get_config` returned."""
        return cls(**config)

    # What a layer uses.

    def __call__(self, x: ArrayLike, training: bool = False) -> Array:
        """Build the layer for `x` if it is not built yet, and return `forward(x, training)`."""
        if not self.built:
            self.build_once(float_array(x, self.dtype, "x", self.name).shape)
        return self.forward(x, training=training)

    def build_once(self, input_shape: Shape) -> Shape:
        """Build the layer if it is not built yet, and return the shape that it was built for.

        If several threads call this at once, one builds and the others wait.
        """
        # `built` is set with the first weight, so it can't be trusted while any layer is still being built.
        built_for = self.input_shape
        if self.built and built_for is not None and not _under_construction:
            return built_for
        with _construction:
            return self._build_once(input_shape)

    def _build_once(self, input_shape: Shape) -> Shape:
        if not self.built:
            _under_construction.append(self)
            try:
                self.check_input_shape(input_shape)
                self.build(input_shape)
                self.built = True  # a user's own layer need not call Layer.build, which sets this and input_shape
            finally:
                _under_construction.pop()
        if self.input_shape is None:
            self.input_shape = (None, *input_shape[1:])
        return self.input_shape

    def check_input_shape(self, input_shape: Shape) -> None:
        """Check that every size except the batch is a positive integer, or None if it is unknown."""
        if not isinstance(input_shape, (tuple, list)):
            raise TypeError(
                f"{self.name}: input_shape must be a tuple, including the batch, such as (None, 28, 28, 1). "
                f"Received: input_shape={input_shape!r}."
            )
        shape_tuple(input_shape[1:], "input_shape", self.name)

    def add_weight(
        self,
        name: str,
        shape: Shape,
        initializer: Identifier = "glorot_uniform",
        *,
        trainable: bool = True,
        regularizer: Identifier | None = None,
    ) -> None:
        """Create an array of `shape`: in `params`, with its gradient, or in `state` if not trainable.

        Read it from there in every pass and keep no reference to it: training moves it into the model's flat vector.
        """
        shape = shape_tuple(shape, f"the shape of {name}", self.name, minimum=0)
        if None in shape:
            raise ValueError(f"{self.name}: the shape of {name} must be fully known. Received: shape={shape}.")
        array = zeros_to_be_loaded(shape, self.dtype)
        if array is None:
            array = initializers.get(initializer)(shape, self.dtype)
            with conversion():
                # Not np.ascontiguousarray, which gives a 0-d array an axis.
                array = np.array(array, self.dtype, order="C")
        if array.shape != shape:
            raise ValueError(
                f"{self.name}: the initializer of {name} must return an array of shape {shape}. "
                f"Received: shape={array.shape}."
            )
        if trainable:
            self._params.bind(name, array)
            self._grads.bind(name, np.zeros_like(array))
        else:
            self._state.bind(name, array)
        penalty = regularizers.get(regularizer)
        if penalty is not None:
            self.regularizers[name] = penalty
        self.built = True

    def prepare(self, x: ArrayLike) -> Array:
        """Return x as a C-contiguous array of the layer's dtype, checked against the shape it is built for."""
        x = float_array(x, self.dtype, "x", self.name)
        built_for = self.build_once(x.shape)
        axis = self.channel_axis
        if x.ndim != len(built_for) or (axis is not None and x.shape[axis] != built_for[axis]):
            self.check_fits(x.shape)
        return x

    def check_fits(self, input_shape: Shape) -> None:
        """Raise a ValueError unless the layer, with the weights it has, can take inputs of that shape."""
        built_for, axis = self.input_shape, self.channel_axis
        if not self.built or built_for is None:
            return
        needs_rank = self.rank is not None or (bool(self._params or self._state) and not self.takes_any_rank)
        if needs_rank and len(input_shape) != len(built_for):
            raise ValueError(
                f"{self.name}: the input must have {len(built_for)} axes, including the batch, as the layer was built "
                f"for {built_for}. Received: shape={input_shape}."
            )
        if axis is not None and (len(input_shape) < 2 or input_shape[axis] not in (None, built_for[axis])):
            raise ValueError(
                f"{self.name}: axis {axis} of the input must have size {built_for[axis]}, as the layer was built "
                f"for {built_for}. Received: shape={input_shape}."
            )

    def prepare_gradient(self, dy: Array, shape: Shape) -> Array:
        """Return dy as a C-contiguous array of the layer's dtype, checked against the shape of the output."""
        dy = float_array(dy, self.dtype, "dy", self.name)
        if dy.shape != tuple(shape):
            raise ValueError(
                f"{self.name}: dy must have the shape of the output, {tuple(shape)}. Received: shape={dy.shape}."
            )
        return dy

    def remember(self, *values: Any) -> None:
        """Keep what `backward` will need."""
        apart = _apart.get()
        if apart is None:
            self._memory = values
        else:
            apart[id(self)] = values

    def forget(self) -> None:
        """Drop what was kept for `backward`."""
        apart = _apart.get()
        if apart is None:
            self._memory = None
        else:
            apart.pop(id(self), None)

    def recall(self) -> tuple[Any, ...]:
        """Return what the last training forward kept; it stays available until the next one."""
        apart = _apart.get()
        memory = self._memory if apart is None else apart.get(id(self))
        if memory is None:
            raise ValueError(
                f"{self.name}: backward needs a forward pass in training mode before it. "
                "Call forward(x, training=True) first; for a layer inside a model, which runs a compiled plan instead, "
                "run the model under `with cnnlite.reference_mode():`."
            )
        return memory

    def allocate(self, key: str, shape: Shape, training: bool = True, dtype: DTypeLike | None = None) -> Any:
        """Return an uninitialised array of `shape`, or a buffer while a graph is being built."""
        dtype = self.dtype if dtype is None else np.dtype(dtype)
        graph = current_graph()
        return np.empty(shape, dtype) if graph is None else graph.work(shape, dtype)

    def value(self, function: Callable[[], Any], shape: Shape, dtype: DTypeLike) -> Any:
        """Return the few numbers that `function()` returns, called anew for each pass: the key of a mask, say."""
        graph = current_graph()
        return np.array(function(), dtype) if graph is None else graph.value(function, shape, dtype)

    def commit(self, function: Callable[[Any], None]) -> None:
        """Call `function(refused)`, which updates moving averages: at once, or at the end of a training step.

        refused is None, or a buffer of one integer: if that is not 0, nothing may change.
        """
        commits = _commits.get()
        if commits is None:
            function(None)
        elif current_graph() is None:
            commits.append(function)
        else:
            commits.append(stages_of(self.name)(function))

    @property
    def is_traceable(self) -> bool:
        """Whether a plan can replace the layer, which requires that it not depend on the number of samples."""
        return True

    # What users read from a layer.

    @property
    def name(self) -> str:
        """What summaries, files and errors call the layer; a string without "/"."""
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        if not isinstance(name, str) or not name or "/" in name or not name.isprintable():
            owner = type(self).__name__
            raise ValueError(f"{owner}: name must be a printable string without '/'. Received: name={name!r}.")
        self._name = name

    @property
    def trainable(self) -> bool:
        """Whether the weights train; setting it also sets it on every inner layer, as in Keras."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = bool(value)  # a plain bool, as files hold it
        for layer in getattr(self, "inner_layers", ()):
            layer.trainable = value

    # The setters are for `layer.params |= {...}`, which ends by setting the attribute.

    @property
    def params(self) -> ArrayDict:
        """The trainable arrays by name; assigning to a name copies into its array."""
        return self._params.handed_over()

    @params.setter
    def params(self, arrays: ArrayDict) -> None:
        self.params.require_same(arrays)

    @property
    def grads(self) -> ArrayDict:
        """d loss / d param by the same names, as the last `backward` left them."""
        return self._grads

    @grads.setter
    def grads(self, arrays: ArrayDict) -> None:
        self.grads.require_same(arrays)

    @property
    def state(self) -> ArrayDict:
        """The arrays that training changes without a gradient."""
        return self._state.handed_over()

    @state.setter
    def state(self, arrays: ArrayDict) -> None:
        self.state.require_same(arrays)

    def walk(self) -> Iterator[Layer]:
        """Yield this layer and every layer inside it."""
        yield self
        for layer in self.inner_layers:
            yield from layer.walk()

    def named_inner_layers(self) -> list[tuple[str, Layer]]:
        """Return [(name, layer), ...] for the inner layers; a name that is already taken gets a number."""
        named: dict[str, Layer] = {}
        for layer in self.inner_layers:
            name, number = layer.name, 0
            while name in named:
                number += 1
                name = f"{layer.name}_{number}"
            named[name] = layer
        return list(named.items())

    def named_layers(self, path: str | None = None) -> list[tuple[str, Layer]]:
        """Return [(path, layer), ...] for this layer and all inside it, as far as they have weights of their own."""
        path = self.name if path is None else path
        pairs = [(path, self)]
        for name, layer in self.named_inner_layers():
            pairs += layer.named_layers(f"{path}/{name}")
        return [(name, layer) for name, layer in pairs if layer._params or layer._state]

    @property
    def output_shape(self) -> Shape | None:
        """The shape of the output, with None for the batch; None before the layer is built."""
        return None if self.input_shape is None else self.compute_output_shape(self.input_shape)

    @property
    def weights(self) -> list[Array]:
        """All arrays in Keras's order: trainable ones first, those of inner layers last."""
        inner = [array for layer in self.inner_layers for array in layer.weights]
        return [*self.params.values(), *self.state.values(), *inner]

    @property
    def trainable_weights(self) -> list[Array]:
        """The `weights` that training changes by their gradients; none if `trainable=False`."""
        return list(self.params.values()) if self.trainable else []

    @property
    def non_trainable_weights(self) -> list[Array]:
        """The rest of `weights`."""
        trainable = {id(array) for array in self.trainable_weights}
        return [array for array in self.weights if id(array) not in trainable]

    def get_weights(self) -> list[Array]:
        """Return copies of `weights`."""
        with only_reading():
            return [array.copy() for array in self.weights]

    def set_weights(self, weights: Sequence[ArrayLike]) -> None:
        """Copy a list of arrays, in the order of `get_weights`, into the weights: all of them, or none on an error.

        Raises:
            TypeError: not a list of arrays of numbers.
            ValueError: the shapes differ, or a number is too large for the dtype of its weight.
        """
        if not isinstance(weights, (list, tuple)):
            raise TypeError(
                f"{self.name}: set_weights takes a list of arrays. Received: a {type(weights).__name__}."
            )
        arrays = [float_array(array, None, "a weight", self.name) for array in weights]
        shapes = [array.shape for array in arrays]
        with only_reading():
            mine = self.weights
        expected = [array.shape for array in mine]
        if not self.built:
            raise ValueError(f"{self.name}: set_weights needs weights to set. Call build(input_shape) first.")
        if shapes != expected:
            raise ValueError(
                f"{self.name}: set_weights takes arrays of the shapes {expected}. Received: shapes={shapes}."
            )
        converted = [self._as_weight(array, weight.dtype) for weight, array in zip(mine, arrays)]
        with held_back_interrupts():
            for weight, array in zip(mine, converted):
                weight[...] = array
            for layer in self.walk():
                layer._params.version += 1
                layer._state.version += 1

    def _as_weight(self, array: Array, dtype: np.dtype[Any]) -> Array:
        try:
            return converted_or_raise(array, dtype)
        except FloatingPointError:
            largest = float(np.abs(array[np.isfinite(array)]).max())
            raise ValueError(
                f"{self.name}: set_weights takes numbers that {dtype} can hold. Received: {largest:.3g} in an array "
                f"of shape {array.shape}. Clip it with np.clip, or make the layer with dtype='float64'."
            ) from None

    def count_params(self) -> int:
        """Return how many numbers the weights hold, including the non-trainable ones."""
        if not self.built:
            raise ValueError(f"{self.name}: count_params needs weights to count. Call build(input_shape) first.")
        with only_reading():
            return sum(array.size for array in self.weights)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}, built={self.built}>"


def snake_case(name: str) -> str:
    """Return "conv2d" for "Conv2D", "max_pool" for "MaxPool": the default name of a layer."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
