"""Small ONNX files for tests of models: made with onnx.helper, without any training library."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]


def file_of(nodes, columns, tensors=(), kind=TensorProto.FLOAT, outputs=1, opset=OPSET, rows="n"):
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", kind, [rows, columns])],
        [helper.make_tensor_value_info("y", kind, [rows, outputs])],
        list(tensors),
    )
    model = helper.make_model(graph, opset_imports=opset)
    model.ir_version = 9
    return model


def linear(weights, bias=0.0):
    """y = x @ weights + bias."""
    given = np.asarray(weights, np.float32).reshape(-1, 1)
    tensors = [
        numpy_helper.from_array(given, "w"),
        numpy_helper.from_array(np.asarray([bias], np.float32), "b"),
    ]
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"])]
    return file_of(nodes, given.shape[0], tensors).SerializeToString()


def network(columns, hidden, seed):
    """Two layers of random weights, with tanh between."""
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(columns, hidden)).astype(np.float32)
    second = rng.normal(size=(hidden, 2)).astype(np.float32)
    tensors = [numpy_helper.from_array(first, "a"), numpy_helper.from_array(second, "b")]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("MatMul", ["t", "b"], ["y"]),
    ]
    return file_of(nodes, columns, tensors, outputs=2).SerializeToString()


def trees(columns, count, seed):
    """A sum of stumps: one comparison each."""
    rng = np.random.default_rng(seed)
    node = helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=1,
        nodes_treeids=np.repeat(np.arange(count), 3).tolist(),
        nodes_nodeids=[0, 1, 2] * count,
        nodes_featureids=[v for f in rng.integers(0, columns, count) for v in (int(f), 0, 0)],
        nodes_values=[v for t in rng.normal(size=count) for v in (float(t), 0.0, 0.0)],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"] * count,
        nodes_truenodeids=[1, 0, 0] * count,
        nodes_falsenodeids=[2, 0, 0] * count,
        target_treeids=np.repeat(np.arange(count), 2).tolist(),
        target_nodeids=[1, 2] * count,
        target_ids=[0] * (2 * count),
        target_weights=rng.normal(size=2 * count).tolist(),
    )  # fmt: skip
    return file_of([node], columns).SerializeToString()


def hostile():
    """What must be refused: name -> (bytes, words of the message)."""
    big = helper.make_tensor("w", TensorProto.FLOAT, [2, 1], [1.0, 2.0])
    add = helper.make_node("Add", ["x", "x"], ["y"])
    found = {"no_onnx": (b"\x80\x04K\x01.", "no ONNX file|contradicts|0 inputs")}

    outside = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 1])
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="../../../../etc/passwd")
    matmul = helper.make_node("MatMul", ["x", "w"], ["y"])
    found["outside"] = (file_of([matmul], 2, [outside]), "another file")

    constant = helper.make_node("Constant", [], ["w"], value=outside)
    found["outside_constant"] = (file_of([constant, matmul], 2), "another file")

    own = helper.make_node("Anything", ["x"], ["y"], domain="evil")
    found["own"] = (
        file_of([own], 2, opset=[*OPSET, helper.make_opsetid("evil", 1)]),
        "evil.Anything",
    )

    loop = helper.make_node("Loop", ["", "", "x"], ["y"], body=file_of([add], 2).graph)
    found["loop"] = (file_of([loop], 2), "operator Loop")

    noise = helper.make_node("RandomNormalLike", ["x"], ["y"])
    found["random"] = (file_of([noise], 2), "RandomNormalLike")

    function = file_of([add], 2)
    function.functions.add(name="f", domain="evil")
    found["function"] = (function, "functions")

    found["shape"] = (file_of([add], 2, rows=5), "shape")
    wrong = file_of([matmul], 2, [helper.make_tensor("w", TensorProto.FLOAT, [3, 1], [1.0] * 3)])
    found["contradiction"] = (wrong, "contradicts|cannot be run")

    # 2 MB that become terabytes: (n, 250000) x (250000, n) by an outer product of two vectors
    wide = numpy_helper.from_array(np.ones((250_000, 1), np.float32), "u")
    nodes = [
        helper.make_node("Transpose", ["u"], ["v"], perm=[1, 0]),
        helper.make_node("MatMul", ["u", "v"], ["m"]),
        helper.make_node("ReduceSum", ["m"], ["s"], keepdims=0),
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Add", ["p", "s"], ["y"]),
    ]
    found["bomb"] = (file_of(nodes, 2, [wide, big]), "refused")
    return {
        name: (made if isinstance(made, bytes) else made.SerializeToString(), words)
        for name, (made, words) in found.items()
    }
