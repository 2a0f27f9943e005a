"""The first thing a newcomer runs: what it fetches is checked, what fails is said in plain words."""

from __future__ import annotations

import hashlib
import http.server
import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "environment.py"


@pytest.fixture
def environment() -> ModuleType:
    spec = importlib.util.spec_from_file_location("environment", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def index() -> Iterator[tuple[str, dict[str, bytes]]]:
    """A package index on a free port, and what it serves."""
    pages: dict[str, bytes] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path in pages else 404)
            self.end_headers()
            self.wfile.write(pages.get(self.path, b""))

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/simple", pages
    server.shutdown()
    server.server_close()


def listing(*names: str) -> bytes:
    return json.dumps({"files": [{"filename": n, "url": f"../../f/{n}"} for n in names]}).encode()


def test_pip_is_taken_only_with_the_right_sum(environment, index, monkeypatch):
    url, pages = index
    pages["/simple/pip/"] = listing("pip-1.0.tar.gz", environment.PIP_WHEEL)
    pages[f"/f/{environment.PIP_WHEEL}"] = b"another file"
    with pytest.raises(ValueError, match="not the file it should be"):
        environment._download(f"{url}/pip/")
    monkeypatch.setattr(environment, "PIP_SHA256", hashlib.sha256(b"another file").hexdigest())
    assert environment._download(f"{url}/pip/") == b"another file"
    link = f'<a href="../../f/{environment.PIP_WHEEL}#sha256=0" data-x="&gt;=3.10">'
    pages["/simple/pip/"] = f"<html>{link}{environment.PIP_WHEEL}</a></html>".encode()
    assert environment._download(f"{url}/pip/") == b"another file"


def test_without_pip_the_remedy_is_named(environment, index, monkeypatch, tmp_path):
    url, pages = index
    pages["/simple/pip/"] = listing("pip-1.0.tar.gz")
    monkeypatch.setenv("PIP_INDEX_URL", url)
    with pytest.raises(SystemExit, match=r"(?s)has no pip-.*apt-get install python3-venv"):
        environment._fetch_pip(tmp_path / "bin" / "python")


def test_a_library_that_cannot_be_had_is_said_with_a_remedy(tmp_path):
    lock = tmp_path / "one.lock"
    lock.write_text("headrace-no-such-library==1.0\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    code = (
        "import runpy, sys; from pathlib import Path; place = Path(sys.argv[2])\n"
        "script = runpy.run_path(sys.argv[1])\n"
        "script['_pip'](place, ['--no-index', '--target', str(place / 'out'), '-r', sys.argv[3]], 1)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(SCRIPT), str(tmp_path), str(lock)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin"},
    )
    assert ended.returncode == 1
    assert "headrace-no-such-library" in ended.stderr
    assert "PIP_INDEX_URL" in ended.stderr and "Traceback" not in ended.stderr
