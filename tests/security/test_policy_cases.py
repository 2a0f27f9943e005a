"""Files of policy cases, and the command line of the policy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headrace.cli.app import build
from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.security.engine import Engine
from headrace.security.identity import Identity
from headrace.security.policy import in_force, use
from headrace.security.policy_cases import run_cases
from headrace.security.policy_text import PolicySet
from headrace.security.rights import ROLES as ROLE_NAMES
from headrace.security.rights import Actor

DOC = Path(__file__).resolve().parents[2] / "docs" / "policy.md"
CASES = """
[[actor]]
name = "leo"
grants = [{ role = "operator", scope = "utilities" }]
[[case]]
actor = "leo"
action = "write"
resource = "tag/1"
equipment = "utilities/pumping"
expect = "allow"
because = "role.operator"
[[case]]
actor = "leo"
action = "write"
resource = "tag/2"
equipment = "machining"
expect = "%s"
"""


def test_cases_hold_or_say_what_was_found() -> None:
    assert run_cases(Engine(), CASES % "deny", "c.toml") == (2, [])
    count, [failed] = run_cases(Engine(), CASES % "allow", "c.toml")
    assert count == 2 and "case 2" in failed and "expected allow, found deny" in failed
    other = CASES.replace("role.operator", "role.admin") % "deny"
    assert "but by role.operator" in run_cases(Engine(), other, "c.toml")[1][0]


@pytest.mark.parametrize(
    "text", ["", "[[case]]", "no toml", CASES.replace("write", "fly") % "deny"]
)
def test_what_is_no_file_of_cases_is_told(text: str) -> None:
    with pytest.raises(Misconfigured, match=r"SEC-1420 c\.toml"):
        run_cases(Engine(), text, "c.toml")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", DOC.read_text("utf-8"), re.S)


def test_the_examples_of_the_documentation_do_what_they_say() -> None:
    own = PolicySet({f"example_{n}.cedar": text for n, text in enumerate(blocks("cedar"))})
    assert own.own >= 4
    tried = [run_cases(Engine(own), text, f"example {n}") for n, text in enumerate(blocks("toml"))]
    assert sum(count for count, _ in tried) >= 8
    assert [failed for _, failed in tried if failed] == []


def test_the_table_of_roles_in_the_documentation_is_what_the_policy_says() -> None:
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", DOC.read_text("utf-8"), re.M)
    head = re.search(r"^\| action \|(.*)\|$", DOC.read_text("utf-8"), re.M)
    assert head is not None
    roles = [cell.strip() for cell in head[1].split("|")]
    assert roles == list(ROLE_NAMES)
    engine, told = Engine(), {}
    for action, cells in rows:
        for role, cell in zip(roles, cells.split("|"), strict=True):
            told[action, role] = cell.strip() == "yes"
    found = {
        (action, role): engine.decide(Actor("x", role), action, "site").allowed  # type: ignore[arg-type] # words
        for action, role in told
    }
    assert told == found and len(found) == 12 * 6


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    made = DataFolder(tmp_path)
    identity = Identity(made)
    identity.add_user("leo", "operator", "a long enough phrase")
    identity.close()
    return made


def run(folder: DataFolder, *words: str) -> tuple[int, str]:
    before = in_force()
    try:
        done = CliRunner().invoke(build((words[0],)), [*words, "--data", str(folder.root)])
    finally:
        use(before)
    return done.exit_code, f"{done.output}{done.exception or ''}".replace("\n", " ")


def test_the_command_line_explains_checks_and_tries(folder: DataFolder, tmp_path: Path) -> None:
    assert run(folder, "policy", "explain", "leo", "write", "connection/x")[0] == 0
    code, said = run(folder, "policy", "explain", "leo", "edit", "site")
    assert code == 1 and "no policy permits it" in said
    assert "SEC-1006" in run(folder, "policy", "explain", "eve", "edit", "site")[1]
    folder.policies.mkdir()
    own = folder.policies / "own.cedar"
    own.write_text('@id("still") forbid (principal, action == Action::"write", resource);')
    assert run(folder, "policy", "check")[0] == 0
    code, said = run(folder, "policy", "explain", "leo", "write", "connection/x")
    assert code == 1 and "still (own.cedar:1)" in said
    cases = tmp_path / "cases.toml"
    cases.write_text(CASES % "deny")
    code, said = run(folder, "policy", "test", str(cases))
    assert code == 1 and "1 of 2 cases hold" in said
    own.write_text("forbid nothing;")
    assert "own.cedar:1" in run(folder, "policy", "check")[1]
    assert "SEC-1401" in run(folder, "policy", "list")[1]


def test_commands_are_decided_and_told(folder: DataFolder) -> None:
    assert run(folder, "user", "grant", "leo", "operator", "utilities")[0] == 0
    assert "utilities" in run(folder, "user", "grants")[1]
    folder.policies.mkdir()
    (folder.policies / "own.cedar").write_text(
        'forbid (principal is System, action == Action::"administer", resource);'
    )
    assert "SEC-1004" in run(folder, "user", "add", "eve")[1]
    identity = Identity(folder)
    told = [(e.actor[:3], e.outcome) for e in identity.audit.entries(action="administer")]
    assert [u.name for u in identity.users()] == ["leo"]
    identity.close()
    assert told == [("os:", "denied"), ("os:", "allowed")]
