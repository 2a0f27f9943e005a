"""A trained :class:`asset_health.rul.Life` as one ONNX file; :mod:`asset_health.lifeline` says what it answers.

Conditions and interval are in double precision, the learners in single precision as ONNX has them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType as FloatsOfTrees
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType

from asset_health.features import Matrix
from asset_health.lifeline import HEAD, TREND
from asset_health.rul import BINS, CAP, Learners, Life

_OPSET, _OPSET_LEARNED, _IR = 15, 3, 8


class _Graph:
    """Nodes and constants that are collected."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: Any, type: Any = np.float64) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value, type), name))
        return name

    def add(self, operator: str, inputs: list[str], result: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [result], **attributes))
        return result

    def take(self, model: Any, prefix: str, source: str) -> str:
        """A converted learner, fed with ``source``; gives its result."""
        named = compose.add_prefix(model, prefix).graph
        self.add("Identity", [source], named.input[0].name)
        self.nodes += named.node
        self.constants += named.initializer
        return str(named.output[0].name)


def write_life(
    life: Life, names: list[str], operating: int, *, row_s: int, sample_s: int
) -> tuple[bytes, list[str]]:
    """ONNX bytes, and the names of the model's columns.

    Args:
        names: of the quantities, the first ``operating`` of them say how the asset is driven.
        row_s: time of running that a row is the mean of. sample_s: between its samples.
    """
    graph = _Graph()
    features = 1 + 9 * int(life.kept.sum())
    columns = len(names)
    picked = graph.constant("trend_places", np.arange(columns, columns + features), np.int64)
    trends = graph.add("Gather", ["x", picked], "trends", axis=1)
    single = graph.add("Cast", [trends], "trends_single", to=TensorProto.FLOAT)
    estimate = _estimate(graph, life.model, single, features)
    told = _interval(graph, life, estimate, row_s / 3600.0)
    constants = graph.constant("times", [[row_s, sample_s]])
    nothing = graph.add("Mul", [estimate, graph.constant("zero", 0.0)], "nothing")
    times = graph.add("Add", [nothing, constants], "shown_times")
    rest = _rest(graph, life, operating)
    graph.add("Concat", [told, times, rest], "y", axis=1)
    whole = helper.make_graph(
        graph.nodes,
        "remaining_life",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["rows", columns + features])],
        [helper.make_tensor_value_info(
            "y", TensorProto.DOUBLE, ["rows", HEAD + int(life.kept.sum())]
        )],
        graph.constants,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("ai.onnx.ml", _OPSET_LEARNED)]
    model = helper.make_model(whole, opset_imports=opsets, producer_name="asset-health")
    model.ir_version = _IR
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(), [*names, *(f"{TREND}{n}" for n in range(features))]


def _estimate(graph: _Graph, learners: Learners, trends: str, features: int) -> str:
    """(rows, 1), double: the mean of the three learners within 0 to the cap."""
    opsets = {"": _OPSET, "ai.onnx.ml": _OPSET_LEARNED}
    floats = [("rows", FloatTensorType([None, features]))]
    trees = convert_lightgbm(
        learners.trees,
        initial_types=[("rows", FloatsOfTrees([None, features]))],
        target_opset=_OPSET,
    )
    vectors = convert_sklearn(learners.vectors, initial_types=floats, target_opset=opsets)
    network = convert_sklearn(learners.network, initial_types=floats, target_opset=opsets)
    scaled = graph.add(
        "Scaler", [trends], "scaled", domain="ai.onnx.ml",
        offset=[float(v) for v in learners.scale.mean_], scale=[1.0 / float(v) for v in learners.scale.scale_],
    )  # fmt: skip
    column = graph.constant("column", [-1, 1], np.int64)
    parts = []
    for number, (model, source) in enumerate(
        ((trees, trends), (vectors, scaled), (network, scaled))
    ):
        raw = graph.take(model, f"part{number}_", source)
        shaped = graph.add("Reshape", [raw, column], f"part{number}_column")
        parts.append(graph.add("Cast", [shaped], f"part{number}_double", to=TensorProto.DOUBLE))
    together = graph.add("Sum", parts, "sum")
    mean = graph.add("Div", [together, graph.constant("learners", float(len(parts)))], "mean")
    low, high = graph.constant("none_left", 0.0), graph.constant("cap", CAP)
    return graph.add("Clip", [mean, low, high], "estimate")


def _interval(graph: _Graph, life: Life, estimate: str, hours_of_a_row: float) -> str:
    """(rows, 3), double: the estimate and both ends, in hours."""
    share = graph.add("Div", [estimate, graph.constant("bin_width", CAP / BINS)], "share")
    whole = graph.add("Floor", [share], "share_floor")
    last = graph.add("Min", [whole, graph.constant("last_bin", float(BINS - 1))], "bin_number")
    number = graph.add("Cast", [last], "bin", to=TensorProto.INT64)
    ends = [estimate]
    for name, added in (("lower", life.lower), ("upper", life.upper)):
        more = graph.add("Gather", [graph.constant(f"{name}_of_bin", added), number], f"{name}_add")
        end = graph.add("Add", [estimate, more], f"{name}_raw")
        ends.append(graph.add("Clip", [end, "none_left", "cap"], name))
    rows = graph.add("Concat", ends, "interval_rows", axis=1)
    return graph.add("Mul", [rows, graph.constant("row_hours", hours_of_a_row)], "interval")


def _rest(graph: _Graph, life: Life, operating: int) -> str:
    """(rows, kept quantities), double: what the conditions do not explain."""
    law, kept = life.conditions.law, life.kept
    places = graph.constant("quantity_places", operating + np.flatnonzero(kept), np.int64)
    quantities = graph.add("Gather", ["x", places], "quantities", axis=1)
    if not operating:
        means, spreads = (
            graph.constant("means", law["means"][:, kept]),
            graph.constant("spreads", law["spreads"][:, kept]),
        )
    elif "weights" in law:
        terms = _terms(graph, law, operating)
        weights = graph.constant("weights", law["weights"][:, kept])
        means = graph.add("MatMul", [terms, weights], "means")
        spreads = graph.constant("spreads", law["spreads"][kept])
    else:
        regime = _regime(graph, law, operating)
        table = graph.constant("means_of_regime", law["means"][:, kept])
        means = graph.add("Gather", [table, regime], "means", axis=0)
        table = graph.constant("spreads_of_regime", law["spreads"][:, kept])
        spreads = graph.add("Gather", [table, regime], "spreads", axis=0)
    moved = graph.add("Sub", [quantities, means], "moved")
    return graph.add("Div", [moved, spreads], "rest")


def _conditions(graph: _Graph, law: dict[str, Matrix], operating: int) -> str:
    places = graph.constant("operating_places", np.arange(operating), np.int64)
    driven = graph.add("Gather", ["x", places], "operating", axis=1)
    centred = graph.add(
        "Sub", [driven, graph.constant("middle", law["middle"])], "operating_centred"
    )
    return graph.add("Div", [centred, graph.constant("spread", law["spread"])], "operating_scaled")


def _terms(graph: _Graph, law: dict[str, Matrix], operating: int) -> str:
    """One, the conditions, and their products, as :mod:`asset_health.conditions` has them."""
    scaled = _conditions(graph, law, operating)
    pairs = [(i, j) for i in range(operating) for j in range(i, operating)]
    left = graph.constant("left_places", [i for i, _ in pairs], np.int64)
    right = graph.constant("right_places", [j for _, j in pairs], np.int64)
    products = graph.add(
        "Mul",
        [
            graph.add("Gather", [scaled, left], "left", axis=1),
            graph.add("Gather", [scaled, right], "right", axis=1),
        ],
        "products",
    )
    first = graph.constant("first_place", [0], np.int64)
    some = graph.add("Gather", [scaled, first], "some", axis=1)
    none = graph.add("Mul", [some, graph.constant("no_slope", 0.0)], "none")
    ones = graph.add("Add", [none, graph.constant("one", 1.0)], "ones")
    return graph.add("Concat", [ones, scaled, products], "terms", axis=1)


def _regime(graph: _Graph, law: dict[str, Matrix], operating: int) -> str:
    """(rows,): the nearest centre. What all distances have in common is left out of them."""
    scaled, centres = _conditions(graph, law, operating), law["centres"]
    across = graph.add("MatMul", [scaled, graph.constant("centres", -2.0 * centres.T)], "across")
    square = graph.constant("centre_squares", np.sum(np.square(centres), axis=1))
    distance = graph.add("Add", [across, square], "distance")
    return graph.add("ArgMin", [distance], "regime", axis=1, keepdims=0)
