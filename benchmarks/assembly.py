"""Print the machine code of the loop in which cnnlite spends its time, as LLVM compiles it for this processor.

    python -m benchmarks.assembly              the loop of the largest tile, float32
    python -m benchmarks.assembly float64
    python -m benchmarks.assembly --all        all tiles and the code around them
"""

import re
import sys

from cnnlite.kernels.product.microkernel import assembly

# An accumulator is what a multiply-add (or, on old processors, an addition) writes to: the last operand in
# LLVM's syntax for x86, the first on ARM.
SUM = re.compile(r"\t(?:vfmadd\w+|v?addp[sd])\t.*%([xyz]mm\d+)$|\tfmla\t(v\d+)\.")


def loops(listing):
    """Return the innermost loops: the lines from a label to the jump back to it, with no other label in between."""
    parts = re.split(r"^(?=\.?L\w+:)", listing, flags=re.MULTILINE)
    found = []
    for part in parts:
        label, _, body = part.partition(":")
        lines = [line.split("##")[0].rstrip() for line in body.splitlines()]
        lines = [line for line in lines if line.startswith("\t") and not line.startswith("\t.")]
        ends = [i for i, line in enumerate(lines) if re.search(rf"\s{re.escape(label)}$", line)]
        if ends:
            found.append(lines[: ends[0] + 1])
    return found


def sums(loop):
    return {match.group(1) or match.group(2) for line in loop if (match := SUM.search(line))}


def main(arguments):
    dtype = "float64" if "float64" in arguments else "float32"
    listing = assembly(dtype)
    if "--all" in arguments:
        print(listing)
        return
    # The largest tile has the most accumulators; the loops of small tiles are unrolled and may be longer.
    loop = max(loops(listing), key=lambda loop: len(sums(loop)))
    print("\n".join(line.expandtabs(4) for line in loop))
    print(f"\n{len(loop)} instructions, {len(sums(loop))} accumulators in registers.")


if __name__ == "__main__":
    main(sys.argv[1:])
