"""A network as an ONNX graph, written layer by layer, and its input, for the libraries that only infer."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from benchmarks.nets import shapes
from benchmarks.sides import data

PADS = {"valid": "VALID", "same": "SAME_UPPER"}


def batch(net, n):
    """Return `n` samples as ONNX has them, channels first."""
    x, _ = data.batch(net.input_shape, n)
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if x.ndim == 4 else x


def build(net, n):
    """Return a network for batches of `n` as ONNX's bytes, and its number of weights."""
    generator = np.random.default_rng(0)
    nodes, weights, statistics = [], [], 0

    def add(operator, *arrays, **attributes):
        names = [f"w{len(weights) + i}" for i in range(len(arrays))]
        weights.extend(numpy_helper.from_array(array, name) for array, name in zip(arrays, names))
        source = nodes[-1].output[0] if nodes else "x"
        nodes.append(helper.make_node(operator, [source, *names], [f"y{len(nodes)}"], **attributes))

    def normal(*shape):
        return (generator.normal(size=shape) / 10).astype(np.float32)

    for (kind, *numbers), before, _ in shapes(net):
        if kind == "conv":
            filters, size, padding, bias = numbers
            add("Conv", normal(filters, before[-1], size, size), *[normal(filters)] * bias,
                auto_pad=PADS[padding])
        elif kind == "depthwise":
            size, padding, bias = numbers
            add("Conv", normal(before[-1], 1, size, size), *[normal(before[-1])] * bias, auto_pad=PADS[padding],
                group=before[-1])
        elif kind == "average":
            add("GlobalAveragePool")
            add("Flatten")
        elif kind == "leaky relu":
            add("LeakyRelu", alpha=numbers[0])
        elif kind == "dense":
            units, bias = numbers
            add("Gemm", normal(before[0], units), *[normal(units)] * bias)
        elif kind == "batchnorm":
            gamma, beta, mean = normal(3, before[-1])
            add("BatchNormalization", gamma, beta, mean, np.ones_like(mean))
            statistics += 2 * before[-1]
        elif kind == "pool":
            add("MaxPool", kernel_shape=numbers * 2, strides=numbers * 2)
        elif kind in ("relu", "flatten"):
            add({"relu": "Relu", "flatten": "Flatten"}[kind])
        elif kind != "dropout":
            raise ValueError(f"build: {kind} is not written for ONNX yet.")
    h_w_c = net.input_shape
    shape = [n, h_w_c[2], *h_w_c[:2]] if len(h_w_c) == 3 else [n, *h_w_c]
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString(), sum(int(np.prod(tensor.dims)) for tensor in weights) - statistics
