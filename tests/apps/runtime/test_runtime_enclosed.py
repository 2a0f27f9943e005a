"""What an app tries at its import, in a real process: the kernel refuses what it has no business with."""

from __future__ import annotations

import json
import os
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

from headrace.apps.runtime.describe import describe, described
from headrace.apps.runtime.loading import load_module
from headrace.model.app_manifest import AppManifest
from headrace.model.errors import HeadraceError

TOML = """
id = "load-watch"
version = "1.0.0"
title = {en = "Load"}
python = "load_watch"
[types.pump]
package = "pump"
quantities = {power = "kW"}
[[services]]
name = "ask"
"""
SOURCE = '''
from typing import Annotated
import msgspec
from headrace import app

class Question(msgspec.Struct):
    flow: Annotated[float, app.Unit("m3/h"), msgspec.Meta(ge=0)]

class Answer(msgspec.Struct):
    power: float

@app.service
def ask(request: Question, context: app.Context) -> Answer:
    """Power at a flow."""
    return Answer(1.0)

def attempt(what):
    try:
        what()
        return "done"
    except (OSError, MemoryError) as error:
        return type(error).__name__
'''
TRIES = {
    "socket": "import socket; socket.socket()",
    "unix_socket": "import socket; socket.socket(socket.AF_UNIX)",
    "read": "open('{secret}').read()",
    "environment_of_others": "open('/proc/{parent}/environ').read()",
    "list": "import os; os.listdir('/')",
    "write": "open('{secret}', 'w')",
    "write_own_code": "open('{folder}/load_watch.py', 'w')",
    "program": "import subprocess; subprocess.run(['true'])",
    "fork": "import os; os.fork()",
    "kill": "import os; os.kill({parent}, 0)",
    "chmod": "import os; os.chmod('{secret}', 0o777)",
    "memory": "len(bytearray(16 << 30))",
}


def write(folder: Path, more: str) -> Path:
    folder.mkdir()
    (folder / "app.toml").write_text(TOML)
    (folder / "load_watch.py").write_text(SOURCE + more)
    return folder


def test_a_description_tells_hooks_and_types_of_services(tmp_path):
    found = json.loads(described(write(tmp_path / "app", "")))
    assert [hook["name"] for hook in found["hooks"]] == ["ask"]
    service = found["services"]["ask"]
    assert service["help"] == "Power at a flow."
    flow = service["request"]["$defs"]["Question"]["properties"]["flow"]
    assert flow == {"type": "number", "minimum": 0, "unit": "m3/h"}


@pytest.mark.skipif(sys.platform != "linux", reason="what holds it is of Linux")
def test_the_kernel_refuses_what_an_app_has_no_business_with(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("s")
    folder = tmp_path / "app"
    words = {"secret": secret, "folder": folder, "parent": os.getpid()}
    tries = {name: text.format(**words) for name, text in TRIES.items()}
    own = {"read_own": f"open('{folder}/app.toml').read()", "numpy": "import numpy.fft"}
    more = (
        "found = {}\n"
        f"for name, text in { ({**tries, **own})!r}.items():\n"
        "    found[name] = attempt(lambda: exec(text, {}))\n"
        "Answer.__doc__ = ' '.join(f'{k}={v}' for k, v in found.items())\n"
    )
    found = json.loads(described(write(folder, more)))
    told = found["services"]["ask"]["answer"]["$defs"]["Answer"]["description"]
    results = dict(pair.split("=") for pair in told.split())
    assert [name for name in own if results[name] != "done"] == []
    assert [name for name in tries if results[name] == "done"] == []
    assert secret.read_text() == "s"


@pytest.mark.parametrize(
    ("more", "code"), [("1 / 0", "APPS-2225"), ("import os; os._exit(3)", "APPS-2227")]
)
def test_an_import_that_fails_is_told_with_a_code(tmp_path, more, code):
    with pytest.raises(HeadraceError) as told:
        described(write(tmp_path / "app", more))
    assert told.value.code == code


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ("@app.service\ndef extra(request: Question, context) -> Answer: ...", "APPS-2209"),
        ("del ask", "APPS-2209"),
        ("@app.service\ndef ask(request, context): ...", "APPS-2209"),
        ("@app.service\ndef ask(request: complex, context) -> Answer: ...", "APPS-2226"),
        ("@app.on_schedule('soon')\ndef f(context): ...", "APPS-2201"),
        (
            "@app.on_window('pump', length='7 s', every='1 s', step='2 s')\ndef f(w): ...",
            "APPS-2202",
        ),
        ("@app.on_window('fan', length='7 s', every='1 s')\ndef f(w): ...", "APPS-2209"),
        ("@app.train('rul')\ndef f(history, context): ...", "APPS-2209"),
    ],
)
def test_a_declaration_that_does_not_fit_is_told_with_a_code(tmp_path, more, code):
    folder = write(tmp_path / "app", more)
    manifest = msgspec.convert(tomllib.loads(TOML), AppManifest)
    with pytest.raises(HeadraceError) as told:
        describe(manifest, load_module(folder, manifest))
    assert told.value.code == code
