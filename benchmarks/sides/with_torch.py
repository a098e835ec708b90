"""Eager PyTorch, with images channels first (the default) or channels last (often faster on a CPU)."""

import torch
from torch import nn

from benchmarks.convolutions import Convolution
from benchmarks.nets import DROPOUT, net_of, shapes, shapes_of
from benchmarks.sides import data
from benchmarks.sides.data import batch, convolution


def prepare(job, layout, threads, transform=lambda function: function):
    """Prepare a job as every side does; `transform` wraps the network's function, for torch.compile."""
    torch.set_num_threads(threads)
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    if job["kind"] == "conv":
        return conv(job, memory_format)
    if job["kind"] == "dense":
        return dense(job)
    return {"train": train, "infer": infer}[job["kind"]](job, memory_format, transform)


def train(job, memory_format, transform):
    net = net_of(job)
    model = build(net).to(memory_format=memory_format)
    x, y = batch(net.input_shape, job["batch"])
    x, y = images(x, memory_format), torch.from_numpy(y)
    # One kernel for all weights, which is faster than the default of several small kernels per weight.
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    loss = nn.CrossEntropyLoss()
    loss_of = transform(lambda x, y: loss(model(x), y))

    def step():
        optimizer.zero_grad()
        value = loss_of(x, y)
        value.backward()
        optimizer.step()
        return value.item()

    return step, count(model)


def infer(job, memory_format, transform):
    net = net_of(job)
    model = build(net).to(memory_format=memory_format).eval()
    x = images(batch(net.input_shape, job["batch"])[0], memory_format)
    answer = transform(lambda x: model(x))

    def run():
        with torch.inference_mode():
            return answer(x)

    return run, count(model)


def conv(job, memory_format):
    shape = Convolution(*job["shape"])
    x, kernel, bias, dy = convolution(shape)
    x, dy = images(x, memory_format), images(dy, memory_format)
    kernel = torch.from_numpy(kernel).permute(3, 2, 0, 1).contiguous(memory_format=memory_format)
    bias = torch.from_numpy(bias)

    def gradient(which, mask):
        # strides, pads, dilation, transposed, output padding, groups
        arguments = [shape.stride] * 2, [shape.pad] * 2, [1, 1], False, [0, 0], 1
        return torch.ops.aten.convolution_backward(dy, x, kernel, [len(bias)], *arguments, mask)[which]

    compute = {
        "forward": lambda: nn.functional.conv2d(x, kernel, bias, shape.stride, shape.pad),
        "kernel gradient": lambda: gradient(1, [False, True, False]),
        "input gradient": lambda: gradient(0, [True, False, False]),
    }[job["direction"]]

    return checked(compute)


def dense(job):
    x, kernel, bias, dy = map(torch.from_numpy, data.dense(job["shape"]))
    weight = kernel.T.contiguous()  # as nn.Linear stores it
    return checked({
        "forward": lambda: nn.functional.linear(x, weight, bias),
        "kernel gradient": lambda: dy.T @ x,
        "input gradient": lambda: dy @ weight,
    }[job["direction"]])


def checked(compute):
    """Return a function that computes without tracking gradients, and the mean absolute value of its result."""

    def run():
        with torch.inference_mode():
            return compute()

    return run, run().abs().double().mean().item()


def images(x, memory_format):
    """Return an array (N, H, W, C) as a tensor (N, C, H, W) in that layout; arrays of other ranks keep theirs."""
    x = torch.from_numpy(x)
    return x.permute(0, 3, 1, 2).contiguous(memory_format=memory_format) if x.ndim == 4 else x


class Residual(nn.Module):
    def __init__(self, body, shortcut):
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x):
        return self.body(x) + self.shortcut(x)


def build(net):
    return stack(shapes(net))


def stack(shapes):
    modules = []
    for (kind, *numbers), before, _ in shapes:
        if kind == "conv":
            filters, size, padding, bias, strides = numbers
            modules.append(nn.Conv2d(before[-1], filters, size, strides, pads(size, padding), bias=bias))
        elif kind == "depthwise":
            size, padding, bias = numbers
            modules.append(nn.Conv2d(before[-1], before[-1], size, padding=padding, groups=before[-1], bias=bias))
        elif kind == "residual":
            modules.append(Residual(*(stack(shapes_of(branch, before)) for branch in numbers)))
        elif kind == "pool":
            size, strides, padding = numbers
            modules.append(nn.MaxPool2d(size, strides, pads(size, padding)))
        elif kind == "average":
            modules += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        elif kind == "dense":
            units, bias = numbers
            modules.append(nn.Linear(before[0], units, bias=bias))
        elif kind == "batchnorm":
            modules.append((nn.BatchNorm2d if len(before) == 3 else nn.BatchNorm1d)(before[-1]))
        elif kind == "dropout":
            modules.append(nn.Dropout(DROPOUT))
        else:
            kinds = {"relu": nn.ReLU, "leaky relu": nn.LeakyReLU, "flatten": nn.Flatten}
            modules.append(kinds[kind](*numbers))
    return nn.Sequential(*modules)


def pads(size, padding):
    """Return the padding on each side of an image, for an odd window; PyTorch's "same" requires a stride of 1."""
    return size // 2 if padding == "same" else 0


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())
