"""The attempt log is whole: written from the tests, every place in it exists, every name is one."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
ATTACKS_MIN = 110


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "write_attack_log", ROOT / "scripts" / "attack_log.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["write_attack_log"] = module
    spec.loader.exec_module(module)
    return module


def test_the_log_is_up_to_date(script: ModuleType) -> None:
    written = (ROOT / "docs" / "attacks.md").read_text(encoding="utf-8")
    assert written == script.page(), "run: python scripts/attack_log.py"


def test_every_attack_has_a_name_of_its_own_and_a_test(script: ModuleType) -> None:
    entries = script.entries()
    names = [entry.name for entry in entries]
    assert len(names) == len(set(names)) >= ATTACKS_MIN
    for entry in entries:
        file, _, test = entry.test.partition("::")
        text = (ROOT / file).read_text(encoding="utf-8")
        assert not test or f"def {test}(" in text
        assert re.fullmatch(r"SR \d\.\d+( RE \(\d\))?", entry.requirement), entry
        assert entry.stride in "STRIDE" and "|" not in "".join(entry)
