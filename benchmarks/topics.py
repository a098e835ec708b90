"""What is measured, by topic. Each function yields its results one by one, so that they are shown as they come."""

from benchmarks.nets import CONVOLUTIONS, DIRECTIONS, NETS, training_flops
from benchmarks.sides import ONNX, TORCH, TORCH_LAST
from benchmarks.start import first_steps

INFERENCE_BATCHES = [1, 32, 128]
SGEMM_SIZE = 2048


def result(topic, work, seconds):
    """Return what is kept of one comparison: {side: [seconds, for each round]} and what they were spent on."""
    return {"topic": topic, "work": work, "seconds": seconds}


def train(bench, quick):
    """Training steps: forward, loss, backward, Adam."""
    for name in ["W1"] if quick else NETS:
        yield result("train", f"train {name}", compare(bench, training(name), ["cnnlite", TORCH, TORCH_LAST]))


def infer(bench, quick):
    """`model(x)`, the batch a NumPy array or a tensor already."""
    for n in INFERENCE_BATCHES:
        job = {"kind": "infer", "net": "W1", "batch": n}
        yield result("infer", f"infer W1, batch {n}", compare(bench, job, ["cnnlite", TORCH, TORCH_LAST, ONNX]))


def conv(bench, quick):
    """Single convolutions, each direction on its own."""
    for shape in CONVOLUTIONS[:1] if quick else CONVOLUTIONS:
        n, size, channels, filters, kernel_size = shape
        for direction in DIRECTIONS:
            work = f"{direction}, {n}x{size}x{size}x{channels}, {filters} filters {kernel_size}x{kernel_size}"
            job = {"kind": "conv", "shape": shape, "direction": direction}
            yield result("conv", work, compare(bench, job, ["cnnlite", TORCH, TORCH_LAST]))


def start(bench, quick):
    """Whole processes, from their start on."""
    for work, seconds in first_steps(bench.threads, 1 if quick else bench.rounds, TORCH in bench.names):
        yield result("start", work, seconds)


def roof(bench, quick):
    """How near training comes to the machine's own matrix product, the two in turns."""
    seconds = bench.compare({"cnnlite": training("W2"), "SGEMM": {"kind": "sgemm", "n": SGEMM_SIZE}})
    flops = {"cnnlite": training_flops(NETS["W2"]), "SGEMM": 2 * SGEMM_SIZE**3}
    yield {**result("roof", "train W2", seconds), "flops": flops}


def training(name):
    return {"kind": "train", "net": name, "batch": NETS[name].batch}


def compare(bench, job, names):
    return bench.compare(dict.fromkeys(names, job))


TOPICS = {"train": train, "infer": infer, "conv": conv, "start": start, "roof": roof}
