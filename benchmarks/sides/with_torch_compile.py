"""torch.compile: PyTorch's network and loss as generated C++.

Compiling takes up to a minute, so it happens once, with the layout and number of threads fastest in eager PyTorch.
"""

import itertools

import torch

from benchmarks.sides import with_torch
from benchmarks.sides.ways import fastest

LAYOUTS = {"channels first": "channels_first", "channels last": "channels_last"}


def prepare(job, layout, threads):
    def eager(layout, threads):
        return lambda: with_torch.prepare(job, LAYOUTS[layout], threads)[0]

    tried = itertools.product(LAYOUTS, {1, threads})
    _, (layout, threads) = fastest({way: eager(*way) for way in tried})
    # Code compiled for earlier jobs counts against a limit; beyond it PyTorch would run eagerly.
    torch.compiler.reset()
    run, count = with_torch.prepare(job, LAYOUTS[layout], threads, lambda run: torch.compile(run, dynamic=False))
    return run, count, f"{layout}, compiled for {threads} thread{'s' if threads > 1 else ''}"
