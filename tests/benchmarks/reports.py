"""A report as a run might leave it, with round numbers."""

from benchmarks.convolutions import SWEEP
from benchmarks.sides import JAX, KERAS, NUMPY, ONNX, OPENVINO, TORCH, TORCH_COMPILE, TORCH_LAST

TRAIN = {
    "topic": "train", "work": "train W1",
    "seconds": {"cnnlite": [0.01, 0.02, 0.04], TORCH: [0.02, 0.06, 0.2], TORCH_LAST: [0.03, 0.05, 0.09],
                KERAS: [0.01, 0.01, 0.02], JAX: [0.1, 0.2, 0.4]},
    "notes": {TORCH_COMPILE: "left out: CppCompileError: no Python.h", TORCH: "2 threads"},
}
AVX2 = {
    "topic": "avx2", "work": "train W1, AVX2 alone",
    "seconds": {"cnnlite": [0.01] * 3, TORCH: [0.04] * 3, TORCH_LAST: [0.03] * 3, KERAS: [0.02] * 3},
}
INFER = {
    "topic": "infer", "work": "infer W1, batch 1",
    "seconds": {"cnnlite": [1e-4] * 3, TORCH: [3e-4] * 3, ONNX: [1.2e-4] * 3, OPENVINO: [1.7e-4] * 3},
}
ROOF = {
    "topic": "roof", "work": "train W3",
    "seconds": {"cnnlite": [0.5, 0.25, 0.5], NUMPY: [1.0, 1.0, 2.0]}, "flops": {"cnnlite": 1e9, NUMPY: 4e9},
}
MEMORY = {
    "topic": "memory", "work": "train W1",
    "bytes": {"cnnlite": [100 * 2**20] * 3, TORCH: [400 * 2**20] * 3, TORCH_LAST: [250 * 2**20] * 3},
}
ALONE = {"topic": "start", "work": "import", "seconds": {"cnnlite": [1.0]}}
START = {
    "topic": "start", "work": "processor time of the first step, nothing compiled yet",
    "seconds": {"cnnlite": [11.0, 10.0, 14.0], TORCH: [3.0, 3.0, 3.0]},
}
MACHINE = [
    {"topic": "machine", "work": "SGEMM", "seconds": {NUMPY: [0.1]}, "flops": 2e10},
    {"topic": "machine", "work": "copy", "seconds": {NUMPY: [0.1]}, "bytes": 2e9},
]
GROWTH = [
    {"topic": "growth", "work": f"batch {value}", "by": "batch", "value": value,
     "seconds": {"cnnlite": [value / 1000] * 3, TORCH: [value / 500] * 3}}
    for value in (1, 8)
]


def conv(shape, direction, ours, theirs):
    return {"topic": "conv", "work": f"{direction}, {shape}", "direction": direction, "shape": shape._asdict(),
            "flops": shape.flops(), "bytes": shape.bytes(), "seconds": {"cnnlite": ours, TORCH: theirs}}


# Ratios of 4 and 1 in every round, so a geometric mean of 2.
CONVOLUTIONS = [
    conv(SWEEP[0], "forward", [0.1, 0.2, 0.3], [0.4, 0.8, 1.2]),
    conv(SWEEP[1], "forward", [0.1, 0.2, 0.3], [0.1, 0.2, 0.3]),
]

LARGE = [
    {"topic": "large", "work": f"forward, number {i}", "direction": "forward", "flops": 1e9,
     "seconds": {"cnnlite": [0.01] * 3, TORCH: [theirs] * 3}}
    for i, theirs in enumerate([0.005, 0.02])
]

CHANNELS = [
    {"topic": "channels", "work": f"forward, {channels} channels", "by": "forward", "direction": "forward",
     "value": channels, "flops": 1e9, "seconds": {"cnnlite": [0.01] * 3, TORCH: [0.004] * 3}}
    for channels in (16, 32)
]

REPORT = {
    "machine": {"cpu": "a processor", "cores": 2, "system": "Linux", "python": "3.12", "versions": {"numpy": "2.0"}},
    "run": {"rounds": 3, "threads": 2, "quick": False, "load_before": 0.1, "load_after": 1.9,
            "missing": {"JAX": "`pip install jax` brings it in"}},
    "results": [TRAIN, INFER, AVX2, ROOF, MEMORY, ALONE, START, *MACHINE, *GROWTH, *CONVOLUTIONS, *LARGE, *CHANNELS],
}
