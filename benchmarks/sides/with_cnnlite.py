"""cnnlite as its users call it: `train_on_batch`, `model(x)`, and the kernels for single convolutions."""

import numba
import numpy as np

import cnnlite
from benchmarks.convolutions import Convolution
from benchmarks.nets import net_of, stack
from benchmarks.sides import data
from benchmarks.sides.data import batch, convolution
from cnnlite import activations, kernels, layers


def prepare(job, layout, threads):
    numba.set_num_threads(threads)
    return {"train": train, "infer": infer, "softmax": softmax, "conv": conv, "dense": dense}[job["kind"]](job)


def train(job):
    net = net_of(job)
    model = build(net)
    x, y = batch(net.input_shape, job["batch"])
    return lambda: model.train_on_batch(x, y), model.count_params() - not_trained(model)


def infer(job):
    net = net_of(job)
    model = build(net)
    x, _ = batch(net.input_shape, job["batch"])
    for _ in range(3):  # the first pass makes a plan; versions older than plans still compile in the third
        model(x)
    return lambda: model(x), model.count_params() - not_trained(model)


def softmax(job):
    """Infer, and infer with a softmax of the result; used to compare two versions of cnnlite."""
    answer, check = infer(job)
    return (answer, lambda: activations.softmax(answer())), check


def conv(job):
    shape = Convolution(*job["shape"])
    x, kernel, bias, dy = convolution(shape)
    window = {"strides": (shape.stride,) * 2, "pads": ((shape.pad,) * 2,) * 2}
    run = {
        "forward": lambda: kernels.conv2d(x, kernel, bias, **window),
        "kernel gradient": lambda: kernels.conv2d_kernel_gradient(x, dy, kernel.shape, **window),
        "input gradient": lambda: kernels.conv2d_input_gradient(dy, kernel, x.shape, **window),
    }[job["direction"]]
    return run, float(np.abs(run()).mean(dtype=np.float64))


def dense(job):
    x, kernel, bias, dy = data.dense(job["shape"])
    run = {
        "forward": lambda: kernels.matmul(x, kernel, bias),
        "kernel gradient": lambda: kernels.matmul(x, dy, transpose_a=True),
        "input gradient": lambda: kernels.matmul(dy, kernel, transpose_b=True),
    }[job["direction"]]
    return run, float(np.abs(run()).mean(dtype=np.float64))


def build(net):
    model = cnnlite.Sequential([cnnlite.Input(shape=net.input_shape), *stack(net, layers)])
    model.compile("adam", cnnlite.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def not_trained(model):
    """Return the number of running statistics, which are not trained."""
    return sum(array.size for array in model.state.values())
