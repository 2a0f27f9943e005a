"""What the section ``[notify]`` becomes; what is wrong in it is in cases/notify_*."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from headrace.model.folder import DataFolder
from headrace.model.notify import EscalationStep, NotifyConfig, QuietHours
from headrace.model.time import ManualClock
from headrace.site.file import load_site
from headrace.site.keeper import Keeper
from headrace.site.model import SiteProblems
from headrace.site.registry import Registry

HEAD = """
[site]
enterprise = "acme"
name = "mill"
title = { en = "Mill", zh = "工厂" }

[asset_type.pump]
quantities = { flow = "m3/h" }
"""
PAGE = Path(__file__).resolve().parents[2] / "docs" / "notifications.md"
EXAMPLE = re.search(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]  # type: ignore[index]


def read(tmp_path: Path, text: str) -> NotifyConfig:
    (tmp_path / "site.toml").write_text(HEAD + text, encoding="utf-8")
    return load_site(tmp_path / "site.toml").notify


def test_the_example_of_the_page_is_read_in_full(tmp_path: Path):
    made = read(tmp_path, EXAMPLE)
    assert (made.site, made.site_zh) == ("Mill", "工厂")
    assert made.console_url == "https://headrace.mill.example"
    phone, mail = made.channels
    assert (phone.kind, phone.url, phone.language) == (
        "wecom",
        "file:secrets/shift_phone.url",
        "zh",
    )
    assert phone.fallback == mail.name == "office_mail"
    assert (mail.sender, mail.to) == ("headrace@mill.example", ("maintenance@mill.example",))
    (route,) = made.routes
    assert route.steps == (
        EscalationStep(channels=("shift_phone",)),
        EscalationStep(channels=("office_mail",), after_min=10),
    )
    assert route.quiet == QuietHours(start="22:00", end="06:00", passing=("urgent",))
    assert (route.name, route.asset_types, route.tell_return) == ("pumps", ("pump",), True)


def test_without_the_section_nobody_is_told(tmp_path: Path):
    assert read(tmp_path, "") == NotifyConfig()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[notify]\nconsole_url = "mill"', "console_url is 'mill'"),
        ("[notify]\nchannel = 7", "channel is 7"),
        ("[notify]\nroute = {}", "route is"),
        ("[[notify]]", "not a table"),
        ("[[notify.route]]\nchannels = [1]", r"channels is \[1\]"),
        ("[[notify.route]]\nchannels = ['a']\nescalate = [3]", "3, not a table"),
        ("[[notify.route]]\nchannels = ['a']", "names the channel 'a'"),
    ],
)
def test_what_is_wrong_is_a_problem_of_the_file(tmp_path: Path, text: str, words: str):
    with pytest.raises(SiteProblems, match=words):
        read(tmp_path, text)


def test_the_keeper_desires_it(tmp_path: Path):
    made = read(tmp_path, EXAMPLE)
    folder, clock = DataFolder(tmp_path), ManualClock()
    registry = Registry.of(folder)
    keeper = Keeper(folder, registry, clock)
    keeper.look()
    assert msgspec.json.decode(keeper.pending["notify"], type=NotifyConfig) == made
    registry.close()
