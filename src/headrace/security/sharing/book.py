"""Contracts in force with their meters and tokens; each change and each read stands in the audit chain."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Column, Table, Text, insert, select, update
from sqlalchemy.engine import Connection, Row

from headrace.model.errors import Misconfigured, Refused
from headrace.model.time import Clock
from headrace.security.audit import AuditChain
from headrace.security.database import TABLES, words
from headrace.security.receipt_rows import TagSet, put_sets
from headrace.security.sharing.contract import SharingContract, Standing, State, state_of
from headrace.security.sharing.enforcement import Granted, SharingRequest, allow
from headrace.security.tokens import new_token, token_hash

TOKEN_PREFIX = "hrs_"
_SHARE = Table(
    "sharing_contract",
    TABLES,
    Column("id", words(16), primary_key=True),
    Column("document", Text, nullable=False),
    Column("token_hash", words(64), nullable=False, unique=True),
    Column("accepted_us", BigInteger, nullable=False),
    Column("revoked_us", BigInteger, nullable=False),
    Column("rows_used", BigInteger, nullable=False),
)


class SharingBook:
    """The offerer's book.

    Args:
        audit: the chain that tells everything; its key signs for the offerer.
        clock: time.
    """

    def __init__(self, audit: AuditChain, clock: Clock) -> None:
        self._audit = audit
        self._clock = clock

    def accept(self, contract: SharingContract, by: str) -> str:
        """Put a contract in force that both signed; gives the partner's token, shown once.

        Raises:
            Corrupt: SEC-1731 for a signature that does not fit.
            Misconfigured: SEC-1730 when it is another one's offer, or was accepted before.
        """
        terms = contract.check_signatures().terms
        if terms.offerer_key != self._audit.keys.name:
            raise Misconfigured(
                "SEC-1730",
                f"contract {contract.id} was not offered here",
                "Accept it at its offerer.",
            )
        secret = TOKEN_PREFIX + new_token()
        row = {
            "id": contract.id,
            "document": msgspec.json.encode(contract).decode(),
            "token_hash": token_hash(secret),
            "accepted_us": self._clock.now_us(),
            "revoked_us": 0,
            "rows_used": 0,
        }
        with self._audit.writing() as connection:
            if self._row(connection, contract.id) is not None:
                raise Misconfigured(
                    "SEC-1730", f"contract {contract.id} was accepted before", "Offer a new one."
                )
            connection.execute(insert(_SHARE).values(row))
            told = {"partner": terms.partner, "purpose": terms.purpose, "tags": len(terms.tags)}
            self._tell(connection, by, "share.accept", contract.id, until_us=terms.until_us, **told)
        return secret

    def revoke(self, name: str, by: str, reason: str) -> None:
        """End a contract now, for good.

        Raises:
            Misconfigured: SEC-1730 when there is none, or it was revoked before.
        """
        with self._audit.writing() as connection:
            row = self._row(connection, name)
            if row is None or row.revoked_us:
                raise Misconfigured(
                    "SEC-1730", f"no contract {name} is in force", "See: headrace share list"
                )
            changed = update(_SHARE).where(_SHARE.c.id == name)
            connection.execute(changed.values(revoked_us=self._clock.now_us()))
            self._tell(connection, by, "share.revoke", name, reason=reason)

    def contracts(self) -> list[tuple[SharingContract, Standing, State]]:
        """All that were accepted, with what became of them."""
        with self._audit.reading() as connection:
            rows = connection.execute(select(_SHARE).order_by(_SHARE.c.accepted_us)).all()
        return [self._read(row) for row in rows]

    def contract(self, name: str) -> tuple[SharingContract, Standing, State]:
        """One of them.

        Raises:
            Misconfigured: SEC-1730 when there is none.
        """
        with self._audit.reading() as connection:
            row = self._row(connection, name)
        if row is None:
            raise Misconfigured(
                "SEC-1730", f"there is no contract {name}", "See: headrace share list"
            )
        return self._read(row)

    def of_token(self, secret: str) -> tuple[SharingContract, Standing, State] | None:
        """The contract that a partner's token opens, whatever its state; None for no token of ours."""
        if not secret.startswith(TOKEN_PREFIX):
            return None
        with self._audit.reading() as connection:
            query = select(_SHARE).where(_SHARE.c.token_hash == token_hash(secret))
            row = connection.execute(query).first()
        return None if row is None else self._read(row)

    def grant(self, name: str, request: SharingRequest) -> Granted:
        """What a contract grants of a request; its rows are taken from the meter here.

        Raises:
            Refused, Misconfigured: SEC-1732 to SEC-1735; refusals are told too.
        """
        now_us = self._clock.now_us()
        try:
            with self._audit.writing() as connection:
                contract, standing, _ = self._read(self._known(connection, name))
                granted = allow(contract, standing, request, now_us)
                self._meter(connection, name, granted.rows)
                return granted
        except (Refused, Misconfigured) as error:
            if error.code != "SEC-1732":
                with self._audit.writing() as connection:
                    partner = self._read(self._known(connection, name))[0].terms.partner
                    about = (f"partner:{partner}", "share.read", f"share/{name}", "denied")
                    self._audit.append(connection, *about, code=error.code, what=error.what)  # type: ignore[arg-type] # an outcome
            raise

    def settle(self, name: str, granted: Granted, rows: int, content: bytes, door: str) -> None:
        """Tell a read before its answer leaves, and give back to the meter what was not read.

        Raises:
            Refused: SEC-1732 when the contract was revoked or ended meanwhile; do not give it then.
        """
        with self._audit.writing() as connection:
            contract, _, state = self._read(self._known(connection, name))
            if state not in ("active", "exhausted"):
                raise Refused(
                    "SEC-1732", f"sharing contract {name} is {state}", "Nothing was given."
                )
            self._meter(connection, name, rows - granted.rows)
            tags = TagSet.of(granted.tag_ids)
            put_sets(connection, [tags])
            self._tell(
                connection,
                f"partner:{contract.terms.partner}",
                "share.read",
                name,
                door=door,
                rows=rows,
                tags=len(granted.tag_ids),
                tag_set=tags.digest,
                start_us=granted.start_us,
                end_us=granted.end_us,
                every_us=granted.every_us,
                sha256=hashlib.sha256(content).hexdigest(),
            )

    def give_back(self, name: str, rows: int) -> None:
        """Rows that were granted and of which none was there."""
        with self._audit.writing() as connection:
            self._meter(connection, name, -rows)

    def check(self, name: str) -> None:
        """Pass while a contract may be read.

        Raises:
            Refused: SEC-1732 when it is not.
        """
        with self._audit.reading() as connection:
            _, _, state = self._read(self._known(connection, name))
        if state != "active":
            raise Refused("SEC-1732", f"sharing contract {name} is {state}", "Ask its offerer.")

    def _meter(self, connection: Connection, name: str, rows: int) -> None:
        counted = update(_SHARE).where(_SHARE.c.id == name)
        connection.execute(counted.values(rows_used=_SHARE.c.rows_used + rows))

    def _tell(self, connection: Connection, by: str, action: str, name: str, **facts: Any) -> None:
        self._audit.append(connection, by, action, f"share/{name}", "done", **facts)

    def _row(self, connection: Connection, name: str) -> Row[Any] | None:
        return connection.execute(select(_SHARE).where(_SHARE.c.id == name)).first()

    def _known(self, connection: Connection, name: str) -> Row[Any]:
        row = self._row(connection, name)
        if row is None:
            raise Refused("SEC-1732", f"there is no sharing contract {name}", "Ask its offerer.")
        return row

    def _read(self, row: Row[Any]) -> tuple[SharingContract, Standing, State]:
        """A contract from the database, which somebody may have edited: the signatures count.

        Raises:
            Corrupt: SEC-1731 when it is not what both signed.
        """
        contract = msgspec.json.decode(row.document, type=SharingContract).check_signatures()
        standing = Standing(revoked_us=row.revoked_us, rows_used=row.rows_used)
        return contract, standing, state_of(contract, standing, self._clock.now_us())
