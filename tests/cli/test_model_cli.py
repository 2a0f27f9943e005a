"""``headrace model``: list, show, promote, export, import; what is wrong is said with a code."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from headrace.apps.models.registry import open_models
from headrace.cli.app import build
from headrace.model.errors import HeadraceError
from headrace.model.folder import DataFolder
from models_onnx import linear


def run(*words, code=""):
    found = CliRunner().invoke(build(("model",)), ["model", *map(str, words)])
    if code:
        assert isinstance(found.exception, HeadraceError), found.output
        assert found.exception.code == code
    else:
        assert found.exit_code == 0, found.output + repr(found.exception)
    return found.output


def test_a_model_from_import_to_roll_back(tmp_path):
    data = ["--data", tmp_path / "plant"]
    with open_models(DataFolder(tmp_path / "plant")) as registry:
        for rmse in (2.0, 1.0):
            registry.add(
                "asset-health", "rul", linear([1.0]), ["a"], by="os:eve", metrics={"rmse": rmse}
            )
    model = ["asset-health", "rul"]
    run("promote", *model, 1, *data, code="APPS-2514")
    run("promote", *model, 1, "--why", "first", *data)
    run("promote", *model, 2, "--why", "smaller error", *data)
    listed = json.loads(run("list", "--json", *data))
    assert [each["state"] for each in listed] == ["former", "champion"]
    assert "version 1 is champion" in run("rollback", *model, "--why", "too many alarms", *data)
    shown = run("show", *model, *data)
    assert "signature holds" in shown and "too many alarms" in shown and "rmse 2" in shown
    assert "rmse" in run("compare", *model, *data)
    run("export", *model, tmp_path / "rul.json", *data)
    other = ["--data", tmp_path / "other"]
    run("import", tmp_path / "rul.json", *other, code="APPS-2516")
    run("import", tmp_path / "none.json", *other, code="APPS-2519")
    run("import", tmp_path / "rul.json", "--allow-unknown", *other)
    run("retire", *model, 1, "--why", "old", *other)
    run("promote", *model, 1, "--why", "again", *other, code="APPS-2515")
