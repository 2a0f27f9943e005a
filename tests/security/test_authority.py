"""The hub's authority: whom it makes trusted, and as what."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest

from headrace.model.errors import Corrupt, Refused
from headrace.security import authority

NOW_US = 1_763_800_000_000_000


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    made = tmp_path / "hub"
    authority.ensure_authority(made, NOW_US)
    authority.ensure_server(made, ("hub.example", "127.0.0.1"), NOW_US)
    return made


def handshake(certificate: Path, key: Path, authority_pem: bytes, name: str) -> None:
    """Be a server with this certificate, and a client that trusts the authority and wants ``name``."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=authority_pem.decode())
    near, far = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(far, server_side=True).close()
        except OSError:
            far.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client.wrap_socket(near, server_hostname=name).close()
    finally:
        near.close()
        thread.join()


def test_the_hub_is_known_by_each_of_its_names_and_no_other(hub: Path) -> None:
    pem = (hub / "ca.pem").read_bytes()
    for name in ("hub.example", "127.0.0.1"):
        handshake(hub / "server.pem", hub / "server.key", pem, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(hub / "server.pem", hub / "server.key", pem, "other.example")
    before = (hub / "server.pem").read_bytes()
    authority.ensure_server(hub, ("127.0.0.1", "hub.example"), NOW_US)
    assert (hub / "server.pem").read_bytes() == before
    authority.ensure_server(hub, ("other.example",), NOW_US)
    handshake(hub / "server.pem", hub / "server.key", pem, "other.example")


def test_an_edge_cannot_pose_as_the_hub(hub: Path, tmp_path: Path) -> None:
    edge = tmp_path / "edge"
    request = authority.request_certificate(edge, "hub.example")
    (edge / "edge.pem").write_bytes(authority.sign_edge(hub, request, "hub.example", NOW_US))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(
            edge / "edge.pem", edge / "edge.key", (hub / "ca.pem").read_bytes(), "hub.example"
        )


def test_keys_are_private_and_made_once(hub: Path, tmp_path: Path) -> None:
    edge = tmp_path / "edge"
    first = authority.request_key(authority.request_certificate(edge, "a"))
    assert authority.request_key(authority.request_certificate(edge, "b")) == first
    for key in (hub / "ca.key", hub / "server.key", edge / "edge.key"):
        assert key.stat().st_mode & 0o077 == 0
    pem = authority.ensure_authority(hub, NOW_US)
    assert authority.fingerprint(pem) == authority.fingerprint((hub / "ca.pem").read_bytes())


@pytest.mark.parametrize(
    "pem", [b"", b"x" * 10_000, b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"]
)
def test_what_is_no_request_is_refused(hub: Path, pem: bytes) -> None:
    with pytest.raises(Refused, match="SEC-1902"):
        authority.sign_edge(hub, pem, "north", NOW_US)
    with pytest.raises(Corrupt, match="SEC-1901"):
        authority.fingerprint(pem)
