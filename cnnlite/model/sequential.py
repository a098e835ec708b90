"""Sequential: a stack of layers. A batch goes up the stack, and its gradient comes down the same stack."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from cnnlite.eager import is_eager
from cnnlite.engine.graph import current_graph
from cnnlite.files import saving
from cnnlite.layers.activation import ActivationLayer, Sigmoid, Softmax
from cnnlite.layers.activation_by_name import Activation
from cnnlite.layers.base import Layer
from cnnlite.layers.composite import built_or_left, fits
from cnnlite.layers.convolution import Convolution
from cnnlite.layers.dense import Dense
from cnnlite.layers.input import InputLayer
from cnnlite.layers.overrides import is_untouched, keeps, remember
from cnnlite.layers.parts import STACK_PASSES, Alone, Part, parts_of, whole
from cnnlite.layers.serialization import describe, rebuild, register
from cnnlite.model.passes import stretches_of
from cnnlite.model.plan_table import PlanTable, plan_table
from cnnlite.model.summary import print_summary
from cnnlite.model.training import Trainer
from cnnlite.support.arguments import boolean, float_array, integer, shape_tuple
from cnnlite.types import Array, ArrayLike, Config, Shape

if TYPE_CHECKING:
    from typing_extensions import Self

MOST_SHAPES = 64  # input shapes for which a model caches whether they fit


class Sequential(Trainer):
    """A plain stack of layers, each with one input and one output. It is itself a layer, and can be nested.

    Args:
        layers: a list of layers; the first may be an `Input`, or have `input_shape=`. Without either, the
            model is built by the first data that it sees.
        trainable: False freezes all weights during training.
        name: "sequential" by default.

    Raises:
        ValueError: two layers were given the same name, or a layer can't take the output of the one below it.
        TypeError: something in the list is not a layer.

    Example:

    >>> import cnnlite
    >>> from cnnlite import layers
    >>> model = cnnlite.Sequential([
    ...     cnnlite.Input(shape=(28, 28, 1)),
    ...     layers.Conv2D(8, 3, activation="relu"),
    ...     layers.MaxPool(),
    ...     layers.Flatten(),
    ...     layers.Dense(10, activation="softmax"),
    ... ])
    >>> model.output_shape
    (None, 10)
    >>> model.count_params()
    13610
    """

    _stack: _Stack | None = None  # only while several layers are being added

    def __init__(
        self,
        layers: Iterable[Layer | InputLayer] | None = None,
        trainable: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        if isinstance(layers, Layer):
            raise TypeError(f"{self.name}: layers must be a list. Received: {layers!r}. Write [layer].")
        self._add_all(layers or [])
        if not trainable:
            self.trainable = False

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for copies and pickles of the model: all but caches and the state of a running `fit`."""
        worked_out = ("_kept_loss", "training_run")
        return {name: value for name, value in super().__getstate__().items() if name not in worked_out}

    # The stack.

    @property
    def layers(self) -> list[Layer]:
        """The layers from bottom to top, as a new list."""
        return list(self.inner_layers)

    def add(self, layer: Layer | InputLayer) -> None:
        """Put a layer on top of the stack, and build it as soon as the shape of its input is known."""
        if isinstance(layer, InputLayer):
            if self.inner_layers or self.given_input_shape is not None:
                raise ValueError(f"{self.name}: an Input must come first, and only once. Received: another, {layer!r}.")
            self.given_input_shape = layer.shape
            return
        if not isinstance(layer, Layer):
            raise TypeError(f"{self.name}: add takes a layer. Received: {layer!r}, a {type(layer).__name__}.")
        if not hasattr(layer, "inner_layers"):
            raise TypeError(
                f"{self.name}: a layer must call super().__init__() first. Received: a {type(layer).__name__}, which "
                "does not."
            )
        stack = self._stack
        if stack is None or stack.layers is not self.inner_layers:
            stack = _Stack(self)
        for inner in layer.walk():
            if id(inner) in stack.present:
                raise ValueError(
                    f"{self.name}: a layer can be in a stack only once. Received: {inner.name!r} a second time. "
                    "Make another one of the same kind."
                )
        name = stack.free_name(layer)
        given = self.given_input_shape
        if not self.inner_layers and given is None:
            given = layer.given_input_shape
        below = stack.output_shape
        if below is not None:
            below = _build(layer, below)
        elif not self.inner_layers and given is not None:
            below = _build(layer, (None, *given))
            self.input_shape = (None, *given)
            self.built = True
        self.given_input_shape = given
        # From now on the name appears in files and paths, and must not change in another stack.
        layer.name, layer.name_is_given = name, True
        if not self.trainable:
            layer.trainable = False
        self.inner_layers = [*self.inner_layers, layer]
        stack.added(layer, self.inner_layers, below)

    def _add_all(self, layers: Iterable[Layer | InputLayer]) -> None:
        """Add layers one by one, without scanning all existing layers for each of them."""
        self._stack = _Stack(self)
        try:
            for layer in layers:
                self.add(layer)
        finally:
            self._stack = None

    def pop(self) -> Layer:
        """Take the top layer off the stack and return it."""
        if not self.inner_layers:
            raise ValueError(f"{self.name}: pop needs a layer to take. The model has none.")
        if len(self.inner_layers) == 1:
            self.built, self.input_shape = False, None
        *self.inner_layers, top = self.inner_layers
        return top

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """Return the layer of that name, or at that place in the stack."""
        if (name is None) == (index is None):
            raise ValueError(
                f"{self.name}: get_layer takes a name or an index. Received: name={name!r}, index={index!r}."
            )
        if index is not None:
            if not -len(self.inner_layers) <= index < len(self.inner_layers):
                raise ValueError(f"{self.name}: there are {len(self.inner_layers)} layers. Received: index={index}.")
            return self.inner_layers[index]
        found = {layer.name: layer for layer in self.inner_layers}
        if name not in found:
            raise ValueError(f"{self.name}: no layer is called {name!r}. The layers are: {', '.join(found)}.")
        return found[name]

    def build(self, input_shape: Shape | None = None) -> None:
        """Create the weights of all layers for inputs of `input_shape`, the batch axis included."""
        given = self.given_input_shape
        if not self.inner_layers and given is None:  # with an Input alone it is the identity, as in Keras
            raise ValueError(f"{self.name}: a model needs layers before it can be built. Use add(layer).")
        if input_shape is not None:
            self.check_input_shape(input_shape)
            sample = input_shape[1:]
        elif given is not None:
            sample = given
        else:
            raise ValueError(
                f"{self.name}: the shape of the input must be known. Start the stack with Input(shape=...), or call "
                "build((None, height, width, channels))."
            )
        input_shape = shape = (None, *sample)
        if given is not None and not fits(shape[1:], given):
            raise ValueError(
                f"{self.name}: the model takes samples of shape {given}. Received: an input of shape {input_shape}."
            )
        self.compute_output_shape(input_shape)  # so that a shape that does not fit leaves all layers unchanged
        with built_or_left(self.inner_layers):
            for layer in self.inner_layers:
                layer.build_once(shape)
                shape = layer.compute_output_shape(shape)
        self.input_shape = input_shape
        self.built = True

    # Up and down the stack.

    def forward(self, x: ArrayLike, training: bool = False) -> Array:
        """Return the output for a batch x; with `training=True` the layers remember what backward needs."""
        return self.run_up(x, training)

    def backward(self, dy: Array) -> Array:
        """Take d loss / d output, fill the gradients of all layers and return d loss / d input."""
        return self.run_down(dy)

    def backward_weights(self, dy: Array, from_logits: bool = False) -> None:
        """Fill the gradients of all trainable weights, and skip what only the gradient of the input needs.

        Args:
            dy: d loss / d output; or, with `from_logits=True`, d loss / d logits (see `forward_logits`).
        """
        if not from_logits and not keeps(self, "backward"):
            self.backward(dy)
            return
        (passes,) = self.recall()
        lowest = next((i for i, each in enumerate(passes) if each.has_trainable_weights), None)
        if lowest is None:
            return
        if is_eager() and all(isinstance(each, Alone) and each.part.is_ours for each in passes[:lowest + 1]):
            self.run_down(dy)  # all the way, so that the gradient can be followed in a debugger
            return
        for each in reversed(passes[lowest + 1:]):
            dy = each.backward(dy)
        passes[lowest].backward_weights(dy)

    def run_up(self, x: ArrayLike, training: bool = False, to_logits: bool = False) -> Array:
        """Run the layers in order, or the plans that replace several of them; see `passes.py`."""
        y: Array = self.prepare(x)
        units = self._units(to_logits)
        if not training:
            for unit in units:
                y = unit.forward(y)
            return y
        self.forget()  # the previous pass is over, even if this one fails
        passes = []
        for unit in units:
            y, run = unit.run_up(y)
            passes.append(run)
        self.remember(passes)
        return y

    def run_down(self, dy: Array) -> Array:
        """Take the gradient down through the passes that `run_up` remembered."""
        (passes,) = self.recall()
        for each in reversed(passes):
            dy = each.backward(dy)
        return dy

    def _units(self, to_logits: bool) -> list[Any]:
        if is_eager() or current_graph() is not None:
            return [Alone(part) for part in self._parts(lambda layer: [whole(layer)], to_logits)]
        return self.memo.get(("units", to_logits),
                             lambda: stretches_of(self._parts(parts_of, to_logits), self.memo))

    def _parts(self, parts_of: Callable[[Any], list[Part]], to_logits: bool) -> list[Part]:
        parts = [part for layer in self.inner_layers for part in parts_of(layer)]
        if to_logits:
            left_out = self._activation_of_logits()
            parts[-1] = parts[-1]._replace(left_out=left_out)
        return parts

    @property
    def activation(self) -> ActivationLayer | None:
        """The activation layer that the model ends with, or None."""
        top = self.inner_layers[-1] if self.inner_layers else None
        return top if isinstance(top, ActivationLayer) else getattr(top, "activation", None)

    @property
    def output_activation(self) -> str | None:
        """The name of the activation that the model ends with ("softmax"), or None."""
        return getattr(self.activation, "activation_name", None)

    @property
    def fusable_activation(self) -> str | None:
        """The name of the activation if a loss may be computed from its input instead of its output, else None.

        It is "softmax" or "sigmoid" if the output is exactly that function of what `forward_logits` returns: not for
        a subclass of these, nor if any pass has been overridden.
        """
        return self.memo.get("fusable activation", self._find_fusable_activation)

    def _find_fusable_activation(self) -> str | None:
        if not self.inner_layers or not keeps(self, *_PASSES):
            return None
        top: Any = self.inner_layers[-1]
        if isinstance(top, Sequential):
            return top.fusable_activation if keeps(top, *STACK_PASSES) else None
        if isinstance(top, (Dense, Convolution)) and keeps(top, "forward", "backward", "backward_weights"):
            top = top.activation
        if type(top) is Activation and is_untouched(top):
            top = top.activation
        fusable = type(top) is Sigmoid or (type(top) is Softmax and top.axis == (-1,))
        return top.activation_name if fusable and is_untouched(top) else None

    def _activation_of_logits(self) -> ActivationLayer:
        """Return the activation that takes the logits: the top layer itself, or the one inside it."""
        top: Any = self
        keeps_all = True
        while isinstance(top, Sequential) and top.inner_layers:
            top = top.inner_layers[-1]
            keeps_all &= keeps(top, *(STACK_PASSES if isinstance(top, Sequential) else _LAYER_PASSES))
        activation = top if isinstance(top, ActivationLayer) else None
        if isinstance(top, (Dense, Convolution)):
            activation = top.activation
        if activation is None:
            raise ValueError(
                f"{self.name}: for logits, the top layer must be an activation, or have one inside. Received: {top!r}."
            )
        if not keeps_all or not keeps(activation, *_LAYER_PASSES):
            raise ValueError(
                f"{self.name}: for logits, the top layer and its activation must have the library's own forward "
                f"and backward. Received: {top!r}, with others. Use forward, which calls them."
            )
        return activation

    def forward_logits(self, x: ArrayLike, training: bool = False) -> Array:
        """Return the input of the top layer's activation.

        A cross-entropy of logits is exact where the probabilities have already been rounded to 0 or 1.
        """
        return self.run_up(x, training, to_logits=True)

    def activate_logits(self, logits: Array) -> Array:
        """Return the output of the model for what `forward_logits` returned."""
        activation = self.activation
        return logits if activation is None else activation.forward(logits)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        shape = tuple(input_shape)
        for layer in self.inner_layers:
            layer.check_fits(shape)
            shape = layer.compute_output_shape(shape)
        return shape

    def check_fits(self, input_shape: Shape) -> None:
        """Raise a ValueError unless the model takes inputs of that shape.

        If it was given an input shape, only that one fits. Otherwise any shape fits that the layers can take.
        """
        built_for, shape = self.input_shape, tuple(input_shape)
        if not self.built or built_for is None or (shape and fits(shape[1:], built_for[1:])):
            return
        rule = reason = ""
        if self.given_input_shape is None and shape:
            try:
                self.compute_output_shape(shape)
                return
            except ValueError as error:
                rule, reason = ", or another that the layers can take", f" {error}"
        if fits((*shape[1:], 1), built_for[1:]):
            reason = " Add a channel axis: x[..., np.newaxis]."
        elif fits(shape, built_for[1:]):
            reason = " Add a batch axis: x[np.newaxis]."
        raise ValueError(
            f"{self.name}: the input must have the shape {built_for}{rule}. Received: shape={shape}.{reason}"
        )

    def prepare(self, x: ArrayLike) -> Array:
        """Return x as an array of the model's dtype, checked against the shape of a sample."""
        x = float_array(x, self.dtype, "x", self.name)
        built_for = self.build_once(x.shape)
        if x.ndim == 0 or (x.shape[1:] != built_for[1:] and not fits(x.shape[1:], built_for[1:])):
            self.memo.get(("fits", x.shape), lambda: self.check_fits(x.shape), MOST_SHAPES)
        return x

    # Description and files.

    def summary(self, line_length: int | None = None, print_fn: Callable[[str], Any] | None = None) -> None:
        """Print a table of the layers with their output shapes and numbers of weights.

        Args:
            line_length: the minimum width of the table.
            print_fn: called with the whole table instead of `print`. If it raises a UnicodeEncodeError, it is called
                again with a table in ASCII, which stdout also gets if it can't encode box-drawing characters.
        """
        print_summary(self, line_length, print_fn)

    def plan(self, batch_size: int = 32, training: bool = False, input_shape: Shape | None = None) -> PlanTable:
        """Return what runs for a batch; printing it shows a table.

        The stages are listed in the order in which they run, one per kernel that a layer calls. The stages between two
        lines run one after the other on a few samples at a time, while those are in cache; each line is a barrier for
        all threads. What the library can't see into (your own layer or loss) is listed in between.

        Args:
            batch_size: how many samples the batch has; the stages are the same for any number.
            training: True shows a training step (of `fit`, if the model is compiled), False an inference pass.
            input_shape: the shape of a sample; by default the one that the model was built for.

        Example:

        >>> import cnnlite
        >>> model = cnnlite.Sequential([cnnlite.Input((4,)), cnnlite.layers.Dense(3, activation="relu")])
        >>> "relu" in str(model.plan())
        True
        """
        return plan_table(self, integer(batch_size, "batch_size", "plan"), boolean(training, "training", "plan"),
                          None if input_shape is None else shape_tuple(input_shape, "input_shape", "plan"))

    def get_config(self) -> Config:
        taken = next((name for name, n in Counter(layer.name for layer in self.inner_layers).items() if n > 1), None)
        if taken is not None:
            raise ValueError(
                f"{self.name}: the names of layers must differ. Received: two layers called {taken!r}. "
                "Rename one of them."
            )
        return {
            "name": self.name,
            "trainable": self.trainable,
            "given_input_shape": None if self.given_input_shape is None else list(self.given_input_shape),
            "input_shape": None if self.input_shape is None else list(self.input_shape),
            "layers": [describe(layer) for layer in self.inner_layers],
        }

    @classmethod
    def from_config(cls, config: Config, custom_objects: dict[str, Any] | None = None) -> Self:
        """Make a model with new weights from what `get_config` returned.

        Args:
            config: the name, the shape of the input, and the layers.
            custom_objects: the layer classes that are not cnnlite's, by name: {"Scale": Scale}.
        """
        missing = {"name", "trainable", "given_input_shape", "input_shape", "layers"} - set(config)
        if missing:
            raise ValueError(f"{cls.__name__}: the config must have {', '.join(sorted(missing))}, but lacks them.")
        model = cls(name=config["name"])
        if config["given_input_shape"] is not None:
            model.given_input_shape = shape_tuple(config["given_input_shape"], "given_input_shape", model.name)
        model._add_all(rebuild(layer, custom_objects) for layer in config["layers"])
        if config["input_shape"] is not None:
            model.build(config["input_shape"])
        # Not through the property, which would set it on the layers too.
        model._trainable = boolean(config["trainable"], "trainable", model.name)
        return model

    def save(self, filepath: str | os.PathLike[str], overwrite: bool = True, include_optimizer: bool = True) -> None:
        """Write weights, architecture and optimizer state to one file; see `cnnlite.saving.save_model`."""
        saving.save_model(self, filepath, overwrite=overwrite, include_optimizer=include_optimizer)

    def save_weights(self, filepath: str | os.PathLike[str], overwrite: bool = True) -> None:
        """Write the weights alone; see `cnnlite.saving.save_weights`."""
        saving.save_weights(self, filepath, overwrite=overwrite)

    def load_weights(self, filepath: str | os.PathLike[str]) -> None:
        """Read the weights from a file of a model of the same architecture; see `cnnlite.saving.load_weights`."""
        saving.load_weights(self, filepath)


class _Stack:
    """What `Sequential.add` must know about the existing layers; valid as long as only `add` changes them.

    Attributes:
        layers: the `inner_layers` that it describes.
        present: the ids of the model, its layers, and all layers inside them.
        output_shape: the output shape of the model, or None.
    """

    def __init__(self, model: Sequential) -> None:
        self.owner, self.layers = model.name, model.inner_layers
        self.present = {id(layer) for layer in model.walk()}
        self.output_shape = model.output_shape
        self._names = {layer.name for layer in self.layers}
        self._numbers: dict[str, int] = {}  # by name: the last number appended to it

    def free_name(self, layer: Layer) -> str:
        """Return the layer's name, numbered if the name was not given and is taken."""
        name, number = layer.name, self._numbers.get(layer.name, 0)
        while name in self._names:
            if layer.name_is_given:
                raise ValueError(
                    f"{self.owner}: the names of layers must differ. Received: a second layer called {name!r}. "
                    "Give one of them another name=."
                )
            number += 1
            name = f"{layer.name}_{number}"
        self._numbers[layer.name] = number
        return name

    def added(self, layer: Layer, layers: Sequence[Layer], output_shape: Shape | None) -> None:
        """Record that a layer has been put on top."""
        self.layers, self.output_shape = layers, output_shape
        self.present.update(id(inner) for inner in layer.walk())
        self._names.add(layer.name)


def _build(layer: Layer, shape: Shape) -> Shape:
    """Build a layer for inputs of that shape, or check that an already built one can take them.

    Returns:
        its output shape.
    """
    with built_or_left([layer]):
        layer.build_once(shape)
        layer.check_fits(shape)
        return layer.compute_output_shape(shape)


_LAYER_PASSES = "forward", "backward"
_PASSES = (
    "forward", "backward", "backward_weights", "forward_logits", "activate_logits", "run_up", "run_down", "activation",
    "fusable_activation",
)
remember([Sequential])
register(Sequential)


