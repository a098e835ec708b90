"""The table that `model.summary()` prints, in the form that Keras users know."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cnnlite.layers.residual import Residual
from cnnlite.support.printing import can_encode, encodable, encoding_of
from cnnlite.types import Shape

# The lines above the header, below it, between two layers and below the last; then the bars of the header and the rest.
_BOX = ("┏━┳━┓", "┡━╇━┩", "├─┼─┤", "└─┴─┘", "┃", "│")
_ASCII = ("+-+-+", "+=+=+", "+-+-+", "+-+-+", "|", "|")


def print_summary(model: Any, line_length: int | None = None, print_fn: Callable[[str], Any] | None = None) -> None:
    """Print the table, or pass it to `print_fn`, drawn with characters that can be encoded there."""
    print_fn = print_fn or print
    try:
        print_fn(summary_table(model, line_length, encoding_of(sys.stdout) if print_fn is print else None))
    except UnicodeEncodeError:  # from a file, or from a stdout that does not report its encoding
        print_fn(summary_table(model, line_length, "ascii"))


def summary_table(model: Any, line_length: int | None = None, encoding: str | None = None) -> str:
    """Return a table of the layers with their output shapes and numbers of weights, and the totals.

    A Residual is followed by the layers inside it, whose weights are counted in its row too. The table can be encoded
    in `encoding`; None allows any characters.
    """
    top, below_header, between, bottom, header_bar, bar = _BOX if can_encode("".join(_BOX), encoding) else _ASCII
    rows = [
        (
            encodable(f"{label} ({type(layer).__name__})", encoding),
            _shape(layer.output_shape) if layer.built else "?",
            f"{layer.count_params():,}" if layer.built else "0 (unbuilt)",
        )
        for label, layer in _rows(model, corner=bottom[0])
    ]
    header = ("Layer (type)", "Output Shape", "Param #")
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(3)]
    widths = [max(width, least) for width, least in zip(widths, (30, 22, 13))]
    if line_length is not None:
        widths[0] = max(widths[0], line_length - widths[1] - widths[2] - 10)

    title = encodable(f'Model: "{model.name}"', encoding)
    lines = [title, _rule(top, widths), _cells(header, widths, header_bar), _rule(below_header, widths)]
    for i, row in enumerate(rows):
        if i:
            lines.append(_rule(between, widths))
        lines.append(_cells(row, widths, bar))
    lines.append(_rule(bottom, widths))
    return "\n".join(lines + _totals(model))


def _rows(stack: Any, corner: str, lead: str = "", branch: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (label, layer) for the layers of a stack, and, below a Residual, for the layers of its branches."""
    for layer in stack.layers:
        yield f"{lead}{branch}{layer.name}", layer
        if isinstance(layer, Residual):
            for name, inner in layer.named_inner_layers():
                yield from _rows(inner, corner, "  " + (lead or f"{corner} "), f"{name}/")


def _totals(model: Any) -> list[str]:
    named = model.named_layers()
    trainable = sum(array.size for _, layer in named if layer.trainable for array in layer._params.values())
    frozen = sum(array.size for _, layer in named for array in (layer._params | layer._state).values()) - trainable
    itemsize = model.dtype.itemsize
    totals = [("Total params", trainable + frozen), ("Trainable params", trainable), ("Non-trainable params", frozen)]
    return [f" {text}: {count:,} ({_memory(count * itemsize)})" for text, count in totals]


def _shape(shape: Shape) -> str:
    return "(" + ", ".join(str(size) for size in shape) + ("," if len(shape) == 1 else "") + ")"


def _memory(size: int) -> str:
    """Return a byte count in the unit that leaves one to three digits before the point."""
    units = ("B", "KB", "MB", "GB")
    power = min(int(math.log(size, 1024)), len(units) - 1) if size else 0
    return f"{size / 1024**power:.2f} {units[power]}"


def _rule(corners: str, widths: Sequence[int]) -> str:
    left, line, cross, _, right = tuple(corners)
    return left + cross.join(line * (width + 2) for width in widths) + right


def _cells(texts: Sequence[str], widths: Sequence[int], bar: str) -> str:
    name, shape, count = texts
    cells = (name.ljust(widths[0]), shape.ljust(widths[1]), count.rjust(widths[2]))
    return bar + bar.join(f" {cell} " for cell in cells) + bar
