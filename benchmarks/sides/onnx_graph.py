"""A network as an ONNX graph, built layer by layer, and its input, for the libraries that only infer."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from benchmarks.nets import shapes, shapes_of
from benchmarks.sides import data

PADS = {"valid": "VALID", "same": "SAME_UPPER"}


def batch(net, n):
    """Return `n` samples with channels first, as in ONNX."""
    x, _ = data.batch(net.input_shape, n)
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if x.ndim == 4 else x


def build(net, n):
    """Return a network for batches of `n`, serialised for ONNX, and its number of weights."""
    graph = Graph()
    graph.stack(shapes(net))
    h_w_c = net.input_shape
    shape = [n, h_w_c[2], *h_w_c[:2]] if len(h_w_c) == 3 else [n, *h_w_c]
    made = helper.make_graph(
        graph.nodes, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(graph.last, TensorProto.FLOAT, None)], graph.weights)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString(), sum(int(np.prod(tensor.dims)) for tensor in graph.weights) - graph.statistics


class Graph:
    """Nodes and their weights.

    Attributes:
        last: the name of the output that the next node takes as input.
        statistics: how many of the weights are running statistics.
    """

    def __init__(self):
        self.generator = np.random.default_rng(0)
        self.nodes, self.weights, self.statistics, self.last = [], [], 0, "x"

    def add(self, operator, *arrays, **attributes):
        names = [f"w{len(self.weights) + i}" for i in range(len(arrays))]
        self.weights.extend(numpy_helper.from_array(array, name) for array, name in zip(arrays, names))
        self.add_node(operator, [self.last, *names], **attributes)

    def add_node(self, operator, inputs, **attributes):
        self.last = f"y{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [self.last], **attributes))

    def normal(self, *shape):
        return (self.generator.normal(size=shape) / 10).astype(np.float32)

    def stack(self, shapes):
        for (kind, *numbers), before, _ in shapes:
            self.layer(kind, numbers, before)

    def layer(self, kind, numbers, before):
        normal = self.normal
        if kind == "conv":
            filters, size, padding, bias, strides = numbers
            self.add("Conv", normal(filters, before[-1], size, size), *[normal(filters)] * bias,
                     auto_pad=PADS[padding], strides=[strides] * 2)
        elif kind == "depthwise":
            size, padding, bias = numbers
            self.add("Conv", normal(before[-1], 1, size, size), *[normal(before[-1])] * bias, auto_pad=PADS[padding],
                     group=before[-1])
        elif kind == "average":
            self.add("GlobalAveragePool")
            self.add("Flatten")
        elif kind == "leaky relu":
            self.add("LeakyRelu", alpha=numbers[0])
        elif kind == "dense":
            units, bias = numbers
            self.add("Gemm", normal(before[0], units), *[normal(units)] * bias)
        elif kind == "batchnorm":
            gamma, beta, mean = normal(3, before[-1])
            self.add("BatchNormalization", gamma, beta, mean, np.ones_like(mean))
            self.statistics += 2 * before[-1]
        elif kind == "pool":
            size, strides, padding = numbers
            self.add("MaxPool", kernel_shape=[size] * 2, strides=[strides] * 2, auto_pad=PADS[padding])
        elif kind == "residual":
            below, ends = self.last, []
            for branch in numbers:
                self.last = below
                self.stack(shapes_of(branch, before))
                ends.append(self.last)
            self.add_node("Add", ends)
        elif kind in ("relu", "flatten"):
            self.add({"relu": "Relu", "flatten": "Flatten"}[kind])
        elif kind != "dropout":
            raise ValueError(f"build: {kind} is not implemented for ONNX yet.")
