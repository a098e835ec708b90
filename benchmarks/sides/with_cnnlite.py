"""cnnlite, as its user has it: `train_on_batch`, `model(x)`, and the kernels for single convolutions."""

import numba
import numpy as np

import cnnlite
from benchmarks.nets import DROPOUT, NETS
from benchmarks.sides.data import batch, convolution
from cnnlite import kernels, layers


def prepare(job, layout, threads):
    numba.set_num_threads(threads)
    return {"train": train, "infer": infer, "conv": conv}[job["kind"]](job)


def train(job):
    model = build(NETS[job["net"]])
    x, y = batch(NETS[job["net"]].input_shape, job["batch"])
    return lambda: model.train_on_batch(x, y), model.count_params() - not_trained(model)


def infer(job):
    model = build(NETS[job["net"]])
    x, _ = batch(NETS[job["net"]].input_shape, job["batch"])
    return lambda: model(x), model.count_params() - not_trained(model)


def conv(job):
    x, kernel, bias, dy = convolution(*job["shape"])
    run = {
        "forward": lambda: kernels.conv2d(x, kernel, bias),
        "kernel gradient": lambda: kernels.conv2d_kernel_gradient(x, dy, kernel.shape),
        "input gradient": lambda: kernels.conv2d_input_gradient(dy, kernel, x.shape),
    }[job["direction"]]
    return run, float(np.abs(run()).mean(dtype=np.float64))


def build(net):
    makers = {
        "conv": lambda filters, size, padding: layers.Conv2D(filters, size, padding=padding),
        "relu": layers.ReLU,
        "pool": layers.MaxPool,
        "batchnorm": layers.BatchNorm,
        "dropout": lambda: layers.Dropout(DROPOUT),
        "flatten": layers.Flatten,
        "dense": layers.Dense,
    }
    stack = [makers[kind](*numbers) for kind, *numbers in net.layers]
    model = cnnlite.Sequential([cnnlite.Input(shape=net.input_shape), *stack])
    model.compile("adam", cnnlite.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def not_trained(model):
    """Return how many numbers are running statistics."""
    return sum(array.size for array in model.state.values())
