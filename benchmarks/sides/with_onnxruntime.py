"""ONNX Runtime, inference only."""

import onnxruntime

from benchmarks.nets import net_of
from benchmarks.sides import onnx_graph


def prepare(job, layout, threads):
    net = net_of(job)
    graph, parameters = onnx_graph.build(net, job["batch"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    x = onnx_graph.batch(net, job["batch"])
    return lambda: session.run(None, {"x": x}), parameters
