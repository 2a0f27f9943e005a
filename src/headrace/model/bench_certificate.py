"""The certificate of the bench: what an app was tried with, and what came of it.

The bench writes it as ``certificate.json`` beside ``app.toml``; it goes into the package and is signed with
it. It has no time in it: the same app, scenarios and platform give the same bytes.
"""

from __future__ import annotations

import msgspec


class ScenarioResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one scenario.

    Attributes:
        name: of the scenario. passed: everything that it asks for happened.
        checks: how many things it asks for. failed: what did not happen, in words.
        figures: name -> number that was measured, such as ``recall``; no wall times.
    """

    name: str
    passed: bool
    checks: int = 0
    failed: tuple[str, ...] = ()
    figures: dict[str, float] = {}


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """What an app showed on the bench.

    Attributes:
        id, version: of the app.
        content_sha256: of all its files but what machines wrote into it, as
            ``headrace.apps.package.content_sha256`` gives it, in hex.
        scenarios: file of a scenario -> SHA-256, in hex.
        headrace: version of the platform that it ran on.
        results: of each scenario.
        bench: public key of the bench that signed it, base64; "" when none did.
        signature: of that bench over all the rest, base64.

    Example:
        >>> won = ScenarioResult(name="seal wear", passed=True, checks=3)
        >>> certificate = Certificate(
        ...     id="seal-watch", version="1.0.0", content_sha256="", headrace="0.1.0", results=(won,)
        ... )
        >>> certificate.passed, certificate.rating
        (True, 1.0)
    """

    id: str
    version: str
    content_sha256: str
    headrace: str
    scenarios: dict[str, str] = {}
    results: tuple[ScenarioResult, ...] = ()
    bench: str = ""
    signature: str = ""

    def signed_part(self) -> bytes:
        """What the signature of a bench is over: all but itself."""
        return msgspec.json.encode(msgspec.structs.replace(self, signature=""))

    @property
    def passed(self) -> bool:
        """There are scenarios, and it passed each."""
        return bool(self.results) and all(each.passed for each in self.results)

    @property
    def rating(self) -> float:
        """Share of the scenarios that it passed; 0 without any."""
        if not self.results:
            return 0.0
        return sum(each.passed for each in self.results) / len(self.results)
