"""OpenVINO, inference only: in float32, with the latency hint, without copies of input and output."""

import openvino

from benchmarks.nets import net_of
from benchmarks.sides import onnx_graph


def prepare(job, layout, threads):
    net = net_of(job)
    graph, parameters = onnx_graph.build(net, job["batch"])
    core = openvino.Core()
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    request = core.compile_model(core.read_model(graph), "CPU", settings).create_infer_request()
    x = onnx_graph.batch(net, job["batch"])
    return lambda: request.infer({"x": x}, share_inputs=True, share_outputs=True), parameters
