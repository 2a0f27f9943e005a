"""``headrace alarm``: the alarm list, what people do with it, and the journal, without the console."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec
import polars as pl
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from headrace.alarms.metrics import AlarmMetrics, by_area, metrics
from headrace.alarms.sheet import SheetProblems
from headrace.alarms.store import AlarmStore, JournalFilter
from headrace.bus.broker import load_address
from headrace.bus.client import open_bus
from headrace.bus.desired import read_desired
from headrace.cli.run import DATA, site_subjects
from headrace.console.alarm_frames import alarm_frame, journal_frame
from headrace.console.alarm_lines import SORTS, VIEWS, AlarmFilter, chosen, ordered
from headrace.console.alarm_sheets import SheetFormat, export_sheet, plan_import
from headrace.console.alarms import Act, AlarmBoard, is_below
from headrace.console.sources import APPS_KEY
from headrace.console.texts import Texts
from headrace.console.widgets.spans import moment, span
from headrace.historian.times import parse_duration, parse_time
from headrace.model.alarm import AlarmState, CommandAnswer, Transition
from headrace.model.csv_text import defused
from headrace.model.errors import Misconfigured, Refused
from headrace.model.folder import DataFolder
from headrace.model.time import SystemClock
from headrace.security.identity import Identity
from headrace.security.policy import Actor

REFUSED: Final = 3
BROKER_WAIT_S: Final = 2.0
_COLOURS: Final = {"urgent": "bold red", "high": "red", "medium": "yellow", "low": "blue"}


class Format(StrEnum):
    """How rows are written; ``json`` is one object a row."""

    table = "table"
    json = "json"
    csv = "csv"


ALARMS = typer.Argument(help="Paths of alarms: <asset path>/<alarm>.")
FORMAT = typer.Option(Format.table, "--format", help="table, or json and csv for programs.")
LANGUAGE = typer.Option("", "--language", help="en or zh [as the terminal's].")
USER = typer.Option(
    "", "--as", envvar="HEADRACE_USER", help="User who does it; stands in the journal."
)
BELOW = typer.Option("", "--below", help="Only below this equipment path.")


def register(app: typer.Typer) -> None:
    """Add the group ``alarm``."""
    group = typer.Typer(help="Alarms: the list, what people do with it, the journal.")
    app.add_typer(group, name="alarm")
    group.command("list")(list_alarms)
    group.command("show")(show)
    group.command("journal")(journal)
    group.command("metrics")(figures)
    group.command("export")(export)
    group.command("import")(import_sheet)
    group.command("ack")(acknowledge)
    group.command("shelve")(shelve)
    group.command("assign")(assign)
    group.command("comment")(comment)
    _register_plain(group)


def list_alarms(
    view: str = typer.Option("active", "--view", help=f"{', '.join(VIEWS)}."),
    priority: str = typer.Option("", "--priority", help="urgent,high,medium,low."),
    state: str = typer.Option("", "--state", help="UNACK, ACKED...; waits: to be acknowledged."),
    below: str = BELOW,
    search: str = typer.Option("", "--search", help="Words that all occur."),
    sort: str = typer.Option("priority", "--sort", help=f"{', '.join(SORTS)}."),
    format: Format = FORMAT,
    language: str = LANGUAGE,
    data: Path = DATA,
) -> None:
    """The alarms that need a person, worst first; other views show what is hidden from the list."""
    _one_of("--view", view, VIEWS)
    _one_of("--sort", sort, SORTS)
    wanted = AlarmFilter(
        view=view,
        priorities=frozenset(priority.split(",")) - {""},
        state=state,
        below=below.strip("/"),
        search=search,
    )
    with _store(data) as store:
        found = ordered(chosen(store.states(), wanted), sort)
    if format is Format.table:
        _show_list(found, _texts(language))
    else:
        _write(alarm_frame(found), format)


def _one_of(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise Misconfigured(
            "CLI-1210", f"{option} {value!r} is none", f"One of: {', '.join(choices)}."
        )


def _show_list(found: list[AlarmState], texts: Texts) -> None:
    now_us = SystemClock().now_us()
    keys = ("priority", "state", "alarm", "message", "since", "assigned")
    table = Table(*(texts(f"alarm.{key}") for key in keys), show_edge=False, pad_edge=False)
    for one in found:
        state = texts(f"alarm.state_{one.state}")
        if one.shelved_until_us and one.state == "SHLVD":
            state += f" {texts('alarm.until', time=moment(one.shelved_until_us))}"
        priority = texts(f"alarm.priority_{one.priority}")
        table.add_row(
            f"[{_COLOURS[one.priority]}]{priority}[/]",
            state,
            escape(one.alarm),
            escape(one.message.say(texts.language)),
            span(texts, now_us - one.since_us) if one.since_us else "",
            escape(one.assignee),
        )
    Console().print(table)


def show(
    alarm: str = typer.Argument(help="Path of the alarm: <asset path>/<alarm>."),
    format: Format = FORMAT,
    language: str = LANGUAGE,
    data: Path = DATA,
) -> None:
    """One alarm: its state and what happened to it, the newest first."""
    texts, out = _texts(language), Console(highlight=False)
    with _store(data) as store:
        state = store.get(alarm)
        lines = store.journal(JournalFilter(alarm=alarm, shadow=None, limit=50))
    if state is None:
        raise Refused(
            "CLI-1211", f"there is no alarm {alarm!r}", "See: headrace alarm list --view all"
        )
    if format is not Format.table:
        _write(alarm_frame([state]), format)
        return
    out.print(
        f"[bold]{escape(state.message.say(texts.language) or state.name)}[/] · {escape(alarm)}"
    )
    facts = [
        ("priority", texts(f"alarm.priority_{state.priority}")),
        ("state", texts(f"alarm.state_{state.state}")),
        ("since", moment(state.since_us) if state.since_us else "–"),
        ("assigned", state.assignee or "–"),
    ]
    for key, value in facts:
        out.print(f"[dim]{texts(f'alarm.{key}')}[/] {escape(value)}")
    _show_journal([line.transition for line in lines], texts, alarm=False)


def journal(
    start: str = typer.Option("-1d", "--from", help="now, -1h, or ISO 8601 with a zone."),
    end: str = typer.Option("now", "--to", help="Same forms as --from."),
    alarm: str = typer.Option("", "--alarm", help="Of one alarm."),
    below: str = BELOW,
    actor: str = typer.Option("", "--actor", help="Of one user."),
    limit: int = typer.Option(200, "--limit", min=1, max=10_000, help="At most so many lines."),
    format: Format = FORMAT,
    language: str = LANGUAGE,
    data: Path = DATA,
) -> None:
    """What happened to alarms, and who did it; the newest first."""
    now_us = SystemClock().now_us()
    wanted = JournalFilter(
        alarm=alarm,
        area=below.strip("/"),
        actor=actor,
        start_us=parse_time(start, now_us),
        end_us=parse_time(end, now_us) + (1 if end == "now" else 0),
        limit=limit,
    )
    with _store(data) as store:
        lines = store.journal(wanted)
    if format is Format.table:
        _show_journal([line.transition for line in lines], _texts(language))
    else:
        _write(journal_frame(lines), format)


def _show_journal(lines: list[Transition], texts: Texts, *, alarm: bool = True) -> None:
    heads = [f"{texts('events.time')} (UTC)", texts("alarm.event")]
    heads += [texts("alarm.alarm")] if alarm else []
    heads += [texts("alarm.became"), texts("alarm.actor"), texts("alarm_do.comment")]
    table = Table(*heads, show_edge=False, pad_edge=False)
    for line in lines:
        became = texts(f"alarm.state_{line.after}") if line.after != line.before else ""
        row = [moment(line.at_us), texts(f"alarm_event.{line.event}")]
        row += [escape(line.alarm)] if alarm else []
        words = " → ".join(filter(None, (line.comment, line.assignee)))
        row += [became, escape(line.actor) or texts("alarm.plant"), escape(words)]
        table.add_row(*row)
    Console().print(table)


def figures(
    start: str = typer.Option("-1d", "--from", help="now, -1h, or ISO 8601 with a zone."),
    end: str = typer.Option("now", "--to", help="Same forms as --from."),
    below: str = BELOW,
    depth: int = typer.Option(0, "--depth", min=0, max=10, help="1: each area, 2: work centers."),
    format: Format = FORMAT,
    language: str = LANGUAGE,
    data: Path = DATA,
) -> None:
    """How good the alarms are, by ISA-18.2 and EEMUA 191: rate, floods, bad actors, standing, stale."""
    now_us, place, texts = SystemClock().now_us(), below.strip("/"), _texts(language)
    span_us = parse_time(start, now_us), parse_time(end, now_us)
    if span_us[0] >= span_us[1]:
        raise Misconfigured(
            "CLI-1215", f"from {start} to {end} is no time", "Let --from be earlier."
        )
    with _store(data) as store:
        journal = store.journal_frame(*span_us, area=place)
        states = [one for one in store.states() if is_below(one, place)]
    found = (
        by_area(journal, states, *span_us, depth=depth)
        if depth
        else {place: metrics(journal, states, *span_us)}
    )
    if format is Format.json:
        lines = [
            msgspec.json.encode({"area": area, **msgspec.to_builtins(one)})
            for area, one in found.items()
        ]
        sys.stdout.write("".join(line.decode() + "\n" for line in lines))
        return
    frame = pl.DataFrame([_figures(area, one) for area, one in found.items()])
    if format is Format.csv:
        sys.stdout.write(frame.write_csv())
        return
    table = Table(
        *(texts(f"alarm_metric.{name}") for name in frame.columns), show_edge=False, pad_edge=False
    )
    for row in frame.iter_rows():
        table.add_row(
            *(f"{value:.2f}" if isinstance(value, float) else escape(str(value)) for value in row)
        )
    Console().print(table)


def _figures(area: str, found: AlarmMetrics) -> dict[str, str | int | float]:
    return {
        "area": area or "/",
        "alarms": found.told,
        "average": found.average,
        "peak": found.peak,
        "floods": len(found.floods),
        "standing_now": len(found.standing),
        "stale": len(found.stale),
        "chattering_now": len(found.chattering),
        "bad_actor": found.bad_actors[0].alarm if found.bad_actors else "",
    }


def export(
    file: Path = typer.Argument(help="To write: alarms.csv or alarms.xlsx."), data: Path = DATA
) -> None:
    """Write the rationalisation sheet of all alarms; ``import`` reads it back."""
    kind: SheetFormat = "xlsx" if file.suffix.lower() == ".xlsx" else "csv"
    body = export_sheet(DataFolder(data.resolve()), kind)
    try:
        file.write_bytes(body)
    except OSError as error:
        raise Misconfigured(
            "CLI-1216", f"{file} cannot be written: {error.strerror}", "Choose another place."
        ) from error
    Console().print(f"{file} written")


def import_sheet(
    file: Path = typer.Argument(help="A sheet as export writes it, .csv or .xlsx."),
    dry: bool = typer.Option(False, "--dry-run", help="Only show what would change."),
    data: Path = DATA,
) -> None:
    """Take a rationalisation sheet back into the alarms' texts in the site file, whole or not at all."""
    out = Console(highlight=False)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise Misconfigured(
            "CLI-1217", f"{file} cannot be read: {error.strerror}", "Give a file that export wrote."
        ) from error
    try:
        edit, changed = plan_import(DataFolder(data.resolve()), file.name, content)
    except SheetProblems as error:
        for each in error.problems:
            place = f"row {each.row}{f', {each.column}' if each.column else ''}"
            out.print(f"[red]{each.code}[/] {place}: {escape(each.what)}. {escape(each.remedy)}")
        raise typer.Exit(2) from None
    diff = edit.diff() if dry else edit.save()
    out.print(escape(diff), end="")
    out.print(f"{len(changed)} alarms {'would change' if dry else 'changed'}")


def acknowledge(
    alarms: list[str] = typer.Argument(None, help="Paths of alarms."),
    everything: bool = typer.Option(False, "--all", help="All that wait to be acknowledged."),
    below: str = BELOW,
    comment: str = typer.Option("", "--comment", help="Kept in the journal."),
    user: str = USER,
    language: str = LANGUAGE,
    data: Path = DATA,
) -> None:
    """Acknowledge alarms: somebody has seen them."""
    named = tuple(alarms or ())
    if everything == bool(named):
        raise Misconfigured(
            "CLI-1212", "it is not said which alarms", "Name alarms, or give --all."
        )
    if everything:
        with _store(data) as store:
            wanted = AlarmFilter(state="waits", below=below.strip("/"))
            named = tuple(one.alarm for one in chosen(store.states(), wanted))
    if not named:
        Console().print("0 alarms wait to be acknowledged")
        return
    _act(data, user, Act(verb="acknowledge", alarms=named, comment=comment), language)


def shelve(
    alarms: list[str] = ALARMS,
    duration: str = typer.Option("1h", "--for", help="30m, 8h, 3d; it ends by itself."),
    reason: str = typer.Option(..., "--reason", help="Why; kept in the journal."),
    user: str = USER,
    language: str = LANGUAGE,
    data: Path = DATA,
) -> None:
    """Take alarms out of the list for a while, with a reason."""
    until_us = SystemClock().now_us() + parse_duration(duration)
    act = Act(verb="shelve", alarms=tuple(alarms), comment=reason, until_us=until_us)
    _act(data, user, act, language)


def assign(
    alarms: list[str] = ALARMS,
    to: str = typer.Option(..., "--to", help='User; "" takes it away.'),
    user: str = USER,
    language: str = LANGUAGE,
    data: Path = DATA,
) -> None:
    """Give alarms to somebody who looks after them."""
    _act(data, user, Act(verb="assign", alarms=tuple(alarms), assignee=to), language)


def comment(
    alarms: list[str] = ALARMS,
    text: str = typer.Option(..., "--text", help="What is to be known."),
    user: str = USER,
    language: str = LANGUAGE,
    data: Path = DATA,
) -> None:
    """Write a comment into the journal of alarms."""
    _act(data, user, Act(verb="comment", alarms=tuple(alarms), comment=text), language)


def _register_plain(group: typer.Typer) -> None:
    @group.command("unshelve")
    def unshelve(
        alarms: list[str] = ALARMS, user: str = USER, language: str = LANGUAGE, data: Path = DATA
    ) -> None:
        """Bring shelved alarms back before their time."""
        _act(data, user, Act(verb="unshelve", alarms=tuple(alarms)), language)

    @group.command("reset")
    def reset(
        alarms: list[str] = ALARMS, user: str = USER, language: str = LANGUAGE, data: Path = DATA
    ) -> None:
        """Reset latched alarms that returned to normal."""
        _act(data, user, Act(verb="reset", alarms=tuple(alarms)), language)

    @group.command("out-of-service")
    def out_of_service(
        alarms: list[str] = ALARMS,
        reason: str = typer.Option(..., "--reason", help="Why; kept in the journal."),
        user: str = USER,
        language: str = LANGUAGE,
        data: Path = DATA,
    ) -> None:
        """Take alarms out of service until an engineer returns them."""
        act = Act(verb="remove_from_service", alarms=tuple(alarms), comment=reason)
        _act(data, user, act, language)

    @group.command("return")
    def return_to_service(
        alarms: list[str] = ALARMS, user: str = USER, language: str = LANGUAGE, data: Path = DATA
    ) -> None:
        """Return alarms to service."""
        _act(data, user, Act(verb="return_to_service", alarms=tuple(alarms)), language)


def _act(data: Path, user: str, act: Act, language: str) -> None:
    folder, texts, out = DataFolder(data.resolve()), _texts(language), Console(highlight=False)
    identity = Identity(folder)
    try:
        answer = asyncio.run(_send(folder, identity, _actor(identity, user), act))
    finally:
        identity.close()
    for outcome in answer.outcomes:
        if outcome.code:
            words = f"{outcome.code} {outcome.what}. {outcome.remedy}"
            out.print(f"[red]✖[/] {escape(outcome.alarm)}: {escape(words)}")
        else:
            state = texts(f"alarm.state_{outcome.state}")
            out.print(f"[green]✔[/] {escape(outcome.alarm)}: {state}")
    if answer.refused:
        raise typer.Exit(REFUSED)


def _actor(identity: Identity, name: str) -> Actor:
    """The user who acts; the policy asks for the role that the account has now.

    Raises:
        Refused: CLI-1213 when nobody is named, CLI-1214 when there is no such open account.
    """
    if not name:
        raise Refused(
            "CLI-1213", "it is not said who does this", "Give --as USER, or set HEADRACE_USER."
        )
    user = next((u for u in identity.users() if u.name == name and not u.disabled), None)
    if user is None:
        raise Refused("CLI-1214", f"there is no open account {name!r}", "See: headrace user list")
    return Actor(user.name, user.role, user.must_change, grants=identity.grants.of(name))


async def _send(folder: DataFolder, identity: Identity, actor: Actor, act: Act) -> CommandAnswer:
    subjects, clock = site_subjects(folder), SystemClock()
    async with AsyncExitStack() as stack:
        address = load_address(folder)
        bus = await stack.enter_async_context(
            open_bus(address.as_role("cli"), "alarm", wait_s=BROKER_WAIT_S)
        )
        store = await asyncio.to_thread(AlarmStore, folder)
        stack.callback(store.close)

        async def ask(verb: str, message: Any) -> Any:
            body = msgspec.json.encode(message)
            return msgspec.json.decode(await bus.request(subjects.apps_call(verb), body))

        async def config() -> bytes | None:
            return await read_desired(bus, APPS_KEY)

        return await AlarmBoard(store, ask, config, clock).act(actor, act, identity.audit)


@contextmanager
def _store(data: Path) -> Iterator[AlarmStore]:
    store = AlarmStore(DataFolder(data.resolve()))
    try:
        yield store
    finally:
        store.close()


def _texts(language: str) -> Texts:
    chosen_one = language or os.environ.get("LC_ALL") or os.environ.get("LANG") or ""
    return Texts("zh" if chosen_one.lower().startswith("zh") else "en")


def _write(frame: pl.DataFrame, format: Format) -> None:
    if format is Format.csv:
        sys.stdout.write(defused(frame).write_csv(datetime_format="%Y-%m-%dT%H:%M:%S%.6fZ"))
    else:
        times = pl.col(pl.Datetime).dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
        sys.stdout.write(frame.with_columns(times).write_ndjson())
