"""compile: the optimizer, the loss and the metrics of a model."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Sequence
from typing import Any

from cnnlite import losses, metrics, optimizers
from cnnlite.eager import reference_mode
from cnnlite.layers.overrides import class_keeps, keeps, remember
from cnnlite.losses import Loss
from cnnlite.metrics import Metric
from cnnlite.model.advice import advise
from cnnlite.model.stack import Stack
from cnnlite.optimizers import Optimizer
from cnnlite.support.arguments import boolean
from cnnlite.types import Array, Config, Identifier, Logs, Scores


class Compiled(Stack):
    """The part of a model that holds its optimizer, loss and metrics.

    Attributes:
        compiled: whether `compile` has been called.
    """

    compiled = False
    _optimizer: Optimizer | None = None
    _loss: Loss | None = None
    _run_eagerly = False
    _metrics: tuple[tuple[Metric, bool], ...] = ()  # pairs (metric, whether it takes sample weights)
    _advised = False  # whether `advise` has checked the layers against the loss
    _kept_loss: tuple[Any, ...] | None = None  # the loss, a snapshot of its contents, and its version for logits

    # Set by compile.

    @property
    def optimizer(self) -> Any:
        """The optimizer, which `compile` takes as an object or by name; another one may be assigned."""
        return self._optimizer

    @optimizer.setter
    def optimizer(self, optimizer: Identifier | Optimizer | None) -> None:
        self._optimizer = None if optimizer is None else optimizers.get(optimizer)

    @property
    def loss(self) -> Any:
        """The loss, which `compile` takes as an object or by name; another one may be assigned.

        Metrics given by name were made for the loss passed to `compile`; they stay the same even if only one of the two
        losses takes logits.
        """
        return self._loss

    @loss.setter
    def loss(self, loss: Identifier | Loss | None) -> None:
        self._loss = None if loss is None else losses.get(loss)
        self._advised = False

    @property
    def run_eagerly(self) -> bool:
        """Whether the model trains, evaluates and predicts in eager mode; see `cnnlite.reference_mode`."""
        return self._run_eagerly

    @run_eagerly.setter
    def run_eagerly(self, run_eagerly: bool) -> None:
        self._run_eagerly = boolean(run_eagerly, "run_eagerly", "compile")

    def compile(
        self,
        optimizer: Identifier | Optimizer = "rmsprop",
        loss: Identifier | Loss | None = None,
        loss_weights: None = None,
        metrics: Identifier | Sequence[Identifier] | None = None,
        weighted_metrics: Identifier | Sequence[Identifier] | None = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | str = "auto",
        auto_scale_loss: bool = True,
    ) -> None:
        """Configure the model for training.

        Args:
            optimizer: a name ("adam"), for a new optimizer with its defaults; or an optimizer, which keeps its state.
            loss: a name ("sparse_categorical_crossentropy") or a loss.
            loss_weights: must be None, as a `Sequential` has a single output.
            metrics: a list of names ("accuracy"), metrics or functions. Sample weights are ignored.
            weighted_metrics: the same, with sample weights.
            run_eagerly: True trains, evaluates and predicts in eager mode: layer by layer on `reference.py`,
                for debugging and study; see `cnnlite.reference_mode`. Default False.
            steps_per_execution, jit_compile, auto_scale_loss: accepted as in Keras; they have no effect here.

        Raises:
            ValueError: a name is unknown, or two metrics have the same name.
            TypeError: an argument is none of the above.
        """
        if loss_weights is not None:
            raise ValueError(
                "compile: loss_weights must be None for a model with one output. "
                f"Received: loss_weights={loss_weights!r}. Metrics are passed as metrics=[...]."
            )
        new_optimizer = optimizers.get(optimizer)
        new_loss = None if loss is None else losses.get(loss)
        new_metrics = _named_metrics(metrics, weighted_metrics, new_loss)
        self.run_eagerly = run_eagerly
        self.optimizer, self.loss, self._metrics = new_optimizer, new_loss, new_metrics
        self.compiled = True
        self._advise("compile")

    def get_compile_config(self) -> Config | None:
        """Return the arguments of `compile` as plain values; None if it was never called."""
        if not self.compiled:
            return None
        return {
            "optimizer": optimizers.serialize(self.optimizer),
            "loss": losses.serialize(self.loss),
            "metrics": [metrics.serialize(metric) for metric, weighted in self._metrics if not weighted],
            "weighted_metrics": [metrics.serialize(metric) for metric, weighted in self._metrics if weighted],
            "run_eagerly": self.run_eagerly,
        }

    def compile_from_config(self, config: Config) -> None:
        """Compile the model from what `get_compile_config` returned."""
        self.compile(**config)

    @property
    def metrics(self) -> list[Metric]:
        """The metrics, in the order given."""
        return [metric for metric, _ in self._metrics]

    @property
    def metrics_names(self) -> list[str]:
        """The names of the values that `evaluate` returns: "loss", then the metrics."""
        return ["loss", *(metric.name for metric in self.metrics)]

    def _advise(self, owner: str) -> None:
        """Warn once if the layers and the loss clearly don't belong together, as soon as both exist."""
        if self.loss is not None and self.layers:
            self._advised = True
            advise(self, self.loss, owner)

    def _fused_loss(self) -> tuple[Any, bool]:
        """Return the loss to compute, and whether it takes logits rather than outputs."""
        loss, activation = self.loss, self.fusable_activation
        if activation is None or loss.fused_activation != activation:
            return loss, False
        # A loss, or its class, may be modified after `compile`. (Comparing tuples of identical objects is fast.)
        seen, kept = (type(loss), *_methods_of(type(loss)), *vars(loss).values()), self._kept_loss
        if kept is None or kept[0] is not loss or not _are_equal(kept[1], seen):
            # A user's own `on_logits` is trusted: the user decides what replaces the loss.
            can_be = keeps(loss, *_LOSS_METHODS) or not class_keeps(type(loss), "on_logits")
            kept = self._kept_loss = loss, seen, loss.on_logits() if can_be else None
        return (loss, False) if kept[2] is None else (kept[2], True)

    def _mode(self) -> contextlib.AbstractContextManager[None]:
        """Return the context to compute a step in."""
        return reference_mode() if self._run_eagerly else contextlib.nullcontext()

    def _update_metrics(self, y: Array, z: Array, sample_weight: Array | None) -> None:
        """Update the metrics with a batch, given the logits or outputs z that the loss was computed from."""
        if not self._metrics:
            return
        # A new array either way: z may be in a buffer that the next step overwrites, and a metric may keep it.
        _, fused = self._fused_loss()
        with self._mode():
            y_pred = self.activate_logits(z) if fused else z.copy()
        for metric, weighted in self._metrics:
            metric.update_state(y, y_pred, sample_weight if weighted else None)

    def _values(self, logs: Logs, return_dict: bool) -> Scores:
        """Return the loss and the metrics as a dict, a list, or the loss alone, as Keras does."""
        if return_dict:
            return logs
        return list(logs.values()) if len(logs) > 1 else logs["loss"]

    def _require_layers(self, owner: str) -> None:
        if not self.layers:
            raise ValueError(f"{owner}: the model must have layers. Received: none. Use add(layer).")

    def _require_loss(self, owner: str) -> None:
        self._require_layers(owner)
        if not self.compiled:
            raise ValueError(
                f"{owner}: the model must be compiled. Received: one that is not. "
                "Call compile(optimizer, loss) first."
            )
        if self.loss is None:
            raise ValueError(
                f"{owner}: the model must have a loss. Received: one compiled with loss=None. "
                "Call compile(optimizer, loss) with one."
            )
        if not self._advised:
            self._advise(owner)


# The methods that a loss on logits replaces.
_LOSS_METHODS = (
    "forward", "gradient", "backward", "value_and_gradient", "__call__", "prepare", "prepare_predictions", "_reduce",
    "_scale",
)
_own_methods_of = operator.attrgetter(*_LOSS_METHODS)
remember(losses.LOSSES.values())


def _methods_of(cls: type) -> list[Any]:
    """Return the methods of a loss's class and of its base classes, which super() may call."""
    return [method for base in cls.__mro__ if Loss in base.__mro__ for method in _own_methods_of(base)]


def _are_equal(some: Any, others: Any) -> bool:
    try:
        return bool(some == others)
    except ValueError:  # from comparing arrays that are not the same object
        return False


def _named_metrics(unweighted: Any, weighted: Any, loss: Loss | None) -> tuple[tuple[Metric, bool], ...]:
    """Return pairs (metric, whether it is weighted); a ValueError if two share a name."""
    pairs: list[tuple[Metric, bool]] = []
    for identifiers, takes_weights in ((unweighted, False), (weighted, True)):
        if identifiers is None:
            continue
        if not isinstance(identifiers, (list, tuple)):
            identifiers = [identifiers]
        for identifier in identifiers:
            metric = metrics.get(identifier, loss=loss)
            taken = ["loss", *(other.name for other, _ in pairs)]
            if takes_weights and isinstance(identifier, str) and metric.name in taken:
                metric.name = f"weighted_{metric.name}"
            if metric.name in taken:
                raise ValueError(
                    f"compile: the names of metrics must differ from each other and from 'loss'. "
                    f"Received: {metric.name!r} a second time. Give one of them another name=."
                )
            pairs.append((metric, takes_weights))
    return tuple(pairs)
