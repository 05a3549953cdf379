"""Writes vision/benches/yolo_sized.onnx: a network of YOLOv10n's size (6.7 GFLOPs at 640x640) that finds nothing.

All weights are ConstantOfShape nodes, which ONNX Runtime folds when it loads the file: a few kilobytes that cost what a
real detector costs. Usage: `bench_model.py OUT.onnx`.
"""

import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

nodes, weights = [], []


def constant(name, shape, value):
    weights.append(numpy_helper.from_array(np.array(shape, np.int64), f"{name}_shape"))
    filling = numpy_helper.from_array(np.array([value], np.float32))
    nodes.append(helper.make_node("ConstantOfShape", [f"{name}_shape"], [name], value=filling))


def conv(x, inside, outside, size=3, stride=1, value=None, activate=True):
    name = f"c{len(nodes)}"
    constant(f"{name}_w", [outside, inside, size, size], 1 / (inside * size * size) if value is None else value)
    pads = [size // 2] * 4
    nodes.append(helper.make_node("Conv", [x, f"{name}_w"], [name], pads=pads, strides=[stride, stride]))
    if not activate:
        return name
    nodes.append(helper.make_node("Sigmoid", [name], [f"{name}_s"]))
    nodes.append(helper.make_node("Mul", [name, f"{name}_s"], [f"{name}_y"]))
    return f"{name}_y"


x = conv("image", 3, 16, stride=2)
channels = 16
for _ in range(4):
    x = conv(x, channels, 2 * channels, stride=2)
    channels *= 2
    for _ in range(3):
        x = conv(x, channels, channels)
x = conv(x, channels, 6, size=1, value=0.0, activate=False)
weights.append(numpy_helper.from_array(np.array([1, 6, 400], np.int64), "flat"))
nodes.append(helper.make_node("Reshape", [x, "flat"], ["columns"]))
nodes.append(helper.make_node("Transpose", ["columns"], ["defects"], perm=[0, 2, 1]))
graph = helper.make_graph(
    nodes,
    "yolo_sized",
    [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 640, 640])],
    [helper.make_tensor_value_info("defects", TensorProto.FLOAT, [1, 400, 6])],
    weights,
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, sys.argv[1])
