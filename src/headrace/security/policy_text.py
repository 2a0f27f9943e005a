"""Policies as text: Cedar statements with ids, read from files, checked against the schema.

A statement has annotations of ours: ``@id`` (its name, else file and line), ``@says`` (why, for people), and on
a ``forbid`` ``@needs`` with ``signature``, ``second_person`` or ``second_factor``: what lifts it.

Source: Cedar language, https://docs.cedarpolicy.com.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final, Literal, cast, get_args

import cedarpy

from headrace.model.errors import Misconfigured
from headrace.security.rights import Need

BUILTIN_FILE: Final = "builtin.cedar"
FILE_MAX: Final = 256 * 1024
FILES_MAX: Final = 100
POLICIES_MAX: Final = 1_000
_FOLDER: Final = "headrace.security.cedar"
# What can hold a semicolon or a brace that means nothing: a text, a comment.
_TOKEN: Final = re.compile(r'"(?:[^"\\\n]|\\.)*"|//[^\n]*|;|\n|[^\s";/]+|[\s]|.')


@dataclass(frozen=True)
class Policy:
    """One statement.

    Attributes:
        id: its name, of which there is one in a set.
        file, line: where it stands.
        says: why, for people. needs: what lifts a forbid.
    """

    id: str
    effect: Literal["permit", "forbid"]
    file: str
    line: int
    text: str
    says: str = ""
    needs: Need = ""


class PolicySet:
    """Policies that are in force together.

    Args:
        files: name -> text of the own policies; the built-in ones are always there.

    Attributes:
        policies: all, the built-in ones first. own: how many are the owner's. digest: of the own files.

    Raises:
        Misconfigured: SEC-1401 to SEC-1405 with file and line, for the first thing that is wrong.

    Example:
        >>> PolicySet({"quiet.cedar": 'forbid (principal, action, resource is Tag);'}).own
        1
    """

    def __init__(self, files: Mapping[str, str] | None = None) -> None:
        own = dict(sorted((files or {}).items()))
        _check_size(own)
        texts = {BUILTIN_FILE: builtin_text(), **own}
        found: dict[str, Policy] = {}
        static: dict[str, Any] = {}
        for file, text in texts.items():
            for policy, parsed in _statements(file, text):
                if policy.id in found:
                    raise _wrong(
                        "SEC-1403",
                        policy,
                        f"there is a policy {policy.id!r} already, in {found[policy.id].file}",
                        "Give each policy an @id of its own.",
                    )
                found[policy.id], static[policy.id] = policy, parsed
        if len(found) > POLICIES_MAX:
            raise Misconfigured(
                "SEC-1404", f"there are {len(found):,} policies", f"Keep at most {POLICIES_MAX:,}."
            )
        self.policies = tuple(found.values())
        self.by_id = found
        self.own = sum(policy.file != BUILTIN_FILE for policy in self.policies)
        self.digest = hashlib.sha256(json.dumps(own).encode()).hexdigest()
        document = {"staticPolicies": static, "templates": {}, "templateLinks": []}
        self.handle = cedarpy.PolicySet.from_json_str(json.dumps(document))


def builtin_text() -> str:
    """The policies that Headrace comes with."""
    return _packaged(BUILTIN_FILE)


def schema_text() -> str:
    """The schema: which actors, actions and resources there are."""
    return _packaged("headrace.cedarschema")


@cache
def _packaged(name: str) -> str:
    return (resources.files("headrace.security") / "cedar" / name).read_text("utf-8")


def _check_size(files: Mapping[str, str]) -> None:
    if len(files) > FILES_MAX:
        raise Misconfigured(
            "SEC-1404", f"there are {len(files)} policy files", f"Keep at most {FILES_MAX}."
        )
    for file, text in files.items():
        if file == BUILTIN_FILE:
            raise Misconfigured(
                "SEC-1404", f"{file} is the name of the built-in policies", "Rename the file."
            )
        if len(text) > FILE_MAX:
            raise Misconfigured(
                "SEC-1404", f"{file} has {len(text):,} characters", f"Keep at most {FILE_MAX:,}."
            )


def _statements(file: str, text: str) -> Iterator[tuple[Policy, Any]]:
    on_line: dict[int, int] = {}
    for line, statement in _split(text):
        on_line[line] = on_line.get(line, 0) + 1
        place = f"{file}:{line}" if on_line[line] == 1 else f"{file}:{line}.{on_line[line]}"
        bare = Policy(place, "permit", file, line, statement)
        parsed = _parse(bare)
        notes = {key: value or "" for key, value in parsed.get("annotations", {}).items()}
        needs = notes.get("needs", "")
        if needs not in get_args(Need) or (needs and parsed["effect"] != "forbid"):
            raise _wrong(
                "SEC-1403",
                bare,
                f"@needs({needs!r}) on a {parsed['effect']}",
                "On a forbid, write signature, second_person or second_factor.",
            )
        yield (
            Policy(
                id=notes.get("id") or bare.id,
                effect=parsed["effect"],
                file=file,
                line=line,
                text=statement,
                says=notes.get("says", ""),
                needs=cast(Need, needs),
            ),
            parsed,
        )


def _split(text: str) -> Iterator[tuple[int, str]]:
    """Line and text of each statement; what comes after the last semicolon is one too."""
    line, start, parts = 1, 0, list[str]()
    for token in _TOKEN.findall(text):
        is_space = token.isspace() or token.startswith("//")
        if not start and not is_space:
            start = line
        if start:
            parts.append(token)
        line += token.count("\n")
        if token == ";":
            yield start, "".join(parts)
            start, parts = 0, []
    if start:
        yield start, "".join(parts).rstrip()


def _parse(policy: Policy) -> Any:
    """The statement as Cedar's JSON, when it is one and fits the schema."""
    try:
        document = json.loads(cedarpy.policies_to_json_str(policy.text))
    except ValueError as error:
        raise _wrong(
            "SEC-1401",
            policy,
            f"this is no Cedar policy: {error}",
            "See docs/policy.md for how one is written.",
            _line_of(policy, str(error)),
        ) from error
    if document["templates"]:
        raise _wrong(
            "SEC-1405",
            policy,
            "templates (?principal, ?resource) are not used",
            "Name the principal and the resource.",
        )
    if policy.file == BUILTIN_FILE:  # a test holds them to the schema
        return next(iter(document["staticPolicies"].values()))
    checked = cedarpy.validate_policies(policy.text, schema_text())
    if checked.errors:
        what = checked.errors[0].error.replace("for policy `policy0`, ", "")
        raise _wrong(
            "SEC-1402",
            policy,
            f"the policy does not fit the schema: {what}",
            "See docs/policy.md for actors, actions and resources.",
            _line_of(policy, what),
        )
    return next(iter(document["staticPolicies"].values()))


def _line_of(policy: Policy, message: str) -> int:
    """The line of what a message names; Cedar's own place is not told by its binding."""
    for name in _names(message):
        for number, line in enumerate(policy.text.splitlines()):
            if name in line:
                return policy.line + number
    return policy.line


def _names(message: str) -> Iterable[str]:
    quoted = re.findall(r"`([^`]+)`", message)
    tail = message.rpartition(": ")[2].strip()
    return [name for name in (*quoted, tail) if name]


def _wrong(code: str, policy: Policy, what: str, remedy: str, line: int = 0) -> Misconfigured:
    return Misconfigured(code, what, remedy, where=f"{policy.file}:{line or policy.line}")
