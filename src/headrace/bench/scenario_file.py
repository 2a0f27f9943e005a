"""Reads scenario files, and says what is wrong with one by its file and field."""

from __future__ import annotations

import hashlib
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

import msgspec

from headrace.bench.scenario import MustFind, MustValue, Protocol, Scenario, Source
from headrace.model.errors import Misconfigured

SHARED: Final = "demo/"
"""What ``extends`` says for a scenario that comes with the platform: ``demo/cavitation``."""
DURATION_MAX_S: Final = 40 * 86_400.0
VIRTUAL_MAX_S: Final = 86_400.0
_DEEP: Final = 4


class Read(NamedTuple):
    """A scenario with the folder that its files are below."""

    scenario: Scenario
    folder: Path

    @property
    def sha256(self) -> str:
        """Of what it says, whatever the file is called."""
        return self.scenario.content_hash()


def shared_names() -> list[str]:
    """The scenarios that come with the platform: one for each fault of the demo, and hostile times.

    Example:
        >>> "demo/cavitation" in shared_names()
        True
    """
    folder = resources.files("headrace.bench").joinpath("scenarios")
    return sorted(f"{SHARED}{f.name.removesuffix('.toml')}" for f in folder.iterdir())


def read_shared(name: str) -> Read:
    """One of :func:`shared_names`.

    Raises:
        Misconfigured: APPS-2401 when there is none of that name.
    """
    if name not in shared_names():
        raise Misconfigured(
            "APPS-2401", f"there is no scenario {name}", f"Use one of {', '.join(shared_names())}."
        )
    file = resources.files("headrace.bench").joinpath("scenarios", f"{name[len(SHARED) :]}.toml")
    return Read(_checked(_convert(_parsed(file.read_text("utf-8"), name), name), name), Path())


def read_scenario(path: Path) -> Read:
    """A scenario file, with what it extends.

    Raises:
        Misconfigured: APPS-2401 no such file or scenario, APPS-2402 it is no TOML, APPS-2403 a field is
            wrong, APPS-2404 times or shares that cannot be.
    """
    fields, folder = _whole(path, 0)
    where = path.name
    return Read(_checked(_convert(fields, where), where), folder)


def read_scenarios(folder: Path) -> list[Read]:
    """All of a folder, by name.

    Raises:
        Misconfigured: as of :func:`read_scenario`; APPS-2404 when two have one name.
    """
    found = [read_scenario(path) for path in sorted(folder.glob("*.toml"))]
    names = [each.scenario.name for each in found]
    for name in names:
        if names.count(name) > 1:
            raise Misconfigured("APPS-2404", f"two scenarios in {folder.name} are called {name}")
    return sorted(found, key=lambda each: each.scenario.name)


def _whole(path: Path, depth: int) -> tuple[dict[str, Any], Path]:
    """The file's fields over those of what it extends; and the folder of the file with the source."""
    if depth > _DEEP:
        raise Misconfigured(
            "APPS-2404", f"{path.name} extends more than {_DEEP} files", "Extend fewer of them."
        )
    try:
        fields = _parsed(path.read_text("utf-8"), path.name)
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(
            "APPS-2401", f"cannot read the scenario {path}: {error}", "Check its path."
        ) from error
    extends = fields.get("extends", "")
    if not isinstance(extends, str) or not extends:
        return fields, path.parent
    if extends.startswith(SHARED):
        base, folder = msgspec.to_builtins(read_shared(extends).scenario), path.parent
    else:
        base, folder = _whole(path.parent / extends, depth + 1)
    if "source" in fields:
        folder = path.parent
    # What must happen is of the one who asks; title and faults of the base hold where none are given.
    kept = {key: value for key, value in base.items() if key not in ("must", "name", "extends")}
    return {**kept, **fields}, folder


def _parsed(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Misconfigured("APPS-2402", f"it is no TOML: {error}", "", where=where) from error


def _convert(fields: dict[str, Any], where: str) -> Scenario:
    try:
        return msgspec.convert(fields, Scenario)
    except msgspec.ValidationError as error:
        raise Misconfigured(
            "APPS-2403", f"a field is wrong: {error}", "See docs/bench.md.", where=where
        ) from error


def _checked(scenario: Scenario, where: str) -> Scenario:
    def wrong(what: str, remedy: str = "") -> Misconfigured:
        return Misconfigured("APPS-2404", f"scenario {scenario.name}: {what}", remedy, where=where)

    source = scenario.source
    longest = VIRTUAL_MAX_S if source.kind == "virtual" else DURATION_MAX_S
    least = 1.0 if source.kind == "virtual" else 0.0
    if not least <= source.duration_s <= longest:
        raise wrong(
            f"source.duration_s is {source.duration_s:g}", f"Use {least:g} to {longest:g} seconds."
        )
    if source.kind == "recording" and not (source.file and (scenario.asset or source.columns)):
        raise wrong("a recording needs source.file, and [[asset]] or source.columns")
    if source.kind == "recording" and scenario.fault:
        raise wrong("faults act on the virtual site", "Use [[hostile]] with a recording.")
    if scenario.wire and not source.protocol:
        raise wrong("[wire] needs source.protocol", "Name opcua, modbus, mqtt, sparkplug or site.")
    for path, wire in scenario.wire.items():
        if 0.0 in (wire.scale, wire.shown_scale):
            raise wrong(f"the scale of {path} is 0", "Use the device's factor, such as 0.1.")
    for name, model in scenario.model.items():
        if bool(model.file) == (model.train is not None):
            raise wrong(f"model {name} needs either file or train", "Give one of them.")
        train = model.train
        if train is not None and not (train.every_s > 0 and 0 <= train.from_s < train.until_s):
            raise wrong(
                f"model {name} has no time to train on", "Give until_s after from_s, and every_s."
            )
        if train is not None and not 0 < train.held_out < 1:
            raise wrong(f"model {name} holds {train.held_out:g} out", "Hold out a share of 0 to 1.")
    if not 0.1 <= scenario.turn_s <= 3_600.0:
        raise wrong(f"turn_s is {scenario.turn_s:g}", "Use 0.1 to 3600 seconds.")
    for each in scenario.hostile:
        if not 0.0 <= each.share <= 1.0 or each.delay_s < 0:
            raise wrong(
                f"{each.kind} has share {each.share:g} and delay_s {each.delay_s:g}",
                "A share is 0 to 1, a delay not below 0.",
            )
    for must in scenario.must:
        if isinstance(must, MustValue) and must.minimum is None and must.maximum is None:
            raise wrong(f"value of {must.name} has neither minimum nor maximum", "Give one.")
        if isinstance(must, MustFind) and bool(must.alarm) == bool(must.name):
            raise wrong("find needs either alarm or name", "Give one of them.")
        if isinstance(must, MustFind) and not source.label:
            raise wrong("find needs source.label", "Name the column that is above 0 where wrong.")
    return scenario


def with_protocol(read: Read, protocol: str) -> Read:
    """A scenario whose samples come through a protocol.

    Raises:
        Misconfigured: APPS-2464 when there is none of that name.
    """
    known = get_args(Protocol)[1:]
    if protocol not in known:
        raise Misconfigured(
            "APPS-2464", f"there is no protocol {protocol!r}", f"Use one of {', '.join(known)}."
        )
    source = msgspec.convert(
        {**msgspec.to_builtins(read.scenario.source), "protocol": protocol}, Source
    )
    return Read(msgspec.structs.replace(read.scenario, source=source), read.folder)


def file_of(read: Read, root: str) -> Path:
    """Where a scenario's recording lies.

    Args:
        root: of files that begin with ``data:``; empty where there is none.

    Raises:
        Misconfigured: APPS-2405 when it is not there, or is another than the scenario was written for.
    """
    source = read.scenario.source
    below = source.file.removeprefix("data:")
    if source.file.startswith("data:") and not root:
        raise Misconfigured(
            "APPS-2405",
            f"scenario {read.scenario.name} needs the recording {below}",
            "Set HEADRACE_DATA to the folder that has it.",
        )
    path = (Path(root) if source.file.startswith("data:") else read.folder) / below
    if not path.is_file():
        raise Misconfigured(
            "APPS-2405",
            f"scenario {read.scenario.name} needs the recording {path}, which is not there",
            "Get it, or leave the scenario out with --only.",
        )
    if source.sha256 and source.sha256 != hashlib.sha256(path.read_bytes()).hexdigest():
        raise Misconfigured(
            "APPS-2405",
            f"the recording {path} is another than scenario {read.scenario.name} was written for",
            "Get the one with the SHA-256 that source.sha256 says, or change it there.",
        )
    return path
