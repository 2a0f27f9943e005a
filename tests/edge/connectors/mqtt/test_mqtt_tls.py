"""TLS to a foreign broker: our own authority is trusted, anybody else's is not."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from headrace.edge.connectors.mqtt import CONNECTOR
from headrace.model.desired import ConnectionConfig
from headrace.model.errors import Misconfigured, Refused
from mqtt_brokers import Mosquitto, Reader, connected, context, open_session, tags

pytestmark = pytest.mark.foreign
FROM, DAYS = datetime(2026, 1, 1, tzinfo=UTC), 36_500


def certify(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for loopback and its key, as PEM files."""
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    loopback = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(FROM)
        .not_valid_after(FROM + timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName([loopback]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Mosquitto]:
    folder = tmp_path / "broker"
    certificate, key = certify(folder, "broker")
    made = Mosquitto(folder, f"certfile {certificate}", f"keyfile {key}")
    made.up()
    yield made
    made.kill()


def connection(broker: Mosquitto, **options: str) -> ConnectionConfig:
    fields = {"username": broker.user, "password": "env:MQTT"}
    return ConnectionConfig(
        name="plc",
        protocol="mqtt",
        endpoint=f"mqtts://127.0.0.1:{broker.port}",
        options=fields | options,
        tags=tags("hall#/v"),
    )


async def test_trusted_broker(secured: Mosquitto) -> None:
    ca = str(secured.folder / "broker.pem")
    connector = CONNECTOR.open(connection(secured, tls_ca_file=ca), context(secured))
    async with connected(connector):
        publisher = CONNECTOR.open(
            connection(secured, tls_ca_file=ca, client_id="p"), context(secured)
        )
        async with connected(publisher):
            session = publisher._session
            for count in range(500):
                session.publish_soon("hall", b'{"v": %d}' % count, qos=1)
            reader = Reader(connector, tags("hall#/v"))
            await reader.until(lambda r: len(r.values(1)) == 500)
            assert reader.values(1) == [float(count) for count in range(500)]


async def test_unknown_authority_is_refused(secured: Mosquitto, tmp_path: Path) -> None:
    other, _ = certify(tmp_path / "other", "other")
    for options in ({"tls_ca_file": str(other)}, {}):
        connector = CONNECTOR.open(connection(secured, **options), context(secured))
        with pytest.raises(Refused, match="EDGE-4012"):
            await connector.connect()
        await connector.close()


async def test_plain_client_on_a_tls_port_fails_clearly(secured: Mosquitto) -> None:
    session = open_session(secured, "plain")
    with pytest.raises(Exception, match=r"EDGE-401[03]"):
        await session.connect()
    await session.close()


async def test_missing_files_are_misconfigured(secured: Mosquitto) -> None:
    with pytest.raises(Misconfigured, match="EDGE-4004"):
        CONNECTOR.open(connection(secured, tls_ca_file="/no/such.pem"), context(secured))
