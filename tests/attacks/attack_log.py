"""Named attacks: what each tries, what stops it, and the requirement that it holds.

``@attack`` stands on a test and changes nothing about it; ``scripts/attack_log.py`` reads the decorators
from the source and writes ``docs/attacks.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

Stride = Literal["S", "T", "R", "I", "D", "E"]
"""Spoofing, tampering, repudiation, information disclosure, denial of service, elevation of privilege."""
F = TypeVar("F", bound=Callable[..., object])


def attack(
    name: str, *, tries: str, stops: str, stride: Stride, requirement: str
) -> Callable[[F], F]:
    """Name a test as an attack.

    Args:
        name: group and name, ``sessions/fixation``.
        tries: what the attacker does. stops: what stops him.
        requirement: of IEC 62443-3-3, such as ``SR 3.5``.
    """
    assert "/" in name and tries and stops and stride and requirement.startswith("SR ")
    return lambda test: test


ELSEWHERE: tuple[tuple[str, str, str, str, str, str], ...] = (
    (
        "audit/edit",
        "changes, removes, reorders or cuts off entries of the audit chain",
        "each entry holds the digest of the one before and is signed; checkpoints show a cut",
        "T",
        "SR 3.9",
        "tests/security/test_audit.py::test_whoever_holds_the_database_is_found",
    ),
    (
        "edges/stolen join token",
        "joins an edge twice with one token, with one that is over, or with a wrong one",
        "a token counts once, expires, and only its hash is kept",
        "S",
        "SR 1.2",
        "tests/site/test_edge_apart.py::test_a_token_is_for_one_edge_one_hub_and_one_hour",
    ),
    (
        "edges/speak for another edge",
        "an edge publishes on the subjects of another one",
        "the hub's broker lets a certificate say only what is its own",
        "E",
        "SR 2.1",
        "tests/site/test_edge_apart.py::test_an_edge_may_say_and_hear_only_what_is_its_own",
    ),
    (
        "devices/device reads the platform's subjects",
        "an MQTT device subscribes to the log, the desired state or an edge's calls",
        "the broker's device user may use device topics only",
        "E",
        "SR 2.1",
        "tests/bus/test_bus.py::test_a_device_cannot_touch_the_platforms_subjects",
    ),
    (
        "devices/write outside the envelope",
        "asks the edge to write a value beyond the limits that the site file states",
        "the write guard at the edge refuses and tells it",
        "T",
        "SR 3.6",
        "tests/edge/test_agent.py::test_writes_pass_the_guard_and_are_read_back",
    ),
    (
        "audit/truncate and re-sign",
        "holds the machine and its key, cuts the chain and signs it anew",
        "a checkpoint that is kept elsewhere does not fit any more",
        "R",
        "SR 3.9",
        "tests/security/test_audit.py::test_whoever_holds_the_machine_and_its_key_is_found_by_a_checkpoint_elsewhere",
    ),
    (
        "audit/flood of guesses",
        "fills the chain with failed sign-ins so that nobody finds the one that counts",
        "the 1st, 2nd, 4th, 8th... failure of a name and address is told, with how many there were",
        "R",
        "SR 2.9",
        "tests/security/test_audit.py::test_a_change_that_fails_tells_nothing_and_a_flood_of_guesses_little",
    ),
    (
        "edges/false hub",
        "answers an edge that joins in the hub's place, to get its token",
        "the edge checks the hub's fingerprint before it says the token",
        "S",
        "SR 1.8",
        "tests/site/test_edge_apart.py::test_the_edge_knows_its_hub_before_it_says_the_secret",
    ),
    (
        "edges/removed edge comes back",
        "goes on with the credentials of an edge that was removed",
        "the hub's broker cuts it within seconds and refuses it from then on",
        "S",
        "SR 1.3",
        "tests/site/test_edge_apart.py::test_a_removed_edge_is_cut_and_stays_out",
    ),
    (
        "devices/unknown OPC UA certificate",
        "a server with another certificate takes the place of the known one",
        "it is not trusted until a person trusts it",
        "S",
        "SR 1.8",
        "tests/edge/connectors/opcua/test_opcua_connector.py::test_security_needs_trust_first",
    ),
)
"""(name, tries, stops, stride, requirement, file) of attacks whose tests stand elsewhere."""
