"""torch.compile: PyTorch's network and loss as generated C++, in the layout in which eager PyTorch is the faster one."""

import torch

from benchmarks.sides import with_torch
from benchmarks.sides.ways import fastest

LAYOUTS = {"channels first": "channels_first", "channels last": "channels_last"}


def prepare(job, layout, threads):
    def eager(layout):
        return lambda: with_torch.prepare(job, layout, threads)[0]

    _, best = fastest({note: eager(layout) for note, layout in LAYOUTS.items()})
    # What was compiled for earlier jobs counts against a limit; beyond it PyTorch would run uncompiled.
    torch.compiler.reset()
    run, count = with_torch.prepare(job, LAYOUTS[best], threads, lambda function: torch.compile(function, dynamic=False))
    return run, count, best
