"""``headrace order send|list``: operations requests (IEC 62264-2), of which apps are told."""

from __future__ import annotations

import getpass
import hashlib
import sys
from pathlib import Path
from typing import Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from headrace.bus.orders import recent_orders, send_order
from headrace.cli.app_running import with_bus
from headrace.cli.run import DATA
from headrace.historian.times import parse_time
from headrace.model.errors import Misconfigured
from headrace.model.operations_request import OPERATIONS_TYPES, OperationsRequest
from headrace.model.time import SystemClock, to_datetime


def register(app: typer.Typer) -> None:
    """Add the group ``order``."""
    group = typer.Typer(
        help="Operations requests: what operations are asked to do.", no_args_is_help=True
    )

    @group.command("send")
    def send(
        description: str = typer.Argument(help="What is to be done."),
        kind: str = typer.Option("maintenance", "--type", help=", ".join(OPERATIONS_TYPES)),
        equipment: str = typer.Option("", help="Path; empty: the whole site."),
        priority: int = typer.Option(5, help="0 the highest, 9 the lowest."),
        definition: str = typer.Option("", help="Id of the operations definition."),
        start: str = typer.Option("", help="Not before: 2026-11-23T14:00Z."),
        end: str = typer.Option("", help="Not after."),
        parameter: list[str] = typer.Option([], help="name=value; as often as needed."),
        order_id: str = typer.Option("", "--id", help="Its id; a second one with it is refused."),
        data: Path = DATA,
    ) -> None:
        """Send an operations request to the apps that hear them; prints its id."""
        now_us = SystemClock().now_us()
        told: dict[str, Any] = {
            "operations_type": kind,
            "description": description,
            "equipment": equipment,
            "priority": priority,
            "operations_definition_id": definition,
            "start_us": parse_time(start, now_us) if start else 0,
            "end_us": parse_time(end, now_us) if end else 0,
            "parameters": dict(_parameter(each) for each in parameter),
            "asked_by": f"os:{getpass.getuser()}",
            "at_us": now_us,
        }
        order = _made(order_id, told)
        with_bus(data, lambda bus, subjects: send_order(bus, subjects, order))
        sys.stdout.write(f"{order.id}\n")

    @group.command("list")
    def list_orders(
        limit: int = typer.Option(50, min=1, max=1_000, help="The newest so many."),
        form: str = typer.Option("table", "--format", help="table or json."),
        data: Path = DATA,
    ) -> None:
        """Show operations requests, newest first."""
        if form not in ("table", "json"):
            raise Misconfigured("APPS-2285", f"there is no form {form!r}", "Give table or json.")
        found = with_bus(data, lambda bus, _subjects: recent_orders(bus, limit))
        if form == "json":
            sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
        else:
            _show(found)

    app.add_typer(group, name="order")


def _made(order_id: str, told: dict[str, Any]) -> OperationsRequest:
    made = hashlib.sha256(msgspec.json.encode(told, order="sorted")).hexdigest()[:24]
    try:
        order = msgspec.convert({**told, "id": order_id or f"or-{made}"}, OperationsRequest)
    except msgspec.ValidationError as error:
        raise Misconfigured(
            "APPS-2285", f"the operations request is wrong: {error}", "Correct that option."
        ) from error
    order.check()
    return order


def _parameter(text: str) -> tuple[str, float | str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise Misconfigured(
            "APPS-2285", f"{text!r} is no parameter", "Write name=value: --parameter speed=1450"
        )
    try:
        return name, float(value)
    except ValueError:
        return name, value


def _show(found: list[OperationsRequest]) -> None:
    table = Table(box=None, header_style="dim")
    for name in ("sent (UTC)", "id", "type", "priority", "equipment", "what", "by"):
        table.add_column(name)
    for each in found:
        what = each.description or each.operations_definition_id
        sent = f"{to_datetime(each.at_us):%Y-%m-%d %H:%M:%S}"
        words = (sent, each.id, each.operations_type, str(each.priority))
        table.add_row(*words, *map(escape, (each.equipment or "site", what, each.asked_by)))
    out = Console()
    out.print(table if found else "There are no operations requests.")
