"""``headrace app``: from nothing to an installed app, and back, as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from headrace import __version__
from headrace.apps.package import content_sha256, read_folder, read_package
from headrace.bench.scenario_file import read_scenarios
from headrace.cli.app import build
from headrace.model.bench_certificate import Certificate, ScenarioResult
from headrace.model.errors import HeadraceError

RUNNER = CliRunner()
APP = build(("app",))
OURS = Path(__file__).resolve().parents[2] / "apps"
SITE = '[site]\nenterprise = "acme"\nname = "mill"\n'


def run(*words: object, code: int = 0) -> str:
    result: Result = RUNNER.invoke(APP, ["app", *map(str, words)])
    if isinstance(result.exception, HeadraceError):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def certify(folder: Path) -> None:
    """What the bench writes beside app.toml."""
    tried = {each.scenario.name: each.sha256 for each in read_scenarios(folder / "scenarios")}
    certificate = Certificate(
        id=folder.name, version="0.1.0", content_sha256=content_sha256(read_folder(folder)),
        headrace=__version__, scenarios=tried,
        results=tuple(ScenarioResult(name=name, passed=True, checks=1) for name in tried),
    )  # fmt: skip
    (folder / "certificate.json").write_bytes(msgspec.json.encode(certificate))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "site.toml").write_text(SITE)
    return tmp_path / "data"


def test_from_nothing_to_installed_and_back(tmp_path: Path, data: Path) -> None:
    app, key = tmp_path / "seal-watch", tmp_path / "acme.pem"
    run("new", app, "--publisher", "acme")
    assert "is right" in run("check", app)
    assert "1 of 1 evaluations hold" in run("test", app)
    public = run("key", key).strip().splitlines()[-1]
    assert key.stat().st_mode & 0o777 == 0o600
    with pytest.raises(HeadraceError, match="CLI-1903"):
        run("key", key)
    run("pack", app, "--out", tmp_path)
    file = tmp_path / "seal-watch-0.1.0.hrapp"
    with pytest.raises(HeadraceError, match="APPS-2028"):
        run("install", file, "--yes", "--data", data)
    run("sign", file, "--key", key)
    with pytest.raises(HeadraceError, match="APPS-2027"):
        run("install", file, "--yes", "--data", data)
    run("trust", "add", "acme", public, "--data", data)
    with pytest.raises(HeadraceError, match="APPS-2056"):
        run("publish", file, "--data", data)
    certify(app)
    run("pack", app, "--key", key, "--out", tmp_path)
    run("publish", file, "--data", data)
    shown = run("show", file)
    assert "1 of 1 scenarios" in shown and ": passed" in shown
    assert "Nothing was done" in run("install", "seal-watch", "--data", data, code=1)
    installed = run("install", "seal-watch", "--yes", "--data", data)
    assert "none: formulas only" in installed and "[app.seal-watch]" in installed
    listed = json.loads(run("list", "--json", "--data", data))
    assert listed["installed"] is True and listed["rating"] == 1.0
    (app / "app.toml").write_text(
        (app / "app.toml").read_text().replace('version = "0.1.0"', 'version = "0.2.0"')
    )
    run("pack", app, "--key", key, "--out", tmp_path)
    newer = tmp_path / "seal-watch-0.2.0.hrapp"
    assert read_package(newer, None).certificate is None
    run("upgrade", newer, "--yes", "--data", data)
    assert 'version = "0.2.0"' in (data / "site.toml").read_text()
    run("rollback", "seal-watch", "--yes", "--data", data)
    assert "rollback 0.1.0" in run("show", "seal-watch", "--data", data)
    assert "What remains" in run("remove", "seal-watch", "--packages", "--yes", "--data", data)
    assert (data / "site.toml").read_text().strip() == SITE.strip()
    assert "No packages yet" in run("list", "--data", data)


def test_another_catalog_is_a_folder(tmp_path: Path, data: Path) -> None:
    app, key, other = tmp_path / "watch", tmp_path / "acme.pem", tmp_path / "catalog"
    run("new", app, "--publisher", "acme")
    public = run("key", key).strip().splitlines()[-1]
    certify(app)
    run("pack", app, "--key", key, "--out", tmp_path)
    file = tmp_path / "watch-0.1.0.hrapp"
    with pytest.raises(HeadraceError, match="CLI-1904"):
        run("publish", file, "--to", other)
    run("publish", file, "--to", other, "--key", key)
    (tmp_path / "acme.pub").write_text(public)
    run("trust", "add", "acme", tmp_path / "acme.pub", "--data", data)
    assert "acme" in run("trust", "list", "--data", data)
    assert "watch" in run("list", "--from", other, "--data", data)
    with pytest.raises(HeadraceError, match="CLI-1905"):
        run("install", "none", "--from", other, "--data", data)
    run("install", "watch", "--from", other, "--yes", "--data", data)
    run("trust", "remove", "acme", "--data", data)
    with pytest.raises(HeadraceError, match="APPS-2027"):
        run("list", "--from", other, "--data", data)


@pytest.mark.parametrize("template", ["python", "model"])
def test_templates_with_python_are_right_and_described(tmp_path: Path, template: str) -> None:
    app = tmp_path / f"my-{template}"
    run("new", app, "--template", template)
    assert "is right" in run("check", app)
    run("pack", app, "--out", tmp_path)
    package = read_package(tmp_path / f"my-{template}-0.1.0.hrapp", None)
    hooks = json.loads(package.file("described.json"))["hooks"]
    assert {each["kind"] for each in hooks} == (
        {"window", "service"} if template == "python" else {"train", "score"}
    )


def test_what_is_wrong_is_told_all_at_once(tmp_path: Path) -> None:
    app = tmp_path / "watch"
    run("new", app)
    with pytest.raises(HeadraceError, match="APPS-2032"):
        run("new", app)
    with pytest.raises(HeadraceError, match="APPS-2062"):
        run("new", tmp_path / "other", "--template", "fancy")
    text = (app / "app.toml").read_text()
    (app / "app.toml").write_text(
        text.replace("npsh_margin <", "npsh <").replace('"kW"', '"kWatt"')
    )
    found = json.loads(run("check", app, "--json", code=2))
    assert {each["code"] for each in found} == {"APPS-2010", "FORM-1010", "FORM-1011"}
    assert "app.toml" in run("check", app, code=2)
    (app / "app.toml").write_text(text)
    view = app / "views" / "overview.toml"
    view.write_text(view.read_text().replace('"efficiency"', '"efficincy"', 1))
    assert "views/overview.toml" in run("check", app, code=2)
    run("pack", app, "--out", tmp_path, code=2)
    assert not list(tmp_path.glob("*.hrapp"))


def test_tests_that_fail_and_tests_that_are_not_there(tmp_path: Path) -> None:
    app = tmp_path / "watch"
    run("new", app)
    case = app / "tests" / "efficiency.formula"
    case.write_text(case.read_text().replace("48.93", "47.93"))
    assert "0 of 1 evaluations hold" in run("test", app, code=3)
    case.unlink()
    with pytest.raises(HeadraceError, match="CLI-1901"):
        run("test", app)


@pytest.mark.parametrize("name", sorted(path.parent.name for path in OURS.glob("*/app.toml")))
def test_the_apps_of_this_repository_are_right(name: str) -> None:
    assert "is right" in run("check", OURS / name)
