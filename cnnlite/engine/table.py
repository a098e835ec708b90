"""A plan as a readable table: what runs in what order, in which units, and where its buffers are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cnnlite.engine.buffers import THREAD_LOCAL, WORK, Buffer
from cnnlite.engine.graph import Step
from cnnlite.engine.program import Layout, Program, shape_of, work_of
from cnnlite.engine.schedule import size_of
from cnnlite.engine.stages import BATCH

_HEADINGS = ("stage", "layer", "unit", "footprint", "shapes", "MFLOP", "read", "written", "lies at")


def table(titled_programs: Sequence[tuple[str, Program, int]], samples: int) -> str:
    """Return the table of some programs for that many samples: [(title, program, bands of a sample), ...].

    A line marks the barrier between two groups. A buffer "in the thread" is never in the memory that all threads
    share; two buffers at the same place use that memory in turn.
    """
    lines: list[Any] = []
    totals = [0.0, 0, 0, 0, 0]
    for title, program, bands in titled_programs:
        layout = program.layout(samples, bands)
        lines.append(f"{title}:")
        number = 0
        for group in program.schedule.groups:
            lines.append(None)
            for track in group:
                row = layout.tracks[number]
                local = {buffer.number for buffer in track.local}
                for step in track.steps:
                    cells, amounts = _row(step, row, layout, local)
                    lines.append(cells)
                    totals[:3] = [total + amount for total, amount in zip(totals, amounts)]
                number += 1
        lines.append(None)
        totals[3], totals[4] = totals[3] + layout.size, max(totals[4], layout.own_bytes)
    rows = [row for row in lines if isinstance(row, tuple)]
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *rows)]
    text = [_line(_HEADINGS, widths)]
    for row in lines:
        text.append("─" * len(text[0]) if row is None else row if isinstance(row, str) else _line(row, widths))
    flops, read, written, shared, own = totals
    groups = sum(len(program.schedule.groups) for _, program, _ in titled_programs)
    text.append(
        f"{len(rows)} stages in {groups} groups, {flops:.1f} MFLOP; {_bytes(read)} read and {_bytes(written)} written; "
        f"{_bytes(shared)} of workspace, and {_bytes(own)} for each thread."
    )
    return "\n".join(line.rstrip() for line in text)


def _row(step: Step, track: Any, layout: Layout, local: set[int]) -> tuple[tuple[str, ...], tuple[float, int, int]]:
    samples = layout.samples
    is_batch = step.stage.footprint == BATCH
    flops = work_of(step, samples) / 1e6
    read, written = (sum(size_of(buffer, samples) for buffer in buffers) for buffers in (step.inputs, step.outputs))
    if is_batch:
        unit = f"{track['units']} blocks" if track["units"] > 1 else "all"
    else:
        size = min(int(track["together"]), samples)
        unit = f"{size} sample{'s' * (size != 1)}"
        unit += f" of {track['units']} chunks" if track["adds"] else ""
        unit = f"1 of {track['bands']} bands" if track["bands"] > 1 else unit
    # Without its THREAD_LOCAL buffers, which no other stage reads.
    outputs = [buffer for buffer in step.outputs if layout.program.graph.buffers[buffer.number].kind != THREAD_LOCAL]
    arrow = " → ".join(", ".join(_shape(buffer, samples) for buffer in buffers) for buffers
                       in (step.inputs[:1], outputs) if buffers)
    places = ", ".join(_place(buffer, layout, local) for buffer in outputs)
    cells = (step.stage.name, step.layer, unit, step.stage.footprint, arrow, f"{flops:.2f}", _bytes(read),
             _bytes(written), places)
    return cells, (flops, read, written)


def _place(buffer: Buffer, layout: Layout, local: set[int]) -> str:
    storage = layout.program.graph.buffers[buffer.number]
    if buffer.number in local:
        return "in the thread"
    if storage.kind == WORK and buffer.number in layout.places:
        begin = layout.places[buffer.number]
        return f"{begin:,}..{begin + size_of(buffer, layout.samples):,}"
    return str(storage.key) if isinstance(storage.key, str) else storage.kind


def _shape(buffer: Buffer, samples: int) -> str:
    return "×".join(map(str, shape_of(buffer, samples))) or "1"


def _bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    right = ("MFLOP", "read", "written")
    return "  ".join(cell.rjust(width) if heading in right else cell.ljust(width)
                     for cell, width, heading in zip(cells, widths, _HEADINGS))
