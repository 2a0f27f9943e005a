"""The document that two companies sign, and the state that it is in. Pure: no I/O, no clock.

::

    offered ── partner signs, offerer accepts ──► signed ── from ──► active ──► expired | exhausted
                                                     └────────────────┴── revoke ──► revoked

Both sign the same terms with Ed25519, each for its own part, so that neither signature passes for the
other's, nor for another contract.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from headrace.model.errors import Corrupt, Misconfigured
from headrace.security.audit import AuditKeys, is_signed_by

State = Literal["offered", "signed", "active", "expired", "exhausted", "revoked"]


class Terms(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is shared, with whom, what for.

    Attributes:
        offerer, partner: the two companies.
        purpose: what the partner may use it for.
        tags: path and id of each tag; nothing else can be read.
        from_us, until_us: when it may be read, UTC microseconds.
        data_from_us, data_until_us: source times that may be read.
        every_us: windows on the grid of UTC over which values are aggregated; 0 gives samples.
        aggregate: of OPC 10000-13, such as Average; empty for samples.
        rows_max: how many rows in all.
        samples_min: a window with fewer samples is not given: it would tell single values. Left out of
            what is signed when it is 0, as in contracts from before there was one.
        nonce: makes two contracts of the same terms two.
        offerer_key, partner_key: name of the key that signs. offerer_pem, partner_pem: that key.
    """

    offerer: str
    partner: str
    purpose: str
    tags: tuple[tuple[str, int], ...]
    from_us: int
    until_us: int
    data_from_us: int
    data_until_us: int
    every_us: int
    aggregate: str
    rows_max: int
    nonce: str
    offerer_key: str
    offerer_pem: str
    partner_key: str
    partner_pem: str
    samples_min: int = 0

    def digest(self, part: Literal["offer", "acceptance"]) -> str:
        """What one of the two signs."""
        body = b"headrace sharing " + part.encode() + b"\n" + msgspec.json.encode(self)
        return hashlib.sha256(body).hexdigest()

    def check(self) -> Terms:
        """The terms themselves when they make sense.

        Raises:
            Misconfigured: SEC-1730 when not.
        """
        wrong = [
            what
            for what, is_wrong in (
                ("it names no tags", not self.tags),
                ("a tag is named twice", len({path for path, _ in self.tags}) < len(self.tags)),
                ("it ends before it begins", self.until_us <= self.from_us),
                ("its data end before they begin", self.data_until_us <= self.data_from_us),
                ("it allows no rows", self.rows_max < 1),
                ("windows are below zero", self.every_us < 0),
                ("it aggregates without windows, or not at all", bool(self.every_us) != bool(self.aggregate)),
                ("samples_min is below zero", self.samples_min < 0),
                ("it asks for samples_min without windows", self.samples_min > 0 and not self.every_us),
                ("it has no purpose", not self.purpose.strip()),
                ("both sides have one key", self.offerer_key == self.partner_key),
            )
            if is_wrong
        ]  # fmt: skip
        if wrong:
            raise Misconfigured(
                "SEC-1730", f"the contract cannot be: {'; '.join(wrong)}", "Correct its terms."
            )
        return self


class SharingContract(msgspec.Struct, frozen=True, kw_only=True):
    """Terms with the signatures of both; base64, empty where one is still to come."""

    terms: Terms
    offerer_signature: str = ""
    partner_signature: str = ""

    @property
    def id(self) -> str:
        """Its name: part of the digest of its terms."""
        return self.terms.digest("offer")[:16]

    def check_signatures(self) -> SharingContract:
        """The contract itself when both signed these terms.

        Raises:
            Corrupt: SEC-1731 when a signature does not fit.
        """
        terms = self.terms.check()
        for who, part, key, pem, signature in (
            (terms.offerer, "offer", terms.offerer_key, terms.offerer_pem, self.offerer_signature),
            (terms.partner, "acceptance", terms.partner_key, terms.partner_pem, self.partner_signature),
        ):  # fmt: skip
            digest = terms.digest("offer" if part == "offer" else "acceptance")
            if not is_signed_by(pem.encode(), key, digest, signature):
                raise Corrupt(
                    "SEC-1731",
                    f"contract {self.id} is not signed by {who}",
                    "Somebody changed it, or it was not signed yet: headrace share sign FILE",
                )
        return self


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a contract: when it was revoked (0: not), and rows that were read."""

    revoked_us: int = 0
    rows_used: int = 0


def sign_offer(terms: Terms, keys: AuditKeys) -> SharingContract:
    """The offerer's contract, for the partner to sign.

    Raises:
        Misconfigured: SEC-1730 for terms that cannot be.
    """
    return SharingContract(terms=terms.check(), offerer_signature=keys.sign(terms.digest("offer")))


def sign_partner(contract: SharingContract, keys: AuditKeys) -> SharingContract:
    """The same with the partner's signature.

    Raises:
        Misconfigured: SEC-1730 when the contract is made for another key.
        Corrupt: SEC-1731 when the offer's own signature does not fit.
    """
    if keys.name != contract.terms.partner_key:
        raise Misconfigured(
            "SEC-1730",
            f"contract {contract.id} is for the key {contract.terms.partner_key[:16]}, "
            f"not for {keys.name[:16]}",
            "Give the offerer what this prints: headrace audit key",
        )
    signature = keys.sign(contract.terms.digest("acceptance"))
    return msgspec.structs.replace(contract, partner_signature=signature).check_signatures()


def state_of(contract: SharingContract, standing: Standing, now_us: int) -> State:
    """The state at a moment; ``until`` itself is over."""
    terms = contract.terms
    if not contract.partner_signature:
        return "offered"
    if standing.revoked_us:
        return "revoked"
    if now_us >= terms.until_us:
        return "expired"
    if standing.rows_used >= terms.rows_max:
        return "exhausted"
    return "active" if now_us >= terms.from_us else "signed"
