"""Compile kernels ahead of time, on all cores: while building a container image, for example.

    python -m cnnlite.warmup                      # all of them, for float32
    python -m cnnlite.warmup --dtype float64      # or for the precision of gradient checks
    python -m cnnlite.warmup model.keras          # what a saved model needs to predict and, if it is compiled, to train

They are kept where every process that uses the library looks for them; the last line of output says where.
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from cnnlite.eager import is_eager
from cnnlite.engine import executor, helpers, jit
from cnnlite.model.progress import Progress
from cnnlite.support.printing import message

MOST = 8  # helper processes: each takes about 200 MB


def warm_up(dtype: str = "float32", verbose: int = 1) -> None:
    """Compile all kernels of the library for a dtype, and keep them on disk."""
    names = [name for name in jit.tasks if name.startswith("cnnlite.")]
    progress = Progress(f"Kernels, {dtype}", len(names), verbose, line=False)
    try:
        with helpers.beside(names, dtype, most=MOST):
            for name in names:
                jit.tasks[name].compile(np.dtype(dtype))
                progress.step(0)
                progress.show({})
        executor.compile_entry()
    finally:
        progress.close()


def warm_up_model(path: str) -> None:
    """Compile what a saved model needs to predict and, where it was compiled with a loss, to train."""
    # Imported here, as this needs the whole library and `warm_up` only a little of it.
    from cnnlite.files.saving import load_model

    model = load_model(path)
    progress = Progress(path, verbose=1, line=False)
    try:
        for training in (False, True) if model.compiled and not model.run_eagerly else (False,):
            model.plan(training=training)
        executor.compile_entry()
    finally:
        progress.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program, and return its exit status."""
    purpose = "Compile kernels before they are needed."
    parser = argparse.ArgumentParser(prog="python -m cnnlite.warmup", description=purpose)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="compile only what these saved models need")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="default: float32")
    options = parser.parse_args(arguments)
    if is_eager():
        message("cnnlite: nothing is compiled in eager mode.", sys.stderr)
        return 1
    try:
        for path in options.models:
            warm_up_model(path)
        if not options.models:
            warm_up(options.dtype)
    except (OSError, ValueError) as error:
        message(f"cnnlite: {error}", sys.stderr)
        return 1
    folder, why_not = jit.place()
    if folder is None:
        message(f"cnnlite: no kernels can be kept: {why_not}", sys.stderr)
        return 1
    message(f"cnnlite: compiled kernels are kept in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
