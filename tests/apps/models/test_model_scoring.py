"""A model gives the same results however its rows are cut, to the bit."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models_onnx import linear, network, trees

from headrace.apps.models.scoring import OnnxModel
from headrace.model.errors import Corrupt, Misconfigured

COLUMNS = [f"c{i}" for i in range(7)]
MODELS = {
    "linear": OnnxModel(linear(np.linspace(-3, 3, 7), 0.1), COLUMNS, "1"),
    "network": OnnxModel(network(7, 33, 1), COLUMNS, "1"),
    "trees": OnnxModel(trees(7, 50, 2), COLUMNS, "1"),
}


@given(
    name=st.sampled_from(sorted(MODELS)),
    rows=st.integers(0, 400),
    cuts=st.lists(st.integers(0, 400), max_size=6),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_how_rows_are_cut_changes_nothing(name, rows, cuts, seed):
    model = MODELS[name]
    asked = np.random.default_rng(seed).normal(size=(rows, 7)) * 100
    whole = model.run(asked)
    edges = sorted({0, rows, *(cut for cut in cuts if cut <= rows)})
    parts = [model.run(asked[a:b]) for a, b in pairwise(edges)]
    pieced = np.concatenate(parts) if parts else model.run(asked)
    assert whole.shape == (rows, 2 if name == "network" else 1)
    assert whole.tobytes() == pieced.tobytes()
    order = np.random.default_rng(seed).permutation(rows)
    assert model.run(asked[order]).tobytes() == whole[order].tobytes()


def test_results_are_those_of_the_formula():
    asked = np.random.default_rng(3).normal(size=(1000, 7))
    found = MODELS["linear"].run(asked)[:, 0]
    assert np.allclose(found, asked @ np.linspace(-3, 3, 7) + 0.1, atol=1e-5)


def test_rows_that_do_not_fit_are_refused():
    with pytest.raises(Misconfigured, match="APPS-2505"):
        MODELS["linear"].run(np.zeros((3, 6)))
    with pytest.raises(Corrupt, match="APPS-2504"):
        OnnxModel(b"nothing", COLUMNS, "1")
