"""Connections: one card for each device, with its state, counts, last error and what to do now."""

from __future__ import annotations

from nicegui import ui

from headrace.console.pages.connection_actions import WAITING, Certificates, draw_actions, draw_undo
from headrace.console.pages.shell import Visit, empty_state, frame, html, pill
from headrace.console.sources import ConnectionLine
from headrace.console.texts import Texts
from headrace.console.widgets.icons import icon
from headrace.console.widgets.markup import Markup, join, tag
from headrace.console.widgets.spans import moment, span
from headrace.model.health import ConnectionState, EdgeState
from headrace.model.time import US_PER_S
from headrace.site.model import Problem

REFRESH_S = 0.5


def show(visit: Visit) -> None:
    """Draw the page and keep it live; a card is sent again only when it changed."""
    texts = visit.texts
    help_text = texts("connections.help")
    with frame(visit, texts("connections.title"), nav="connections", help_text=help_text):
        with ui.element("div").classes("hr-bar"):
            edges = html("").classes("hr-row hr-wrap")
            html("").classes("hr-grow")
            if visit.may("edit"):
                draw_undo(visit)
                add = join(icon("plus", 16), texts("connections.add"))
                html(tag("a.hr-btn", texts("zones.title"), href="/zones"))
                html(tag("a.hr-btn.primary", add, href="/connections/add"))
        problems = html("")
        refused = Certificates(visit)
        cards = _Cards(visit)

        def refresh() -> None:
            edges.set_content(_edges(visit))
            problems.set_content(_problems(visit))
            refused.refresh()
            cards.refresh()

        refresh()
        ui.timer(REFRESH_S, refresh)


def _edges(visit: Visit) -> Markup:
    texts = visit.texts
    health = visit.services.sources.health
    states, joined = health.edges(), dict(health.joined)
    if not states and not joined:
        return tag("span.hr-dim", texts("connections.no_edge"))
    found = []
    for state, silent in states:
        name = f"{texts('connections.edge')} {state.edge}"
        link = joined.pop(state.edge, None)
        title = f"{texts('connections.edge_runs')} {state.config_hash[:12]}"
        if silent or (link is not None and not link.connected_us):
            found.append(pill("silent", f"{name}: {texts('connections.edge_silent')}", title=title))
        elif link is not None and link.desired_hash not in ("", state.config_hash):
            title = f"{title}, {texts('connections.edge_should_run')} {link.desired_hash[:12]}"
            found.append(
                pill("uncertain", f"{name}: {texts('connections.edge_differs')}", title=title)
            )
        else:
            found.append(pill("good", f"{name}{_waiting(texts, state)}", title=title))
    for name in sorted(joined):
        title = texts("connections.edge_silent")
        found.append(pill("silent", f"{texts('connections.edge')} {name}: {title}"))
    return join(found)


def _waiting(texts: Texts, state: EdgeState) -> str:
    """What an edge on its own machine has and the hub has not."""
    if state.log is None or not state.log.unsent_frames:
        return ""
    return f": {texts('connections.edge_waiting', frames=state.log.unsent_frames)}"


def _problems(visit: Visit) -> Markup:
    found = visit.services.sources.site_problems
    if not found:
        return join()
    lines = [_problem(problem, visit.texts.language) for problem in found[:20]]
    title = tag("b", f"{visit.texts('connections.site_errors')} ({len(found)})")
    return tag(".hr-error", title, lines, style="margin:0 0 14px", role="alert")


def _problem(problem: Problem, language: str) -> Markup:
    """Its place, what is wrong and what to do; of a formula also the line with a caret."""
    problem = problem.in_chinese() if language == "zh" else problem
    return tag(
        "div",
        tag("code", f"{problem.file}:{problem.line} {problem.code}"),
        f" {problem.field}: {problem.what}. {problem.remedy}",
        tag("pre.hr-mono", problem.caret, style="margin:2px 0 8px") if problem.caret else None,
    )


class _Cards:
    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._body = ui.element("div")
        self._names: list[tuple[str, str]] | None = None
        self._cards: dict[str, ui.html] = {}

    def refresh(self) -> None:
        lines = self._visit.services.sources.health.connections()
        names = [(line.state.connection, _actions_of(line)) for line in lines]
        if names != self._names:
            self._names = names
            self._draw(lines)
        for line in lines:
            card = card_markup(self._visit.texts, line, self._visit.services.sources.clock.now_us())
            self._cards[line.state.connection].set_content(card)

    def _draw(self, lines: list[ConnectionLine]) -> None:
        self._body.clear()
        self._cards.clear()
        texts = self._visit.texts
        with self._body:
            if not lines:
                action = (texts("connections.add"), "/connections/add")
                empty_state(
                    "plug",
                    texts("connections.empty"),
                    texts("connections.empty_what"),
                    action if self._visit.may("edit") else None,
                )
                return
            with ui.element("div").classes("hr-conns"):
                for line in lines:
                    name = line.state.connection
                    with (
                        ui.element("section")
                        .classes("hr-card hr-conn")
                        .props(f'data-connection="{name}"')
                    ):
                        self._cards[name] = html("")
                        if self._visit.may("operate"):
                            draw_actions(self._visit, line.state)


def _actions_of(line: ConnectionLine) -> str:
    """What decides which buttons a card has."""
    return line.state.state if line.state.state in ("disabled", *WAITING) else ""


def card_markup(texts: Texts, line: ConnectionLine, now_us: int) -> Markup:
    """One connection as a card."""
    state = line.state
    shown = "silent" if line.silent else state.state
    since = texts("time.ago", age=span(texts, now_us - state.since_us))
    place = f"{state.protocol} · {state.endpoint}"
    head = tag(
        ".hr-row.hr-between.hr-pad",
        tag(
            "div.hr-grow",
            tag("h3.hr-trunc", state.connection),
            tag(".hr-sub.hr-trunc", place, title=place),
        ),
        tag(
            "div",
            pill(shown, texts(f"connection_state.{shown}")),
            tag(".hr-sub", since, style="text-align:right"),
        ),
    )
    return join(
        head, _error(texts, state, now_us), _counts(texts, state, now_us), _tag_errors(texts, state)
    )


def _counts(texts: Texts, state: ConnectionState, now_us: int) -> Markup:
    def count(key: str, value: object) -> Markup:
        return tag("div", tag("label", texts(f"connections.{key}")), tag("b", value))

    last = (
        span(texts, now_us - state.last_success_us)
        if state.last_success_us
        else texts("time.never")
    )
    cells = [
        count("tags", f"{state.tags - state.tags_bad} / {state.tags}"),
        count("read", f"{state.read:,}"),
        count("published", f"{state.published:,}"),
        count("filtered", f"{state.filtered:,}"),
        count("bad", f"{state.bad:,}"),
        count("buffered", f"{state.buffered:,}"),
        count("reconnects", f"{state.reconnects:,}"),
        count("last_success", last),
    ]
    if state.dropped:
        cells.append(count("dropped", f"{state.dropped:,}"))
    offset_us = state.device_clock_offset_us
    if offset_us is not None and abs(offset_us) > US_PER_S:
        key = "connections.ahead" if offset_us > 0 else "connections.behind"
        cells.append(count("clock_offset", texts(key, n=span(texts, abs(offset_us)))))
    return tag(".hr-counts", cells)


def _error(texts: Texts, state: ConnectionState, now_us: int) -> Markup | None:
    if not state.last_error_code:
        return None
    old = state.state == "connected"
    ago = texts("time.ago", age=span(texts, now_us - state.last_error_us))
    note = f"{ago} · {texts('connections.old_error')}" if old else ago
    next_try = None
    if not old and state.next_try_us > now_us:
        wait = span(texts, state.next_try_us - now_us)
        next_try = tag("div.hr-sub", f"{texts('connections.next_try')}: {wait}")
    what_now = None
    if state.last_error_remedy and not old:
        text = f"{texts('connections.what_now')}: {state.last_error_remedy}"
        what_now = tag("div.hr-what-now", text)
    return tag(
        ".hr-error",
        tag("div", tag("code", state.last_error_code), " ", state.last_error),
        what_now,
        tag("div.hr-sub", note, title=moment(state.last_error_us) + " UTC"),
        next_try,
        cls="old" if old else "",
    )


def _tag_errors(texts: Texts, state: ConnectionState) -> Markup | None:
    if not state.tag_errors:
        return None
    rows = [
        tag("div", tag("b", path), f": {error}") for path, error in sorted(state.tag_errors.items())
    ]
    title = f"{texts('connections.tag_errors')} ({state.tags_bad or len(rows)})"
    return tag("details.hr-error", tag("summary", title, style="cursor:pointer"), rows)
