"""Policy files of a data folder: in force without a restart; a broken one leaves the last good in force."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.model.errors import Corrupt, Misconfigured
from headrace.model.folder import DataFolder
from headrace.model.time import ManualClock
from headrace.security.engine import Engine
from headrace.security.identity import Identity
from headrace.security.policy import Actor, decide, in_force, use
from headrace.security.policy_files import PolicyFiles, PolicyWatch, use_files
from headrace.security.policy_text import PolicySet

NO_WRITES = '@id("no_writes") forbid (principal, action == Action::"write", resource);'
LEO = Actor("leo", "operator")


class Site:
    def __init__(self, root: Path) -> None:
        self.folder = DataFolder(root)
        self.identity = Identity(self.folder, ManualClock())
        self.events: list[tuple[str, str]] = []
        self.restart()

    def restart(self) -> None:
        use(Engine())
        self.watch = PolicyWatch(
            PolicyFiles(self.folder),
            self.identity.audit,
            lambda severity, code, text, remedy: self.events.append((severity, code)),
        )
        self.watch.look()

    def put(self, text: str, name: str = "own.cedar") -> None:
        self.folder.policies.mkdir(exist_ok=True)
        (self.folder.policies / name).write_text(text)
        self.watch.look()

    def may_write(self) -> bool:
        return decide(LEO, "write", "tag/1").allowed


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    before = in_force()
    found = Site(tmp_path)
    yield found
    found.identity.close()
    use(before)


def test_a_file_is_in_force_and_in_the_audit_chain(site: Site) -> None:
    assert site.may_write() and not site.events
    site.put(NO_WRITES)
    assert not site.may_write() and site.events == [("info", "SEC-1407")]
    [entry] = site.identity.audit.entries(action="policy.accept")
    assert '"own.cedar"' in entry.detail
    (site.folder.policies / "own.cedar").unlink()
    site.watch.look()
    assert site.may_write() and len(site.identity.audit.entries(action="policy.accept")) == 2


def test_a_broken_file_leaves_the_last_good_in_force_also_over_a_restart(site: Site) -> None:
    site.put(NO_WRITES)
    site.put("\n\nforbid everything;")
    assert not site.may_write() and site.events[-1] == ("error", "SEC-1401")
    assert site.watch.problem is not None and "own.cedar:3" in site.watch.problem.what
    site.restart()
    assert not site.may_write(), "breaking a file gives nobody a right"
    use(Engine())
    use_files(site.folder)
    assert not site.may_write(), "neither on the command line"
    site.put(NO_WRITES.replace("write", "operate"))
    assert site.may_write() and site.watch.problem is None


def test_what_was_in_force_and_cannot_be_read_stops(site: Site) -> None:
    site.put(NO_WRITES)
    (site.folder.policies / "in_force.json").write_text("{")
    with pytest.raises(Corrupt, match="SEC-1406"):
        site.put("broken")
    with pytest.raises(Corrupt, match="SEC-1406"):
        site.restart()


def test_a_file_is_written_only_when_all_are_good_with_it(site: Site) -> None:
    files = site.watch.files
    files.write("own.cedar", NO_WRITES)
    site.watch.look()
    assert not site.may_write()
    for name, text in (
        ("own.cedar", "broken"),
        ("twin.cedar", NO_WRITES),
        ("../out.cedar", NO_WRITES),
        ("own.txt", NO_WRITES),
    ):
        with pytest.raises(Misconfigured):
            files.write(name, text)
    assert [path.name for path in sorted(site.folder.policies.glob("*.cedar"))] == ["own.cedar"]
    files.write("own.cedar", "")
    site.watch.look()
    assert site.may_write() and files.read() == {}


def test_what_is_no_text_is_told(site: Site) -> None:
    site.folder.policies.mkdir()
    (site.folder.policies / "own.cedar").write_bytes(b"\xff\xfe")
    site.watch.look()
    assert site.events == [("error", "SEC-1404")]
    assert in_force().policies.digest == PolicySet().digest
