"""A training process that is killed at random moments until it gets to its end."""

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.stress.training_process import STEPS

ROOT = Path(__file__).parent.parent.parent


MOST_STEPS = 2 * STEPS  # in one life


def start(folder, save_freq, epochs, stdin=subprocess.PIPE):
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.stress.training_process", folder, save_freq, epochs]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_NUM_THREADS": "1"}
    return subprocess.Popen(list(map(str, command)), cwd=ROOT, env=environment, text=True, stdin=stdin,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def undisturbed(folder, save_freq, epochs):
    """Let the run have its way; return what it ends with."""
    process = start(folder, save_freq, epochs, stdin=subprocess.DEVNULL)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return outcome(folder)


def killed(folder, save_freq, epochs, generator, kills=None):
    """Start the run and kill it, again and again; return what it ends with, how often it was killed, and how often
    in the middle of writing a file.

    No life is longer than MOST_STEPS.

    Most are killed some steps after they began to train, within a step or in the writing of a file; every fifth
    after a time, which may be while it starts or reads its backup.

    Args:
        generator: a `random.Random`.
        kills: after so many the run is left alone; None for as many as it takes.
    """
    count = writing = 0
    while kills is None or count < kills:
        before = set(folder.rglob("*.tmp"))
        process = start(folder, save_freq, epochs)
        steps = generator.randint(STEPS, MOST_STEPS)
        process.stdin.write("\n" * steps)
        process.stdin.flush()
        if count % 5 == 4:
            time.sleep(generator.uniform(0.2, 1.5))
        else:
            for _ in range(steps - 1):
                process.stdout.readline()
            time.sleep(generator.uniform(0, 0.01))
        process.kill()
        _, errors = process.communicate()
        if process.returncode == 0:
            return outcome(folder), count, writing
        assert process.returncode == -9, errors
        count += 1
        leftovers = list(folder.rglob("*.tmp"))
        assert len(leftovers) <= 2, leftovers  # at most one in each of the two folders that are written to
        writing += any(path not in before for path in leftovers)
    return undisturbed(folder, save_freq, epochs), count, writing


def outcome(folder):
    """Return the contents of all files that the run has left."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
