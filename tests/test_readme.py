"""What the documents say can be done: the README's example, every command, every link, every file."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from headrace.cli.app import GROUPS, build

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    page
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/*.md")]
    if page.name != "errors.md"  # made from the source; test_docs.py holds it
)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
NAMED_FILE = re.compile(r"`([a-z_]+(?:/[a-z_0-9.]+)*/(?:[a-z_0-9]+\.(?:py|md|toml|lock|sh))?)`")
COMMAND = re.compile(r"(?:^|`|\$ )(?:\.venv/bin/)?(headrace(?: [^`#─\n]+)?)", re.MULTILINE)


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def test_the_readme_example_gives_exactly_what_the_readme_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (site,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert len([line for line in site.splitlines() if line and not line.startswith("#")]) <= 15
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "site.toml").write_text(site, encoding="utf-8")
    (shown,) = re.findall(r"\$ headrace site check data/site.toml\n(.*?)\n\$", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(build(), ["site", "check", "data/site.toml"])
    assert result.output.strip() == shown.strip()
    assert result.exit_code == 0


def commands() -> dict[str, str]:
    """Every command line that a page names, with the page."""
    found: dict[str, str] = {}
    for page in PAGES:
        for command in COMMAND.findall(page.read_text(encoding="utf-8")):
            found.setdefault(command.strip().rstrip(".,;:"), named(page))
    return found


def words_of(command: str) -> tuple[list[str], list[str]]:
    """The words that name the command, and the options, of a line such as a page has it."""
    words = shlex.split(command.replace("[", " ").replace("]", " "))[1:]
    groups = [word for word in words if re.fullmatch(r"[a-z]+(-[a-z]+)*", word)]
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    return groups, options


def test_every_command_that_a_page_names_exists_with_its_options():
    found = commands()
    assert len(found) > 15, "the search finds nothing any more"
    root = typer.main.get_command(build())
    for command, page in found.items():
        groups, options = words_of(command)
        here = root
        while hasattr(here, "commands") and groups and groups[0] in here.commands:
            here = here.commands[groups.pop(0)]
        assert not (hasattr(here, "commands") and groups), f"{page}: no {command!r}"
        known = {name for parameter in here.params for name in parameter.opts} | {"--help"}
        assert set(options) <= known, f"{page}: {command}: no such option"


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_says_what_it_does(group: str):
    """With this group alone loaded, as the command line loads it."""
    result = CliRunner().invoke(build((group,)), [group.replace("_", "-"), "--help"])
    assert result.exit_code == 0 and "Usage:" in result.output


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{named(page)} links to {target}"


def test_every_file_that_the_architecture_names_exists():
    for name in ("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "README.md"):
        for file in NAMED_FILE.findall((ROOT / name).read_text(encoding="utf-8")):
            places = [ROOT / file, ROOT / "src" / "headrace" / file]
            assert any(place.exists() for place in places), f"{name} names {file}"


def test_every_make_target_that_a_page_names_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for target in re.findall(
            r"(?:`|^)make ([a-z-]+)(?:`|\s+#)", page.read_text(encoding="utf-8"), re.MULTILINE
        ):
            assert target in targets, f"{named(page)}: make {target}"


def test_the_list_of_decisions_is_up_to_date():
    spec = importlib.util.spec_from_file_location("adr_index", ROOT / "scripts" / "adr_index.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "docs" / "adr" / "README.md").read_text(encoding="utf-8")
    assert page == module.index(), "run: python scripts/adr_index.py"


LOCKED = r"[a-z0-9][a-z0-9.\-]*==[0-9][\w.+!]*( ; python_version < \"[\d.]+\")?"


def test_locks_name_no_host_and_no_path():
    for lock in ("requirements.lock", "requirements-test.lock"):
        for line in (ROOT / lock).read_text(encoding="utf-8").splitlines():
            assert re.fullmatch(LOCKED, line), (lock, line)


def test_ci_calls_make_test_and_nothing_else():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    calls = [line for line in lines if line and not line.startswith(("#", "set ", "cd "))]
    assert calls in (["make test"], ["exec make test"])


def test_the_makefile_lists_its_targets():
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "make demo" in said.stdout and "make test" in said.stdout
