"""Compare this version of cnnlite with another, whose source is in another folder, such as a git worktree.

    git worktree add ../before v1.0
    python -m benchmarks.versions ../before              # all networks, 5 minutes
    python -m benchmarks.versions ../before W1 S1        # some of them

Each version runs in a process of its own; the two take turns in short blocks. The ratio, taken per round, is the other
version's time divided by this one's: above 1, this one is faster. Kernels are compiled before anything is timed, each
version's into its own folder.

For one image, `activations.softmax(model(x))` is compared with `model(x)` of the same version, in the same process.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from benchmarks import machine
from benchmarks.figures import ratios_of, spread
from benchmarks.measure import Bench
from benchmarks.nets import EVERY_NET, NETS, inference, training
from benchmarks.tables import milliseconds, table
from benchmarks.workers import ROOT, Worker

THIS, OTHER = VERSIONS = "this version", "the other one"

# Only the library is imported from a version's folder; both are measured by the same program.
PROGRAM = f"""
import sys
sys.path.insert(0, sys.argv[1])
import cnnlite
sys.path[0] = {str(ROOT)!r}
from benchmarks.workers import main
main("cnnlite")
"""


def main():
    options = read_options()
    folders = dict(zip(VERSIONS, (ROOT, options.path)))
    bench = Bench(VERSIONS, options.rounds, options.seconds, options.threads, partial(worker, folders))
    lines = []
    try:
        for name in options.nets or NETS:
            for work, job in jobs(name).items():
                add(lines, line(work, bench.compare(dict.fromkeys(VERSIONS, job))["seconds"]))
            one = {**inference(EVERY_NET[name], 1), "kind": "softmax"}
            parts = bench.compare(dict.fromkeys(VERSIONS, one))["seconds"]
            add(lines, line(f"infer {name}, batch 1", {version: answers for version, (answers, _) in parts.items()}))
            add(lines, line_of_softmax(name, parts))
    finally:
        bench.close()
    print(table(["Work", f"{THIS}, ms", f"{OTHER}, ms", "ratio", "lowest to highest"], lines))


def add(lines, cells):
    lines.append(cells)
    print(" | ".join(cells), file=sys.stderr, flush=True)


def read_options():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.versions", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=folder, help="the folder that contains the other version's cnnlite folder")
    parser.add_argument("nets", nargs="*", metavar="net",
                        help=f"some of {', '.join(EVERY_NET)}; by default all but ResNet-18")
    parser.add_argument("--rounds", type=int, default=9, help="blocks per version (default: 9)")
    parser.add_argument("--seconds", type=float, default=0.12, help="length of a block (default: 0.12)")
    parser.add_argument("--threads", type=int, default=machine.cores(), help="threads per version (default: all cores)")
    options = parser.parse_args()
    for name in options.nets:
        if name not in EVERY_NET:
            parser.error(f"the networks are {', '.join(EVERY_NET)}. Received: {name!r}.")
    return options


def folder(text):
    path = Path(text).resolve()
    if not (path / "cnnlite" / "__init__.py").is_file():
        raise argparse.ArgumentTypeError(f"must contain a folder cnnlite. Received: {text!r}.")
    return path


def worker(folders, name, threads):
    return Worker(name, threads, program=("-c", PROGRAM, str(folders[name])))


def jobs(name):
    """Return {description of the work: job}."""
    net = EVERY_NET[name]
    return {f"train {name}": training(net), f"infer {name}, batch {net.batch}": inference(net, net.batch)}


def line(work, seconds):
    """Return the cells of a line; the cells of a version that failed are empty."""
    medians = [milliseconds(spread(seconds[version], "seconds")["seconds"]) if version in seconds else ""
               for version in VERSIONS]
    if not all(medians):
        return [work, *medians, "", ""]
    figures = spread(ratios_of(seconds[OTHER], seconds[THIS]), "ratio")
    return [work, *medians, f"**{figures['ratio']:.2f}**", f"{figures['lowest']:.2f} to {figures['highest']:.2f}"]


def line_of_softmax(name, parts):
    """Return the cells of a line with the time of `softmax(model(x))` relative to `model(x)`."""
    cells = []
    for version in VERSIONS:
        answers, probabilities = parts.get(version, ([], []))
        figures = spread(ratios_of(probabilities, answers), "times") if answers else None
        cells.append(f"{figures['times']:.2f} times" if figures else "")
    return [f"softmax of {name} against {name}, batch 1", *cells, "", ""]


if __name__ == "__main__":
    main()
