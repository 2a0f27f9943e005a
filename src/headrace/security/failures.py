"""Failed sign-ins in the metadata database, so that no console gives free tries of its own."""

from __future__ import annotations

from sqlalchemy import ColumnElement, delete, insert, select
from sqlalchemy.engine import Engine

from headrace.model.time import US_PER_S
from headrace.security.brake import FORGET_S, PAIRS_MAX
from headrace.security.database import writing
from headrace.security.tables import FAILURE


class StoredFailures:
    """Failed sign-ins of all consoles of an installation, so that none gives free tries of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def get(self, pair: tuple[str, str]) -> tuple[int, int]:
        """(count, UTC microseconds of the last one); (0, 0) when there was none."""
        query = select(FAILURE.c.count, FAILURE.c.last_us).where(*_is_pair(pair))
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        return (0, 0) if row is None else (row[0], row[1])

    def put(self, pair: tuple[str, str], count: int, last_us: int) -> None:
        """Keep a count; the oldest pairs beyond the bound are forgotten."""
        oldest = (
            select(FAILURE.c.last_us)
            .order_by(FAILURE.c.last_us.desc())
            .offset(PAIRS_MAX - 1)
            .limit(1)
            .scalar_subquery()
        )
        forgotten = last_us - int(FORGET_S * US_PER_S)
        with writing(self._engine) as connection:
            connection.execute(delete(FAILURE).where(*_is_pair(pair)))
            connection.execute(
                delete(FAILURE).where(
                    (FAILURE.c.last_us < forgotten) | (FAILURE.c.last_us <= oldest)
                )
            )
            row = {"name": pair[0], "address": pair[1][:64], "count": count, "last_us": last_us}
            connection.execute(insert(FAILURE).values(row))

    def drop(self, pair: tuple[str, str]) -> None:
        """Forget a pair."""
        with writing(self._engine) as connection:
            connection.execute(delete(FAILURE).where(*_is_pair(pair)))


def _is_pair(pair: tuple[str, str]) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return (FAILURE.c.name == pair[0], FAILURE.c.address == pair[1][:64])
