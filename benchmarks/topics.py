"""The measurements, by topic. Each function yields its results one by one, so that they are shown as they come in."""

from functools import partial

from benchmarks import avx2, script
from benchmarks.busy import busy_core
from benchmarks.convolutions import DIRECTIONS, SWEEP
from benchmarks.growth import CONVOLUTIONS, series
from benchmarks.large import LARGE, Dense
from benchmarks.measure import Bench
from benchmarks.memory import peaks
from benchmarks.nets import EVERY_NET, NETS, inference, training, training_flops
from benchmarks.sides import CNNLITE, EAGER, INFERS, NUMPY, ONLY_INFER, TORCH, TRAINS
from benchmarks.start import first_steps
from benchmarks.workers import Worker

WITH_AVX2 = ["W1", "W2", "LeNet-5", "MLP", "V1"]
INFERENCE_BATCHES = {"W1": [1, 128], "W2": [1, 128], "V1": [1, 64], "G1": [1], "S1": [1, 32]}
SWEEP_SECONDS, SWEEP_ROUNDS = 0.06, 5
SGEMM_SIZE = 2048
COPIED = 256 * 2**20  # bytes, more than caches hold


def result(topic, work, comparison, **more):
    """Return the record of one comparison: the work, the time each side took, and further data to interpret it."""
    return {"topic": topic, "work": work, **comparison, **more}


def train(bench, quick):
    """Training steps: forward, loss, backward, Adam."""
    for name in ["W1"] if quick else NETS:
        yield result("train", f"train {name}", bench.compare_anew(dict.fromkeys(TRAINS, training(NETS[name]))))


def infer(bench, quick):
    """`model(x)`, where the batch is already a NumPy array or a tensor."""
    for name, batches in {"W1": [1]}.items() if quick else INFERENCE_BATCHES.items():
        for batch in batches:
            comparison = bench.compare_anew(dict.fromkeys(INFERS, inference(NETS[name], batch)))
            yield result("infer", f"infer {name}, batch {batch}", comparison)


def with_avx2(bench, quick):
    """Training steps without AVX-512, in separate workers whose environment turns it off."""
    make = partial(Worker, variables=avx2.variables())
    alone = Bench(bench.names, bench.rounds, bench.seconds, bench.threads, make)
    try:
        for name in WITH_AVX2[:1] if quick else WITH_AVX2:
            comparison = alone.compare_anew(dict.fromkeys(TRAINS, training(NETS[name])))
            yield result("avx2", f"train {name}, AVX2 alone", comparison)
    finally:
        alone.close()


def busy(bench, quick):
    """W1's training step while another process keeps one core busy.

    No library knows about that process, so each uses as many threads as it would otherwise.
    """
    with busy_core():
        comparison = bench.compare_anew(dict.fromkeys(EAGER, training(NETS["W1"])), bench.threads)
        yield result("busy", "train W1, one core busy", comparison)


def conv(bench, quick):
    """The machine's two roofs, then single convolutions in short blocks, each direction separately."""
    yield from roofs(bench)
    for shape in SWEEP[:1] if quick else SWEEP:
        for direction in DIRECTIONS:
            comparison = operation(bench, shape, direction, min(SWEEP_ROUNDS, bench.rounds))
            yield result("conv", f"{direction}, {shape}", comparison, direction=direction, shape=shape._asdict(),
                         flops=shape.flops(), bytes=shape.bytes())


def operation(bench, shape, direction, rounds=None):
    """Compare a single convolution or product, in short blocks."""
    job = {"kind": "dense" if isinstance(shape, Dense) else "conv", "shape": shape, "direction": direction}
    return bench.compare(dict.fromkeys(EAGER, job), min(SWEEP_SECONDS, bench.seconds), rounds)


def large(bench, quick):
    """Single operations with many channels or units, each direction separately, and a deep network."""
    for shape in LARGE[-4:-3] if quick else LARGE:
        for direction in DIRECTIONS:
            comparison = operation(bench, shape, direction)
            yield result("large", f"{direction}, {shape}", comparison, direction=direction, flops=shape.flops())
    if not quick:
        yield from deep(bench)


def deep(bench):
    """ResNet-18, without the sides that take minutes to compile it."""
    net = EVERY_NET["ResNet-18"]
    yield result("train", "train ResNet-18", bench.compare_anew(dict.fromkeys(EAGER, training(net))))
    for batch in (1, net.batch):
        comparison = bench.compare_anew(dict.fromkeys([*EAGER, *ONLY_INFER], inference(net, batch)))
        yield result("infer", f"infer ResNet-18, batch {batch}", comparison)


def roofs(bench):
    sgemm = {"kind": "sgemm", "n": SGEMM_SIZE}
    yield result("machine", "SGEMM", bench.compare({NUMPY: sgemm}), flops=2 * SGEMM_SIZE**3)
    # Each byte is read and written.
    yield result("machine", "copy", bench.compare({NUMPY: {"kind": "copy", "bytes": COPIED}}), bytes=2 * COPIED)


def roof(bench, quick):
    """How close training comes to the machine's SGEMM; the two take turns."""
    for name in ["W1"] if quick else ["W2", "W3"]:
        comparison = bench.compare({CNNLITE: training(NETS[name]), NUMPY: {"kind": "sgemm", "n": SGEMM_SIZE}})
        flops = {CNNLITE: training_flops(NETS[name]), NUMPY: 2 * SGEMM_SIZE**3}
        yield result("roof", f"train {name}", comparison, flops=flops)


def keras_script(bench, quick):
    """A whole script that trains on all of MNIST."""
    names = [name for name in script.LIBRARIES if name in bench.names]
    times = script.seconds(names, bench.threads, min(bench.rounds, 3), script.FEW if quick else script.SAMPLES)
    yield result("script", "a Keras script, whole process", {"seconds": times})


def start(bench, quick):
    """Whole processes, timed from their start."""
    rounds = 1 if quick else bench.rounds
    for work, seconds in first_steps(bench.threads, rounds, [name for name in (CNNLITE, TORCH) if name in bench.names]):
        yield result("start", work, {"seconds": seconds})


def memory(bench, quick):
    """Peak memory of a process that imports a library and trains for some steps."""
    names = [name for name in EAGER if name in bench.names]
    for net in ["W1"] if quick else ["W1", "W3", "V1", "G1"]:
        yield result("memory", f"train {net}", {"bytes": peaks(names, net, bench.threads, min(bench.rounds, 3))})


def growth(bench, quick):
    """How the time of W1's training step grows with one thing at a time, and rates of convolutions over channels."""
    for by, points in series(bench.threads).items():
        for value, net, threads in points[:2] if quick else points:
            jobs = dict.fromkeys(EAGER, training(net))
            comparison = bench.compare(jobs, bench.seconds / 2, min(bench.rounds, 3), threads)
            yield result("growth", f"{by} {value}", comparison, by=by, value=value)
    for direction in DIRECTIONS:
        for shape in CONVOLUTIONS[2:4] if quick else CONVOLUTIONS:
            comparison = operation(bench, shape, direction, min(bench.rounds, 3))
            yield result("channels", f"{direction}, {shape}", comparison, by=direction, direction=direction,
                         value=shape.channels, flops=shape.flops())


TOPICS = {"train": train, "infer": infer, "avx2": with_avx2, "conv": conv, "large": large, "roof": roof, "busy": busy,
          "script": keras_script, "start": start, "memory": memory, "growth": growth}
# Topics that not every machine can run: a function that returns why this one can't, or None.
MISSING = {"avx2": avx2.what_is_missing}
