"""A look at an ONNX file in a process of its own, which a hostile file may take down without harm.

``python -m headrace.apps.models.probe`` reads the file from standard input and writes what it found as JSON.
It has bounded memory and time, and runs the model on rows of zeros: what ONNX Runtime cannot load or what
needs more memory than a model may have is found here and not in a plant.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime

from headrace.apps.models.operators import ALLOWED, BLOCK_ROWS, COLUMNS_MAX, NODES_MAX

MEMORY_MAX: Final = 4 << 30
CPU_S_MAX: Final = 30
_FLOATS: Final = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}
_NUMBERS: Final = _FLOATS | {
    onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL,
}  # fmt: skip


class Bad(Exception):
    """The file is refused; the text says why."""


def look(content: bytes) -> dict[str, Any]:
    """Check a file and try it.

    Raises:
        Bad: it is refused.
    """
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf raises its own, by version
        raise Bad(f"it is no ONNX file: {_first_line(error)}") from error
    if model.functions or model.training_info:
        raise Bad("it has functions or training of its own")
    strange = {each.domain for each in model.opset_import} - {"", "ai.onnx", "ai.onnx.ml"}
    graphs = list(_graphs(model.graph))
    _check_tensors(graphs)
    operators = _operators(graphs)
    if strange - {"com.microsoft"}:
        raise Bad(f"it uses operators of the domain {sorted(strange)[0]!r}")
    try:
        onnx.checker.check_model(content, full_check=True)
    except Exception as error:  # ValidationError, InferenceError, ValueError ...
        raise Bad(f"it contradicts the ONNX standard: {_first_line(error)}") from error
    columns, type_name = _input(model.graph)
    _check_outputs(model.graph)
    return {
        "columns": columns,
        "outputs": _try(content, model.graph.input[0].name, columns, type_name),
        "operators": sorted(operators),
    }


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    waiting = [graph]
    while waiting:
        each = waiting.pop()
        yield each
        for node in each.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    waiting.append(attribute.g)
                waiting.extend(attribute.graphs)


def _operators(graphs: list[onnx.GraphProto]) -> set[str]:
    nodes = [node for graph in graphs for node in graph.node]
    if len(nodes) > NODES_MAX:
        raise Bad(f"it has {len(nodes)} nodes, more than {NODES_MAX}")
    for node in nodes:
        domain = "" if node.domain == "ai.onnx" else node.domain
        if node.op_type not in ALLOWED.get(domain, frozenset()):
            whole = f"{domain}.{node.op_type}" if domain else node.op_type
            raise Bad(f"it uses the operator {whole}, which is not allowed")
    return {node.op_type for node in nodes}


def _check_tensors(graphs: list[onnx.GraphProto]) -> None:
    for graph in graphs:
        if graph.sparse_initializer:
            raise Bad("it has sparse tensors")
        tensors = list(graph.initializer)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                    raise Bad("it has sparse tensors")
                tensors += [attribute.t] if attribute.HasField("t") else []
                tensors += attribute.tensors
        for tensor in tensors:
            if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
                raise Bad(f"its tensor {tensor.name!r} lies in another file")


def _input(graph: onnx.GraphProto) -> tuple[int, str]:
    """Columns and type of the one input of rows."""
    constants = {each.name for each in graph.initializer}
    inputs = [each for each in graph.input if each.name not in constants]
    if len(inputs) != 1 or len(graph.input) != 1:
        raise Bad(f"it has {len(inputs)} inputs; one of rows and columns is wanted")
    tensor = inputs[0].type.tensor_type
    sizes = list(tensor.shape.dim)
    if not inputs[0].type.HasField("tensor_type") or tensor.elem_type not in _FLOATS:
        raise Bad("its input is no tensor of float or double")
    if len(sizes) != 2 or sizes[0].HasField("dim_value") or not sizes[1].HasField("dim_value"):
        raise Bad("its input is not of the shape (any rows, so many columns)")
    columns = int(sizes[1].dim_value)
    if not 0 < columns <= COLUMNS_MAX:
        raise Bad(f"it has {columns} input columns; 1 to {COLUMNS_MAX} are possible")
    return columns, "float64" if tensor.elem_type == onnx.TensorProto.DOUBLE else "float32"


def _check_outputs(graph: onnx.GraphProto) -> None:
    for output in graph.output:
        kind = output.type
        if not kind.HasField("tensor_type") or kind.tensor_type.elem_type not in _NUMBERS:
            raise Bad(f"its output {output.name!r} is no tensor of numbers")


def _try(content: bytes, name: str, columns: int, type_name: str) -> int:
    """Run the model on zeros; gives how many columns its results have."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    rows = np.zeros((BLOCK_ROWS, columns), type_name)
    try:
        session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
        found = session.run(None, {name: rows})
    except Exception as error:  # ONNX Runtime raises a class for each of its states
        raise Bad(f"it cannot be run: {_first_line(error)}") from error
    for each in found:
        if not 1 <= each.ndim <= 2 or each.shape[0] != BLOCK_ROWS:
            raise Bad(f"a result of {BLOCK_ROWS} rows has the shape {each.shape}")
    return sum(1 if each.ndim == 1 else int(each.shape[1]) for each in found)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]


def main() -> None:
    """Read, look, and write the answer; the exit code is 0 whenever there is one."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S_MAX, CPU_S_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        answer = look(sys.stdin.buffer.read())
    except (Bad, MemoryError) as error:
        answer = {"refused": str(error) or "it needs too much memory"}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
