"""The door of the command line: each command is decided and, when it is more than reading, told in the chain.

Who may read and write the files of a data folder can do all that these commands do, so the operating
system is the guard here. The policy decides on top, for ``os:<user>``, an actor of the kind system: an admin
when the folder is this user's (or the user is root), else a viewer. An own policy may forbid more.
"""

from __future__ import annotations

import functools
import getpass
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import typer

from headrace.model.folder import DataFolder
from headrace.security.rights import Action, Actor, Role

DOORS: Final[dict[str, tuple[Action, str]]] = {
    "up": ("read", "process"),
    "status": ("read", "process"),
    "why": ("read", "site"),
    "ledger": ("read", "ledger"),
    "query": ("read", "site"),
    "replay": ("read", "recording"),
    "bench app": ("read", "recording"),
    "bench run": ("read", "recording"),
    "bench site": ("read", "recording"),
    "bench record": ("read", "recording"),
    "bench device": ("read", "recording"),
    "bench connector": ("read", "recording"),
    "bench scenarios": ("read", "recording"),
    "site check": ("read", "site"),
    "site show": ("read", "site"),
    "site export": ("read", "site"),
    "site import": ("edit", "site"),
    "site rename": ("edit", "site"),
    "site undo": ("edit", "site"),
    "formula check": ("read", "formulas"),
    "formula eval": ("read", "formulas"),
    "formula test": ("read", "formulas"),
    "formula functions": ("read", "formulas"),
    "formula list": ("read", "formulas"),
    "formula versions": ("read", "formulas"),
    "formula backfill": ("edit", "formulas"),
    "formula backtest": ("read", "formulas"),
    "formula changes": ("read", "formulas"),
    "model list": ("read", "models"),
    "model show": ("read", "models"),
    "model compare": ("read", "models"),
    "model train": ("edit", "models"),
    "model shadow": ("edit", "models"),
    "model drift": ("read", "models"),
    "model export": ("export", "models"),
    "model import": ("edit", "models"),
    "model promote": ("edit", "models"),
    "model rollback": ("edit", "models"),
    "model retire": ("edit", "models"),
    "alarm list": ("read", "alarms"),
    "alarm show": ("read", "alarms"),
    "alarm journal": ("read", "alarms"),
    "alarm metrics": ("read", "alarms"),
    "alarm export": ("read", "alarm_sheet"),
    "alarm import": ("edit", "site"),
    "alarm ack": ("operate", "alarms"),
    "alarm shelve": ("operate", "alarms"),
    "alarm assign": ("operate", "alarms"),
    "alarm comment": ("operate", "alarms"),
    "alarm unshelve": ("operate", "alarms"),
    "alarm reset": ("operate", "alarms"),
    "alarm out-of-service": ("edit", "alarms"),
    "alarm return": ("edit", "alarms"),
    "order send": ("operate", "operations_request"),
    "order list": ("read", "operations_request"),
    "notify list": ("read", "notifications"),
    "notify test": ("edit", "notifications"),
    "notify log": ("read", "notifications"),
    "sim status": ("read", "simulation"),
    "sim world": ("read", "simulation"),
    "sim fault list": ("read", "simulation"),
    "sim fault start": ("simulate", "simulation"),
    "sim fault stop": ("simulate", "simulation"),
    "edge invite": ("certify", "edge"),
    "edge list": ("read", "edge"),
    "edge remove": ("certify", "edge"),
    "edge join": ("read", "edge"),
    "edge set": ("edit", "edge"),
    "trust list": ("read", "certificate"),
    "trust show": ("read", "certificate"),
    "trust add": ("certify", "certificate"),
    "trust remove": ("certify", "certificate"),
    "user list": ("read", "user"),
    "user add": ("administer", "user"),
    "user reset": ("administer", "user"),
    "user role": ("administer", "user_role"),
    "user close": ("administer", "user"),
    "user reopen": ("administer", "user"),
    "user grant": ("administer", "user_role"),
    "user revoke-grant": ("administer", "user_role"),
    "user grants": ("read", "user"),
    "user sessions": ("read", "user"),
    "user end-sessions": ("administer", "user"),
    "user reset-factor": ("administer", "user"),
    "user token": ("administer", "user"),
    "user tokens": ("read", "user"),
    "user revoke": ("administer", "user"),
    "actor list": ("read", "actor"),
    "actor add": ("administer", "actor"),
    "actor renew": ("administer", "actor"),
    "actor disable": ("administer", "actor"),
    "actor enable": ("administer", "actor"),
    "cert list": ("read", "certificate"),
    "cert add": ("certify", "certificate"),
    "cert renew": ("certify", "certificate"),
    "cert revoke": ("certify", "certificate"),
    "cert renew-authority": ("certify", "certificate"),
    "cert retire-authority": ("certify", "certificate"),
    "protection list": ("read", "protection"),
    "protection new-key": ("certify", "protection"),
    "protection import-key": ("certify", "protection"),
    "protection export-key": ("certify", "protection"),
    "protection local": ("export", "protection"),
    "protection read": ("export", "protection"),
    "zone list": ("read", "zone"),
    "zone check": ("read", "zone"),
    "secret set": ("edit", "secret"),
    "secret list": ("read", "secret"),
    "secret show": ("administer", "secret"),
    "secret remove": ("edit", "secret"),
    "secret rotate": ("administer", "secret"),
    "secret adopt": ("edit", "secret"),
    "secret new-key": ("read", "secret"),
    "secret edges": ("read", "secret"),
    "secret edge-key": ("read", "secret"),
    "secret trust-edge": ("certify", "secret"),
    "audit who-read": ("read", "audit"),
    "run security": ("read", "process"),
    "audit list": ("read", "audit"),
    "audit verify": ("read", "audit"),
    "audit checkpoint": ("read", "audit"),
    "audit key": ("read", "audit"),
    "audit trust": ("audit", "audit"),
    "backup create": ("export", "backup"),
    "backup list": ("read", "backup"),
    "backup verify": ("read", "backup"),
    "backup prune": ("administer", "backup"),
    "backup restore": ("administer", "backup"),
    "app new": ("read", "app"),
    "app check": ("read", "app"),
    "app test": ("read", "app"),
    "app bench": ("read", "app"),
    "app key": ("read", "app"),
    "app pack": ("read", "app"),
    "app sign": ("read", "app"),
    "app list": ("read", "app"),
    "app show": ("read", "app"),
    "app publish": ("edit", "app"),
    "app install": ("edit", "app"),
    "app upgrade": ("edit", "app"),
    "app rollback": ("edit", "app"),
    "app remove": ("edit", "app"),
    "app bind": ("edit", "app"),
    "app status": ("read", "app"),
    "app logs": ("read", "app"),
    "app restart": ("operate", "app"),
    "app call": ("operate", "app"),
    "app services": ("read", "app"),
    "app trust add": ("certify", "publisher"),
    "app trust list": ("read", "publisher"),
    "app trust remove": ("certify", "publisher"),
    "bundle": ("export", "bundle"),
    "share offer": ("share", "share"),
    "share accept": ("share", "share"),
    "share sign": ("share", "share"),
    "share revoke": ("share", "share"),
    "share list": ("read", "share"),
    "share report": ("read", "share"),
    "release sign": ("read", "release"),
    "release verify": ("read", "release"),
    "policy list": ("read", "policy"),
    "policy check": ("read", "policy"),
    "policy explain": ("read", "policy"),
    "policy test": ("read", "policy"),
    "run edge": ("read", "process"),
    "run historian": ("read", "process"),
    "run console": ("read", "process"),
    "run apps": ("read", "process"),
    "run runtime": ("read", "process"),
    "run hub": ("read", "process"),
    "run sim": ("read", "process"),
    "aas export": ("read", "site"),
    "aas import": ("edit", "site"),
    "asset-type list": ("read", "app"),
    "asset-type show": ("read", "app"),
    "asset-type from-nodeset": ("read", "app"),
    "cluster new": ("read", "process"),
    "cluster run": ("read", "process"),
}
"""Command -> what the policy is asked. One that is not here needs the right to administer, and a test fails."""


def guard(app: typer.Typer) -> None:
    """Let the policy decide before each command of a command line."""
    _guard(app, ())


def _guard(app: typer.Typer, above: tuple[str, ...]) -> None:
    for command in app.registered_commands:
        if command.callback is not None:
            name = command.name or command.callback.__name__.replace("_", "-")
            command.callback = _decided(" ".join((*above, name)), command.callback)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            _guard(group.typer_instance, (*above, group.name or ""))


def _decided(name: str, callback: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(callback)
    def run(*args: Any, **values: Any) -> Any:
        data = values.get("data")
        check(name, DataFolder(data.resolve()) if isinstance(data, Path) else None)
        return callback(*args, **values)

    return run


def check(command: str, folder: DataFolder | None) -> None:
    """Pass when the policy lets whoever works here run a command on a data folder.

    Raises:
        Refused: SEC-1004 when it does not.
    """
    action, resource = DOORS.get(command, ("administer", f"command/{command}"))
    own = folder is not None and folder.policies.is_dir()
    if action == "read" and not own:
        return  # the built-in policies let each of the two roles read; a test holds this
    from headrace.security.policy import require
    from headrace.security.policy_files import use_files

    if folder is not None and own:
        use_files(folder)
    actor = os_actor(folder)
    if action != "read" and folder is not None and folder.metadata_file.exists():
        _tell(folder, actor, action, resource, command)
    require(actor, action, resource)


def person() -> str:
    """Who works on the command line, as the audit chain names it."""
    try:
        return f"os:{getpass.getuser()}"
    except (KeyError, OSError):
        return "os:unknown"


def os_actor(folder: DataFolder | None) -> Actor:
    """Who works on the command line: an admin of a folder that is this user's own or not yet there."""
    mine = folder is None or not folder.root.exists()
    if folder is not None and not mine:
        mine = os.geteuid() in (0, folder.root.stat().st_uid)
    role: Role = "admin" if mine else "viewer"
    return Actor(person(), role, kind="system")


def _tell(folder: DataFolder, actor: Actor, action: Action, resource: str, command: str) -> None:
    from headrace.security.identity import opened_chain
    from headrace.security.policy import decide

    decision = decide(actor, action, resource)
    told = {"command": command, "why": decision.reason, "policies": decision.policies}
    outcome = "allowed" if decision.allowed else "denied"
    with opened_chain(folder) as audit:
        audit.record(actor.name, action, resource, outcome, **told)  # type: ignore[arg-type] # an outcome
