"""The bill of materials is one that others can read; the audit of dependencies tells what it found."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"script_{name}", SCRIPTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_bill_of_materials_is_valid_cyclonedx_and_names_what_is_installed() -> None:
    pytest.importorskip("cyclonedx", reason="in the extra dev")
    pytest.importorskip("jsonschema", reason="what the validator needs")
    from cyclonedx.output.json import JsonV1Dot6
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = JsonV1Dot6(script("sbom").bom()).output_as_string()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    broken = text.replace('"specVersion"', '"specVersionn"', 1)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(broken) is not None
    found = json.loads(text)
    names = {each["name"].lower(): each for each in found["components"]}
    assert {"polars", "deltalake", "nats-server", "cryptography"} <= names.keys()
    assert names["polars"]["purl"].startswith("pkg:pypi/polars@") and names["polars"]["hashes"]
    assert len(names["nats-server"]["hashes"][0]["content"]) == 64


def answer(**report: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess([], 1, json.dumps(report), "")


@pytest.mark.parametrize(
    ("done", "code", "says"),
    [
        (
            answer(dependencies=[{"name": "a", "version": "1", "vulns": []}]),
            0,
            "1 packages, 0 known",
        ),
        (
            answer(
                dependencies=[
                    {"name": "a", "version": "1", "vulns": [{"id": "X-1", "fix_versions": ["2"]}]}
                ]
            ),
            1,
            "a 1: X-1, mended in 2",
        ),
        (subprocess.CompletedProcess([], 1, "", "no route to host"), 0, "skipped, no advisories"),
        (subprocess.TimeoutExpired("pip-audit", 60), 0, "skipped, no answer in 60 s"),
    ],
)
def test_the_audit_ends_with_one_only_when_there_is_a_vulnerability(
    done: Any,
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    audit = script("dependency_audit")

    def run(command: list[str], **more: Any) -> Any:
        assert command[:3] == [sys.executable, "-m", "pip_audit"] and more["timeout"] == 60
        if isinstance(done, Exception):
            raise done
        return done

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(audit.subprocess, "run", run)
    assert audit.main() == code
    assert says in capsys.readouterr().out
