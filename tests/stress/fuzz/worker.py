"""One target under Atheris: `python -m tests.stress.fuzz.worker TARGET FOLDER CORPUS ...`, as `__main__` calls it."""

import resource
import sys
import time
from pathlib import Path
from random import Random

import atheris

LONGEST = 20  # seconds for one input
MEMORY = 2**30  # what the readers may ask for besides what is there after the imports

# Kernels are left out: their loops, in plain Python here, would be all that the fuzzer sees.
with atheris.instrument_imports(
    include=["cnnlite", "numpy.lib._format_impl", "numpy.lib.format", "zipfile", "gzip", "csv"],
    exclude=["cnnlite.kernels", "cnnlite.reference"],
):
    from tests.stress.fuzz import targets


def main():
    target = targets.TARGETS[sys.argv.pop(1)]
    folder = Path(sys.argv.pop(1))

    def attack(data):
        start = time.process_time()  # of the processor, as a machine that stands still is no fault of a reader
        target.attack(data, folder)
        assert time.process_time() - start < LONGEST, "it took too long"

    def mutate(data, max_size, seed):
        random = Random(seed)
        mutated = target.mutate(data, random) if random.randint(0, 2) else atheris.Mutate(data, max_size)
        return mutated[:max_size]

    atheris.Setup(sys.argv, attack, custom_mutator=mutate)
    for seed in target.seeds():
        target.attack(seed, folder)  # whatever is imported or made once, before memory is limited
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
