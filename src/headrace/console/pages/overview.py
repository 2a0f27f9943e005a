"""Site overview: the facts of the site, and one tile for each unit of equipment."""

from __future__ import annotations

from urllib.parse import quote

from nicegui import ui

from headrace.console.pages.shell import Visit, empty_state, frame, html, pill
from headrace.console.site_view import TagView, UnitLive, UnitView, readable, roll_up
from headrace.console.texts import Texts
from headrace.console.widgets.markup import Markup, join, tag
from headrace.console.widgets.spans import span
from headrace.console.widgets.units import shown_unit
from headrace.console.widgets.why_dot import why_dot
from headrace.model.health import HistorianState

REFRESH_S = 0.5
SHOWN_VALUES = 3


def show(visit: Visit) -> None:
    """Draw the page and keep it live; only what changed is sent."""
    texts = visit.texts
    with frame(visit, texts("overview.title"), nav="overview", help_text=texts("overview.help")):
        facts = html(_facts(visit), tag_name="section").classes("hr-facts")
        tiles = _Tiles(visit)

        def refresh() -> None:
            facts.set_content(_facts(visit))
            tiles.refresh()

        tiles.refresh()
        ui.timer(REFRESH_S, refresh)


class _Tiles:
    """All tiles; a change of the site draws them anew, a change of state only its own tile."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._fingerprint: str | None = None
        self._body = ui.element("div")
        self._drawn: dict[str, tuple[ui.element, ui.html, str]] = {}

    def refresh(self) -> None:
        site = self._visit.site
        if site.fingerprint != self._fingerprint or self._fingerprint is None:
            self._fingerprint = site.fingerprint
            self._draw(site.units)
        sources = self._visit.services.sources
        now_us = sources.clock.now_us()
        for unit in site.units:
            self._update(unit, roll_up(unit, sources.live, now_us))

    def _draw(self, units: tuple[UnitView, ...]) -> None:
        self._body.clear()
        self._drawn.clear()
        texts = self._visit.texts
        with self._body:
            if not units:
                action = (texts("overview.empty_do"), "/connections/add")
                empty_state(
                    "plug",
                    texts("overview.empty"),
                    texts("overview.empty_what"),
                    action if self._visit.may("edit") else None,
                )
            for area in dict.fromkeys(unit.area for unit in units):
                members = [unit for unit in units if unit.area == area]
                title = self._visit.site.title_of(area, texts.language)
                html(join(title, tag("span", len(members))), tag_name="h2").classes("hr-h2")
                with ui.element("div").classes("hr-tiles"):
                    for unit in members:
                        self._draw_tile(unit)

    def _draw_tile(self, unit: UnitView) -> None:
        tile = ui.element("a").classes("hr-card hr-tile idle")
        tile.props(f'href="/equipment/{quote(unit.path)}" data-unit="{unit.path}"')
        with tile:
            head = html("").classes("hr-tile-head")
            quantities = self._visit.site.quantities.get(unit.asset_type, [])
            html(join(*(_value_line(t, self._visit.texts) for t in headline(unit, quantities))))
        self._drawn[unit.path] = (tile, head, "idle")

    def _update(self, unit: UnitView, live: UnitLive) -> None:
        tile, head, before = self._drawn[unit.path]
        head.set_content(_tile_head(unit, live, self._visit.texts))
        if live.state != before:
            tile.classes(remove=before, add=live.state)
            self._drawn[unit.path] = (tile, head, live.state)


def headline(unit: UnitView, quantities: list[str]) -> list[TagView]:
    """The few tags that a tile shows: the first quantities of the asset's type; without a type, those
    with a unit."""
    order = {name: place for place, name in enumerate(quantities)}
    known = sorted((tag for tag in unit.tags if tag.name in order), key=lambda t: order[t.name])
    others = [tag for tag in unit.tags if tag.name not in order]
    measured = [tag for tag in others if tag.unit and not tag.sample_interval_us]
    rest = [tag for tag in others if tag not in measured]
    return [*known, *measured, *rest][:SHOWN_VALUES]


def tag_title(view: TagView, texts: Texts) -> str:
    """A tag's title in the user's language, or its name made readable."""
    chosen = view.title_zh if texts.language == "zh" and view.title_zh else view.title
    return chosen or readable(view.name)


def _value_line(view: TagView, texts: Texts) -> Markup:
    value = join(
        tag("span.hr-num", "–", data_f="value"),
        tag("span.hr-unit", shown_unit(view.unit)),
        why_dot(texts, view.tag_id),
    )
    return tag(
        ".hr-kv", tag("span", tag_title(view, texts)), tag("span", value), data_tag=view.tag_id
    )


def _tile_head(unit: UnitView, live: UnitLive, texts: Texts) -> Markup:
    title = unit.title_zh if texts.language == "zh" else unit.title
    problems = [
        texts(f"overview.{name}_count", n=count)
        for name, count in (
            ("bad", live.bad),
            ("uncertain", live.uncertain),
            ("stale", live.stale),
            ("never", live.never),
        )
        if count
    ]
    small = " · ".join([texts("overview.tags_count", n=live.tags), *problems[:2]])
    return join(
        tag("div.hr-grow", tag("b.hr-trunc", title), tag("small.hr-trunc", small)),
        pill(live.state, texts(f"state.{live.state}")),
    )


def _facts(visit: Visit) -> Markup:
    texts, sources = visit.texts, visit.services.sources
    now_us = sources.clock.now_us()
    if not visit.opens("/connections", "read"):
        return _own_facts(visit, now_us)
    rates = sources.live.rate(now_us)
    recent = sum(rates[-5:]) / 5
    lines = sources.health.connections()
    up = sum(line.state.state == "connected" and not line.silent for line in lines)
    wanted = sum(line.state.state != "disabled" for line in lines)
    lives = [roll_up(unit, sources.live, now_us) for unit in visit.site.units]
    good, total = sum(x.good for x in lives), sum(x.tags for x in lives)
    newest_us = max((x.newest_us for x in lives), default=0)
    edges = sources.health.edges()
    return join(
        _fact(texts("overview.tags"), f"{total:,}", texts("overview.good_of", n=f"{good:,}")),
        _fact(
            texts("overview.rate"),
            f"{recent:,.0f}",
            texts("overview.last_minute"),
            _rate_line(rates),
        ),
        _fact(
            texts("overview.connections"),
            texts("overview.of", n=up, total=wanted),
            f"{texts('overview.edges')}: {len(edges) - sum(s for _, s in edges)} / {len(edges)}",
        ),
        _fact(
            texts("overview.freshness"),
            span(texts, now_us - newest_us) if newest_us else "–",
            texts("shell.live"),
        ),
        _historian(sources.health.historian, texts),
    )


def _own_facts(visit: Visit, now_us: int) -> Markup:
    """Of an actor who sees a part of the site only: nothing that counts all of it."""
    texts, live = visit.texts, visit.services.sources.live
    lives = [roll_up(unit, live, now_us) for unit in visit.site.units]
    good, total = sum(x.good for x in lives), sum(x.tags for x in lives)
    newest_us = max((x.newest_us for x in lives), default=0)
    age = span(texts, now_us - newest_us) if newest_us else "–"
    return join(
        _fact(texts("overview.tags"), f"{total:,}", texts("overview.good_of", n=f"{good:,}")),
        _fact(texts("overview.freshness"), age, texts("shell.live")),
    )


def _fact(label: str, value: object, small: str, extra: Markup | None = None) -> Markup:
    return tag(
        ".hr-card.hr-fact", tag("label", label), tag("b.hr-num", value), tag("small", small), extra
    )


def _historian(state: HistorianState | None, texts: Texts) -> Markup:
    label = texts("overview.historian")
    if state is None:
        return _fact(label, pill("bad", texts("overview.historian_off")), "headrace status")
    behind = max(0, state.last_sequence - state.committed_sequence)
    small = texts("overview.stored", n=f"{state.samples_total:,}")
    if behind:
        small += " · " + texts("overview.behind", n=f"{behind:,}")
    return _fact(label, pill(state.state, texts(f"overview.{state.state}")), small)


def _rate_line(rates: list[int]) -> Markup:
    top = max(*rates, 1)
    step = 100 / max(len(rates) - 1, 1)
    points = " ".join(f"{i * step:.1f},{38 - 34 * r / top:.1f}" for i, r in enumerate(rates))
    return Markup(
        '<svg class="hr-rate" viewBox="0 0 100 40" preserveAspectRatio="none" aria-hidden="true">'
        f'<polygon points="0,40 {points} 100,40" fill="var(--hr-accent)" opacity=".10"></polygon>'
        f'<polyline points="{points}" fill="none" stroke="var(--hr-accent)" stroke-width="1.3" '
        'vector-effect="non-scaling-stroke"></polyline></svg>'
    )
