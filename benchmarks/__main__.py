"""Measure cnnlite against other libraries and report the ratios.

    python -m benchmarks                        everything, about 35 minutes
    python -m benchmarks --quick                a little of everything, to check that it works
    python -m benchmarks --only train,conv      some topics
    python -m benchmarks --isa avx2             without AVX-512

The topics:

    train     training steps of small networks
    infer     model(x) of one image and of a batch
    avx2      training steps without AVX-512
    conv      single convolutions, and the machine's peak rates
    large     single operations with many channels or units, and ResNet-18
    roof      training steps against the machine's SGEMM
    busy      a training step while another process keeps one core busy
    script    a Keras script, from start to exit
    start     import and first step of a new process
    memory    peak memory of training
    growth    a training step, and the rate of convolutions, as the work grows

Writes results.json, results.md and plots to the folder given by --out. README.md explains how to read them.
"""

import argparse
import importlib.util
import os
import sys
import time
from pathlib import Path

from benchmarks import avx2, figures, machine, report, tables
from benchmarks.measure import Bench
from benchmarks.sides import SIDES, TORCH, is_installed, what_is_missing
from benchmarks.topics import MISSING, TOPICS
from cnnlite.support.distribution import how_to_install


def main():
    options = read_options()
    require_opponents(options.only)
    missing = {name: why for name in SIDES if (why := what_is_missing(name))}
    if options.isa == "avx2":
        os.environ.update(avx2.variables())  # inherited by all workers
        missing |= avx2.WITHOUT_A_SWITCH
    missing |= {topic: why for topic in options.only if topic in MISSING and (why := MISSING[topic]())}
    for name, why in missing.items():
        print(f"{name} is left out; {why}.", file=sys.stderr)
    names = [name for name in SIDES if name not in missing]
    rounds = options.rounds or (2 if options.quick else 5)
    run = {"rounds": rounds, "threads": options.threads, "isa": options.isa, "quick": options.quick,
           "missing": missing, "load_before": machine.load(), "load_after": machine.load(), "seconds": {}}
    whole = {"machine": machine.describe(), "run": run, "results": []}
    times = machine.times()
    bench = Bench(names, rounds, seconds=0.05 if options.quick else 0.35, threads=options.threads)
    try:
        for topic in [topic for topic in options.only if topic not in missing]:
            start = time.monotonic()
            for result in TOPICS[topic](bench, options.quick):
                whole["results"].append(result)
                print(figures.in_one_line(result), file=sys.stderr, flush=True)
            run["seconds"][topic] = round(time.monotonic() - start)
            run["load_after"] = machine.load()
            report.write(whole, options.out)  # after each topic, so that an interrupted run keeps what it has so far
    finally:
        bench.close()
    # The processor time of the sides is known only once their processes have ended.
    run.update(machine.meanwhile(times, machine.times()))
    report.write(whole, options.out)
    print(tables.on_screen(whole))
    print(f"Written to {options.out}; results.md also lists every convolution.")


def read_options():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="short blocks, two rounds, and a sample of each topic")
    parser.add_argument("--rounds", type=int, help="blocks per side (default: 5)")
    parser.add_argument("--only", type=topics, default=list(TOPICS), help=f"some of {','.join(TOPICS)}")
    parser.add_argument("--threads", type=int, default=machine.cores(), help="threads per side (default: all cores)")
    parser.add_argument("--isa", choices=["avx2"], help="measure all topics without AVX-512")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), help="folder to write to")
    options = parser.parse_args()
    for name in ("rounds", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name} must be at least 1. Received: {value}.")
    if options.isa and (why := avx2.what_is_missing()):
        parser.error(f"--isa {options.isa} changes nothing: {why}.")
    return options


def topics(text):
    names = text.split(",")
    for name in names:
        if name not in TOPICS:
            raise argparse.ArgumentTypeError(f"the topics are {', '.join(TOPICS)}. Received: {name!r}.")
    return names


def require_opponents(only):
    """Exit with the command that installs what is missing; nothing is installed automatically."""
    missing = [] if importlib.util.find_spec("matplotlib") else [how_to_install("bench")]
    if not is_installed(TORCH) and set(only) != {"roof"}:
        missing.insert(0, "pip install torch==2.13.0")
    if missing:
        sys.exit(f"benchmarks: PyTorch or Matplotlib, which a run needs, is missing. Run: {'; '.join(missing)}")


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # for paths that the terminal can't display
    main()
