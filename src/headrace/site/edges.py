"""The hub's book of edges on machines of their own: who is invited, who joined.

An invitation is a secret for one use that expires; only its hash is kept. The token that a person
carries holds it together with the hub's address and the fingerprint of its authority, so that the edge
knows the hub at first contact. All of it lives in the data folder's ``hub/``, changed under a lock by
the command line and by the hub's role alike.
"""

from __future__ import annotations

import base64
import fcntl
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from headrace.bus import leaf
from headrace.bus.leaf import EdgeBook, HubSettings, JoinedEdge
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Misconfigured, Refused
from headrace.model.folder import DataFolder
from headrace.model.health import EdgeLink, EdgeLog, EdgeState
from headrace.model.ids import check_name
from headrace.security import authority
from headrace.security.files import make_folder
from headrace.security.tokens import new_token, token_hash

TOKEN_MARK: Final = "hre_"
LOCAL_EDGE: Final = "local"
INVITATIONS_MAX: Final = 1_000


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """What a person carries from the hub to the edge's machine.

    Attributes:
        hub, port: where to join. fingerprint: of the hub's authority. secret: for one use.
    """

    hub: str
    port: int
    fingerprint: str
    secret: str


class Invitation(msgspec.Struct, kw_only=True):
    """One invitation, by its secret's hash.

    Attributes:
        expires_us: when it ends. key: hash of the public key that used it; "" not used yet.
    """

    edge: str
    expires_us: int
    key: str = ""


class Book(EdgeBook, kw_only=True):
    """``hub/edges.json``: edges by name, and invitations by their secret's hash."""

    invitations: dict[str, Invitation] = msgspec.field(default_factory=dict)


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """What an edge gets when it joins; it becomes :class:`headrace.bus.leaf.Joined`."""

    edge: str
    enterprise: str
    site: str
    domain: str
    password: str
    leaf_port: int
    certificate: str


def write_token(token: Token) -> str:
    """The token as text without blanks."""
    return TOKEN_MARK + base64.urlsafe_b64encode(msgspec.json.encode(token)).decode().rstrip("=")


def read_token(text: str) -> Token:
    """The token of a text.

    Raises:
        Misconfigured: SITE-1901 when it is none, or a part of one.
    """
    body = text.strip().removeprefix(TOKEN_MARK)
    try:
        raw = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
        return msgspec.json.decode(raw, type=Token)
    except (ValueError, *UNREADABLE) as error:
        raise Misconfigured(
            "SITE-1901",
            "this is no token of a hub, or not all of it",
            "Copy the whole line that `headrace edge invite` printed.",
        ) from error


def invite(folder: DataFolder, edge: str, now_us: int, expires_us: int) -> str:
    """A token with which an edge may join under the name ``edge`` until ``expires_us``.

    Raises:
        Misconfigured: MODEL-1002 when this is no name.
        Refused: SITE-1902 when the hub takes no edges in, SITE-1903 when the name is taken.
    """
    check_name(edge, "edge")
    settings = require_hub(folder)
    fingerprint = authority.fingerprint((folder.hub / "ca.pem").read_bytes())
    secret = new_token()
    with _changed(folder, now_us) as book:
        if edge == LOCAL_EDGE or edge in book.edges:
            raise Refused(
                "SITE-1903",
                f"there is an edge {edge} already",
                "Give another name, or remove that one first: headrace edge remove",
            )
        if len(book.invitations) >= INVITATIONS_MAX:
            raise Refused("SITE-1904", f"{INVITATIONS_MAX} invitations are open", "Wait for some.")
        book.invitations[token_hash(secret)] = Invitation(edge=edge, expires_us=expires_us)
    return write_token(
        Token(
            hub=settings.names[0], port=settings.join_port, fingerprint=fingerprint, secret=secret
        )
    )


def require_hub(folder: DataFolder) -> HubSettings:
    """Where this hub takes edges in.

    Raises:
        Refused: SITE-1902 when it does not.
    """
    settings = leaf.hub_settings(folder)
    if settings is None:
        raise Refused(
            "SITE-1902",
            f"the installation on {folder.root} takes no edges in",
            "Start it with: headrace up --hub-listen ADDRESS:PORT",
        )
    return settings


def redeem(
    folder: DataFolder,
    secret: str,
    request_pem: bytes,
    names: tuple[str, str],
    now_us: int,
    *,
    sealing_key: str = "",
) -> Admission:
    """Let an edge join: its certificate and its broker's credentials.

    The same key may ask again until the invitation expires, and gets the same: an answer may be lost.

    Args:
        request_pem: request for a certificate. names: enterprise and site.
        sealing_key: to which the edge's secrets are to be sealed.

    Raises:
        Refused: SITE-1905 when the token is unknown or expired, SITE-1906 when another used it,
            SITE-1902 when the hub takes no edges in, SEC-1902 for a bad request.
    """
    settings = require_hub(folder)
    key = authority.request_key(request_pem)
    with _changed(folder, now_us) as book:
        invitation = book.invitations.get(token_hash(secret))
        if invitation is None:
            raise Refused(
                "SITE-1905",
                "the hub does not know this token: it expired, or is of another hub",
                "Ask for a new one: headrace edge invite",
            )
        if invitation.key not in ("", key):
            raise Refused(
                "SITE-1906",
                f"the token for edge {invitation.edge} was used already",
                "Ask for a new one: headrace edge invite. If it was not you, remove that edge.",
            )
        certificate = authority.sign_edge(folder.hub, request_pem, invitation.edge, now_us)
        known = book.edges.get(invitation.edge)
        suffix = secrets.token_hex(4)
        edge = JoinedEdge(
            name=invitation.edge,
            domain=known.domain if known and invitation.key else f"{invitation.edge}-{suffix}",
            password=known.password if known and invitation.key else new_token(),
            certificate=authority.fingerprint(certificate),
            joined_us=now_us,
            sealing_key=sealing_key,
        )
        invitation.key = key
        book.edges[edge.name] = edge
    return Admission(
        edge=edge.name,
        enterprise=names[0],
        site=names[1],
        domain=edge.domain,
        password=edge.password,
        leaf_port=settings.leaf_port,
        certificate=certificate.decode(),
    )


def remove(folder: DataFolder, edge: str, now_us: int) -> None:
    """Forget an edge: its credentials are worthless at once, and the hub cuts its connection.

    Raises:
        Refused: SITE-1907 when there is no such edge and no invitation for it.
    """
    with _changed(folder, now_us) as book:
        open_ones = [key for key, each in book.invitations.items() if each.edge == edge]
        if edge not in book.edges and not open_ones:
            raise Refused(
                "SITE-1907", f"no edge {edge} has joined this hub", "See: headrace edge list"
            )
        book.edges.pop(edge, None)
        for key in open_ones:
            del book.invitations[key]


@contextmanager
def _changed(folder: DataFolder, now_us: int) -> Iterator[Book]:
    """The book, to be changed by one at a time; written when the block ends without an error."""
    make_folder(folder.hub, 0o700)
    with (folder.hub / "edges.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        book = leaf.load(folder.hub / "edges.json", Book) or Book()
        for key in [key for key, each in book.invitations.items() if each.expires_us <= now_us]:
            del book.invitations[key]
        yield book
        leaf.save(folder.hub / "edges.json", book)


def edge_row(link: EdgeLink, state: EdgeState | None) -> dict[str, Any]:
    """One edge as the command line and REST show it.

    Args:
        link: how the hub sees it. state: what it says of itself; None when it is silent.

    Returns:
        Plain data: ``connected_us``, ``heard_us``, ``oldest_unsent_us`` are UTC microseconds, 0 never
        or none; ``lag_frames`` and ``lag_bytes`` -1 when unknown; ``runs_desired`` compares the hash of
        what runs with that of what should.
    """
    log = (state.log if state is not None else None) or EdgeLog()
    running = state.config_hash if state is not None else link.running_hash
    return {
        "edge": link.edge,
        "connected_us": link.connected_us,
        "address": link.address,
        "rtt": link.rtt,
        "heard_us": state.at_us if state is not None else link.heard_us,
        "lag_frames": log.unsent_frames if state is not None else link.lag_frames,
        "lag_bytes": log.unsent_bytes if state is not None else -1,
        "oldest_unsent_us": log.oldest_unsent_us,
        "desired_hash": link.desired_hash,
        "running_hash": running,
        "runs_desired": bool(running) and running == link.desired_hash,
        "version": state.version if state is not None else "",
        "log_bytes": log.bytes,
        "log_bytes_max": log.bytes_max,
        "dropped_samples": log.dropped_samples,
    }
