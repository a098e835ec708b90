"""Fuzz the readers, guided by which lines of them each input reaches: `python -m tests.stress.fuzz --minutes 30`.

It needs Atheris (`pip install atheris`), and runs one target after another in processes of their own, with kernels in
plain NumPy and an address space of a fixed size, so that a reader which asks for too much memory is caught. What it
learnt is kept under results/fuzz, and the next run goes on from there. The table gives for each target the inputs
tried, the branches reached and the inputs that broke a promise, which lie in results/fuzz/found.

`--plain 1000` tries so many random changes of good inputs on each target instead, which needs no Atheris.
"""

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from tests.stress.fuzz.targets import TARGETS

FOLDER = Path("results/fuzz")


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.stress.fuzz", description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=30, help="in all; model files get the largest part")
    parser.add_argument("--target", action="append", choices=TARGETS, help="only this one; can be given several times")
    parser.add_argument("--table", action="store_true", help="only print what was tried so far")
    parser.add_argument("--plain", type=int, metavar="N", help="N random inputs for each target, without Atheris")
    arguments = parser.parse_args()
    if arguments.plain:
        for name in arguments.target or TARGETS:
            print(f"{attack(name, arguments.plain)} {name}", flush=True)
        return
    if not arguments.table:
        if importlib.util.find_spec("atheris") is None:
            sys.exit("Fuzzing needs Atheris: pip install atheris")
        chosen = arguments.target or list(TARGETS)
        parts = {name: 3 if name == "model files with a valid checksum" else 1 for name in chosen}
        for name in chosen:
            fuzz(name, round(60 * arguments.minutes * parts[name] / sum(parts.values())))
    found = print_table()
    sys.exit(1 if found else 0)


def attack(name, number, seed=0):
    """Try good inputs and random changes of them, and return how many were survived: all, or there is an error."""
    target, random = TARGETS[name], Random(seed)
    inputs = target.seeds()
    with tempfile.TemporaryDirectory() as folder:
        for i in range(number):
            data = inputs[i] if i < len(inputs) else random.choice(inputs)
            for _ in range(0 if i < len(inputs) else random.choice([1, 1, 2, 3])):
                data = target.mutate(data, random)
            try:
                target.attack(data, Path(folder))
            except BaseException:
                FOLDER.mkdir(parents=True, exist_ok=True)
                (FOLDER / "last").write_bytes(data)
                raise
    return number


def fuzz(name, seconds):
    """Run one target for so long, and add what came of it to the table."""
    corpus, found = (FOLDER / kind / name.replace(" ", "_") for kind in ("corpus", "found"))
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(TARGETS[name].seeds()):
        (corpus / f"seed{number}").write_bytes(seed)
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # where no busy disk looks like a slow reader
    inputs = tempfile.TemporaryDirectory(dir=memory)
    command = [
        sys.executable, "-m", "tests.stress.fuzz.worker", name, inputs.name, str(corpus), f"-artifact_prefix={found}/",
        f"-max_total_time={seconds}", "-timeout=900", "-report_slow_units=900", "-rss_limit_mb=3000",
        "-max_len=60000", "-print_final_stats=1",
    ]
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    start = time.monotonic()  # a run ends early where something is found
    with inputs:
        done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
                              errors="replace")
    (FOLDER / f"{name.replace(' ', '_')}.log").write_text(done.stderr)
    if done.returncode:
        print(done.stderr[-3000:], file=sys.stderr)
    add_to_table(name, round(time.monotonic() - start), done.stderr)


def add_to_table(name, seconds, log):
    table = read_table()
    row = table.setdefault(name, {"seconds": 0, "inputs": 0, "branches": 0})
    row["seconds"] += seconds
    inputs = re.findall(r"number_of_executed_units:\s*(\d+)", log) or re.findall(r"^#(\d+)", log, re.M)
    row["inputs"] += int(inputs[-1])
    row["branches"] = max([row["branches"], *map(int, re.findall(r"\bcov: (\d+)", log))])
    (FOLDER / "table.json").write_text(json.dumps(table, indent=1))


def read_table():
    file = FOLDER / "table.json"
    return json.loads(file.read_text()) if file.exists() else {}


def print_table():
    total = 0
    print(f"{'target':34} {'minutes':>8} {'inputs':>10} {'branches':>9} {'corpus':>7} {'found':>6}")
    table = read_table()
    for name, row in table.items():
        corpus, found = (
            len(list((FOLDER / kind / name.replace(" ", "_")).iterdir())) for kind in ("corpus", "found")
        )
        total += found
        print(f"{name:34} {row['seconds'] / 60:8.1f} {row['inputs']:10,} {row['branches']:9,} {corpus:7,} {found:6}")
    minutes, inputs = (sum(row[key] for row in table.values()) for key in ("seconds", "inputs"))
    print(f"{'in all':34} {minutes / 60:8.1f} {inputs:10,} {'':9} {'':7} {total:6}")
    return total


if __name__ == "__main__":
    main()
