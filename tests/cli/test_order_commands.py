"""``headrace order``: a request is sent to a real broker, shown, and refused where it is wrong."""

from __future__ import annotations

import asyncio
import json

import pytest

from headrace.cli.app import build
from headrace.cli.run import keep_site
from headrace.model.errors import HeadraceError


@pytest.fixture
def told(folder, bus, capsys):
    """Run a command; gives what it prints."""
    keep_site(folder, "acme", "mill")
    assert bus.client.is_connected

    def run(*words: str) -> str:
        command = [*words, "--data", str(folder.root)]
        build(("order",))(["order", *command], standalone_mode=False)
        return capsys.readouterr().out

    return run


async def test_an_order_is_sent_shown_and_refused(told):
    """In a thread of its own, since the command has a loop of its own."""

    async def run(*words: str) -> str:
        return await asyncio.to_thread(told, *words)

    sent = await run(
        "send", "Clean it", "--equipment", "utilities/pumping/pump_1", "--priority", "2",
        "--parameter", "speed=1450", "--parameter", "tool=brush", "--id", "r-1",
        "--start", "2026-11-23T14:00:00Z",
    )  # fmt: skip
    assert sent == "r-1\n"
    made = (await run("send", "Look", "--type", "quality")).strip()
    assert made.startswith("or-")
    found = json.loads(await run("list", "--format", "json"))
    assert [each["id"] for each in found] == [made, "r-1"]
    assert found[1]["parameters"] == {"speed": 1450.0, "tool": "brush"}
    assert found[1]["asked_by"].startswith("os:") and found[1]["priority"] == 2
    table = await run("list")
    assert "Clean it" in table and "quality" in table
    for words, code in (
        (("send", "again", "--id", "r-1"), "APPS-2286"),
        (("send", "x", "--type", "fun"), "APPS-2285"),
        (("send", "x", "--priority", "12"), "APPS-2285"),
        (("send", "x", "--parameter", "speed"), "APPS-2285"),
        (("send", "x", "--equipment", "a//b"), "APPS-2285"),
        (("list", "--format", "xml"), "APPS-2285"),
    ):
        with pytest.raises(HeadraceError) as refused:
            await run(*words)
        assert refused.value.code == code
