"""Sequential: the model that users build, from adding layers to saving them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from cnnlite.files import saving
from cnnlite.layers.base import Layer
from cnnlite.layers.composite import unbuilt_on_error
from cnnlite.layers.input import InputLayer
from cnnlite.layers.overrides import remember
from cnnlite.layers.serialization import describe, rebuild, register
from cnnlite.model.plan_table import PlanTable, plan_table
from cnnlite.model.summary import print_summary
from cnnlite.model.training import Trainer
from cnnlite.support.arguments import boolean, integer, shape_tuple
from cnnlite.types import Config, Shape

if TYPE_CHECKING:
    from typing_extensions import Self


class Sequential(Trainer):
    """A plain stack of layers, each with one input and one output. It is itself a layer, and can be nested.

    Args:
        layers: a list of layers; the first may be an `Input`, or have `input_shape=`. Without either, the
            model is built for the first data that it sees.
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
        """Return the layer of that name, or at that index in the stack."""
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
    with unbuilt_on_error([layer]):
        layer.build_once(shape)
        layer.check_fits(shape)
        return layer.compute_output_shape(shape)


remember([Sequential])
register(Sequential)


