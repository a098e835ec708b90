"""What every layer shares: building, input checks, and the methods that a layer of your own defines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cnnlite import regularizers
from cnnlite.layers.memo import Memo, WeakSet, note_change
from cnnlite.layers.pass_memory import PassMemory
from cnnlite.layers.settings import DTypeSetting
from cnnlite.layers.tree import LayerTree
from cnnlite.layers.weights import ArrayDict
from cnnlite.support.arguments import boolean, float_array, shape_tuple
from cnnlite.support.locks import in_forked_children, new_lock
from cnnlite.types import Array, ArrayLike, Config, DTypeLike, Shape

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


class Layer(LayerTree, PassMemory):
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
        """Return what copies and pickles carry over: everything but the memos of models and what the last pass kept."""
        return {**{name: value for name, value in vars(self).items() if name != "_memos"}, "_memory": None}

    def __setattr__(self, name: str, value: Any) -> None:
        # A tuple: a layer appended to a list would go unnoticed.
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

    @property
    def is_traceable(self) -> bool:
        """Whether a plan can replace the layer: what it computes must not depend on the number of samples."""
        return True

    # What users read from a layer.

    @property
    def output_shape(self) -> Shape | None:
        """The shape of the output, with None for the batch; None before the layer is built."""
        return None if self.input_shape is None else self.compute_output_shape(self.input_shape)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}, built={self.built}>"


def snake_case(name: str) -> str:
    """Return "conv2d" for "Conv2D", "max_pool" for "MaxPool": the default name of a layer."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
