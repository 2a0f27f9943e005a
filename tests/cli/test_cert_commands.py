"""``headrace cert`` on a data folder."""

from __future__ import annotations

from typer.testing import CliRunner

from headrace.cli.app import build
from headrace.model.folder import DataFolder
from headrace.model.time import SystemClock
from headrace.security.listener import Listener


def run(folder: DataFolder, *arguments: str) -> str:
    whole = ["cert", *arguments, "--data", str(folder.root)]
    done = CliRunner().invoke(build(("cert",)), whole, env={"COLUMNS": "200"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return str(done.exception)
    return done.output


def test_a_devices_certificate_is_made_renewed_listed_and_revoked(folder: DataFolder) -> None:
    assert "No certificates yet" in run(folder, "list")
    assert "press_3.pem" in run(folder, "add", "press_3", "--days", "20")
    run(folder, "renew", "press_3")
    listed = [line for line in run(folder, "list").splitlines() if "press_3" in line]
    assert len(listed) == 2 and all("counts" in line for line in listed)
    assert run(folder, "revoke", "press_3").count("revoked press_3") == 2
    assert "counts" not in "".join(
        line for line in run(folder, "list").splitlines() if "press_3" in line
    )
    assert "SEC-1613" in run(folder, "revoke", "press_3")


def test_the_servers_certificate_is_renewed_also_while_nothing_runs(folder: DataFolder) -> None:
    assert "SEC-1613" in run(folder, "renew", "server")
    listener = Listener(folder)
    before = listener.ensure((), SystemClock().now_us()).certificate.read_bytes()
    assert "does not run" in run(folder, "renew", "server")
    files = listener.files()
    assert files is not None and files.certificate.read_bytes() != before


def test_the_authority_is_renewed_and_the_old_one_retired(folder: DataFolder) -> None:
    assert "SEC-1616" in run(folder, "renew-authority")
    run(folder, "add", "press_3")
    assert "Both authorities count" in run(folder, "renew-authority")
    assert "SEC-1617" in run(folder, "retire-authority")
    run(folder, "renew", "press_3")
    assert "Only the new authority counts" in run(folder, "retire-authority")
