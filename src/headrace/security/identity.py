"""Users, their sessions and their tokens, in the metadata database.

Passwords are kept as argon2id hashes (RFC 9106), sessions and tokens as hashes of random secrets.
There is no default password: the first admin gets a random one, once per data folder, and must
replace it at the first sign-in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, cast

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import (
    ColumnElement,
    Executable,
    delete,
    event,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.engine import Engine, ExceptionContext, Row
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError

from headrace.model.errors import Misconfigured, Refused, Transient
from headrace.model.folder import DataFolder
from headrace.model.ids import check_name
from headrace.model.time import US_PER_S, Clock, SystemClock
from headrace.security.actors import Actors
from headrace.security.audit import AuditChain
from headrace.security.brake import FORGET_S, PAIRS_MAX, SignInBrake
from headrace.security.database import TABLES, metadata_url, open_engine
from headrace.security.grants import Grants
from headrace.security.policy import ROLES, Actor, Role, lesser_role
from headrace.security.receipts import Receipts
from headrace.security.sharing.book import SharingBook
from headrace.security.signatures import Releases
from headrace.security.tables import FAILURE, SESSION, TOKEN, USER
from headrace.security.tokens import (
    ACTOR_PREFIX,
    TOKEN_PREFIX,
    new_token,
    one_time_password,
    token_hash,
)

PATIENCE_S: Final = 5.0
SESSION_S: Final = 12 * 3600
PASSWORD_LENGTH_MIN: Final = 10
PASSWORD_LENGTH_MAX: Final = 256
SESSIONS_PER_USER_MAX: Final = 50
LANGUAGES: Final = ("en", "zh")
SYSTEM: Final = "system"
THEMES: Final = ("auto", "light", "dark")


@dataclass(frozen=True)
class User:
    """One user as lists show it; never with a secret."""

    name: str
    role: Role
    must_change: bool
    disabled: bool
    created_us: int


@dataclass(frozen=True)
class Token:
    """One REST token as lists show it; ``expires_us`` is UTC microseconds."""

    id: int
    title: str
    user: str
    role: Role
    created_us: int
    expires_us: int


def _open(folder: DataFolder) -> Engine:
    """The database with our tables, for this user alone where it is a file.

    Raises:
        Transient: SEC-1202 when a shared database does not answer.
    """
    folder.root.mkdir(parents=True, exist_ok=True)
    try:
        engine = open_engine(metadata_url(folder), TABLES, PATIENCE_S)
    except OperationalError as error:
        if folder.metadata_file.exists():
            raise
        raise _away(error) from error
    if engine.dialect.name == "sqlite":
        folder.metadata_file.chmod(0o600)
    else:
        event.listen(engine, "handle_error", _when_away)
    return engine


def _when_away(context: ExceptionContext) -> None:
    if isinstance(context.sqlalchemy_exception, OperationalError | InterfaceError):
        raise _away(context.sqlalchemy_exception)


def _away(error: DBAPIError) -> Transient:
    return Transient(
        "SEC-1202",
        f"the metadata database does not answer: {str(error.orig).splitlines()[0]}",
        "See whether it runs; it is tried again at each request.",
    )


class Identity:
    """The users of one installation.

    Args:
        folder: its data folder; the tables are made when they are not there.
        clock: for expiry and for the sign-in brake.

    Attributes:
        audit: the audit chain, in which each change of a user stands with who asked for it (``by``).
        actors: those that are no persons, and the list of all.
        receipts: who read which data, in that chain. sharing: contracts with partners.
        grants: roles that count for parts of the site. releases: signatures and approvals.

    Raises:
        Transient: SEC-1202 when a shared database does not answer; every call may raise it.
    """

    def __init__(self, folder: DataFolder, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._engine = _open(folder)
        self.audit = AuditChain(self._engine, folder.audit, self._clock)
        self.actors = Actors(self._engine, self.audit, self._clock)
        self.receipts = Receipts(self.audit, self._clock)
        self.sharing = SharingBook(self.audit, self._clock)
        self.grants = Grants(self._engine, self.audit, self._clock)
        self.releases = Releases(self._engine, self.audit, self._clock)
        self._hasher = PasswordHasher()
        # Verified for unknown names, so that the answer's time does not tell which names exist.
        self._nobody_hash = self._hasher.hash(new_token())
        self._brake = SignInBrake(self._clock, _Failures(self._engine))

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()

    # users

    def add_user(
        self, name: str, role: Role, password: str | None = None, *, by: str = SYSTEM
    ) -> str:
        """Add a user; gives the password, a one-time one when none was given.

        Raises:
            Misconfigured: SEC-1005 password too short, SEC-1006 the name is taken, SEC-1008 no such
                role, MODEL-1002 not a name.
        """
        check_name(name, "user")
        _check_role(role)
        secret = password or one_time_password()
        _check_password(secret, name)
        row = {
            "name": name,
            "role": role,
            "password_hash": self._hasher.hash(secret),
            "must_change": password is None,
            "created_us": self._clock.now_us(),
        }
        if self.actors.is_known(name):
            raise Misconfigured("SEC-1006", f"there is an actor {name!r}", "Choose another name.")
        try:
            self._tell(insert(USER).values(row), by, "user.add", name, role=role)
        except IntegrityError as error:
            raise Misconfigured(
                "SEC-1006", f"there is a user {name!r} already", "Choose another name."
            ) from error
        return secret

    def users(self) -> list[User]:
        """All users, by name."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(USER).order_by(USER.c.name)).all()
        return [User(r.name, r.role, r.must_change, r.disabled, r.created_us) for r in rows]

    def is_empty(self) -> bool:
        """True before the first user."""
        with self._engine.connect() as connection:
            return connection.execute(select(func.count()).select_from(USER)).scalar_one() == 0

    def set_role(self, name: str, role: Role, *, by: str = SYSTEM) -> None:
        """Give a user another role.

        Raises:
            Refused: SEC-1009 when that would leave no admin.
        """
        _check_role(role)
        if role != "admin":
            self._keep_one_admin(name)
        self._change(name, by, "user.role", {"role": role}, role=role)

    def set_disabled(self, name: str, disabled: bool, *, by: str = SYSTEM) -> None:
        """Close or open an account; closing ends its sessions.

        Raises:
            Refused: SEC-1009 when that would leave no admin.
        """
        if disabled:
            self._keep_one_admin(name)
        self._change(name, by, "user.close" if disabled else "user.reopen", {"disabled": disabled})
        if disabled:
            self.end_sessions(name)

    def set_actor_disabled(self, name: str, disabled: bool, *, by: str = SYSTEM) -> None:
        """Stop any actor at once, or let it go on: a person with all sessions, or a machine.

        Raises:
            Misconfigured: SEC-1023 no such actor.
            Refused: SEC-1009 when that would leave no admin.
        """
        if self._row(name) is None:
            self.actors.disable(name, disabled, by=by)
        else:
            self.set_disabled(name, disabled, by=by)

    def reset_password(self, name: str, *, by: str = SYSTEM) -> str:
        """A new one-time password for a user, whose sessions end."""
        secret = one_time_password()
        values = {"password_hash": self._hasher.hash(secret), "must_change": True}
        self._change(name, by, "user.reset_password", values)
        self.end_sessions(name)
        return secret

    def change_password(self, name: str, old: str, new: str) -> None:
        """Replace one's own password; all sessions of the user end.

        Raises:
            Refused: SEC-1001 when ``old`` is wrong.
            Misconfigured: SEC-1005 when ``new`` is too short, holds the name, or is the old one.
        """
        row = self._row(name)
        if row is None or not self._verify(row.password_hash, old):
            raise Refused("SEC-1001", "the present password is wrong", "Type it again.")
        _check_password(new, name)
        if new == old:
            raise Misconfigured("SEC-1005", "the new password is the old one", "Choose another.")
        values = {"password_hash": self._hasher.hash(new), "must_change": False}
        self._change(name, name, "user.change_password", values)
        self.end_sessions(name)

    def set_preferences(self, name: str, *, language: str = "", theme: str = "") -> None:
        """Keep a user's language (en, zh) and theme (auto, light, dark); others are left out."""
        values = {}
        if language in LANGUAGES:
            values["language"] = language
        if theme in THEMES:
            values["theme"] = theme
        if values:
            self._known(name)
            with self._engine.begin() as connection:
                connection.execute(update(USER).where(USER.c.name == name).values(**values))

    # sessions

    def sign_in(self, name: str, password: str, address: str) -> str:
        """Check name and password and open a session; gives its secret for the cookie.

        Args:
            address: where the request came from, for the brake.

        Raises:
            Transient: SEC-1002 after too many failures of this name from this address.
            Refused: SEC-1001 for a wrong name or password, or a closed account.
        """
        name = name.strip()[:64]
        self._brake.check(name, address)
        row = self._row(name)
        known = row.password_hash if row is not None else self._nobody_hash
        if not self._verify(known, password) or row is None or row.disabled:
            count = self._brake.failed(name, address)
            if count.bit_count() == 1:  # the 1st, 2nd, 4th...: guessing does not flood the chain
                self.audit.record(
                    name, "sign_in", f"user/{name}", "denied", address=address, tries=count
                )
            raise Refused("SEC-1001", "the name or the password is wrong", "Type both again.")
        self._brake.succeeded(name, address)
        return self._open_session(row.id, name, address)

    def confirm(self, name: str, password: str, address: str) -> None:
        """Check the password of somebody who is signed in, again, for a signature.

        Raises:
            Transient: SEC-1002 after too many failures of this name from this address.
            Refused: SEC-1001 for a wrong password, or a closed account.
        """
        self._brake.check(name, address)
        row = self._row(name)
        if row is None or row.disabled or not self._verify(row.password_hash, password):
            self._brake.failed(name, address)
            self.audit.record(name, "sign", f"user/{name}", "denied", address=address)
            raise Refused("SEC-1001", "the password is wrong", "Type it again.")
        self._brake.succeeded(name, address)

    def actor_of_session(self, secret: str) -> Actor | None:
        """Who holds this session; None when it is unknown, over or revoked."""
        if not secret:
            return None
        query = (
            select(USER)
            .join(SESSION, SESSION.c.user_id == USER.c.id)
            .where(SESSION.c.token_hash == token_hash(secret))
            .where(SESSION.c.expires_us > self._clock.now_us())
            .where(USER.c.disabled.is_(False))
        )
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        return None if row is None else _actor(row)

    def sign_out(self, secret: str) -> None:
        """End one session."""
        actor = self.actor_of_session(secret)
        ended = delete(SESSION).where(SESSION.c.token_hash == token_hash(secret))
        if actor is not None:
            told = {"session": token_hash(secret)[:12]}
            self._tell(ended, actor.name, "sign_out", actor.name, **told)

    def end_sessions(self, name: str) -> None:
        """End all sessions of a user."""
        owner = select(USER.c.id).where(USER.c.name == name).scalar_subquery()
        with self._engine.begin() as connection:
            connection.execute(delete(SESSION).where(SESSION.c.user_id == owner))

    # tokens

    def add_token(
        self,
        name: str,
        title: str,
        *,
        days: int = 365,
        role: Role = "viewer",
        by: str = SYSTEM,
    ) -> str:
        """A bearer token for REST; shown once. It never has more rights than its user.

        Raises:
            Misconfigured: SEC-1006 no such user, SEC-1008 no such role.
        """
        _check_role(role)
        row = self._known(name)
        secret = new_token(TOKEN_PREFIX)
        now_us = self._clock.now_us()
        values = {
            "token_hash": token_hash(secret),
            "user_id": row.id,
            "title": title.strip()[:80] or "token",
            "role": role,
            "created_us": now_us,
            "expires_us": now_us + days * 86_400 * US_PER_S,
        }
        told = {"title": values["title"], "token_role": role, "days": days}
        self._tell(insert(TOKEN).values(values), by, "token.add", name, **told)
        return secret

    def tokens(self, name: str | None = None) -> list[Token]:
        """Tokens that are valid now, of one user or of all."""
        query = (
            select(TOKEN, USER.c.name.label("user"))
            .join(USER, TOKEN.c.user_id == USER.c.id)
            .where(TOKEN.c.expires_us > self._clock.now_us())
            .order_by(TOKEN.c.id)
        )
        if name is not None:
            query = query.where(USER.c.name == name)
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return [Token(r.id, r.title, r.user, r.role, r.created_us, r.expires_us) for r in rows]

    def revoke_token(self, token_id: int, name: str | None = None, *, by: str = SYSTEM) -> None:
        """Make a token worthless at once; with ``name`` only when it is that user's."""
        query = delete(TOKEN).where(TOKEN.c.id == token_id)
        if name is not None:
            owner = select(USER.c.id).where(USER.c.name == name).scalar_subquery()
            query = query.where(TOKEN.c.user_id == owner)
        self._tell(query, by, "token.revoke", name or "", token=token_id)

    def actor_of_token(self, secret: str) -> Actor | None:
        """Who holds this bearer token, with the smaller of the user's and the token's role.

        A machine's secret is one too, when the machine has grants: without any it has rights only at
        the broker.
        """
        if secret.startswith(ACTOR_PREFIX):
            found = self.actors.of_secret(secret)
            return found if found is not None and found.grants else None
        query = (
            select(USER, TOKEN.c.role.label("token_role"))
            .join(TOKEN, TOKEN.c.user_id == USER.c.id)
            .where(TOKEN.c.token_hash == token_hash(secret))
            .where(TOKEN.c.expires_us > self._clock.now_us())
            .where(USER.c.disabled.is_(False))
        )
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        actor = _actor(row)
        role = lesser_role(actor.role, cast(Role, row.token_role))
        return replace(actor, role=role)

    # private

    def _row(self, name: str) -> Row[Any] | None:
        with self._engine.connect() as connection:
            return connection.execute(select(USER).where(USER.c.name == name)).first()

    def _known(self, name: str) -> Row[Any]:
        row = self._row(name)
        if row is None:
            raise Misconfigured(
                "SEC-1006", f"there is no user {name!r}", "List them with: headrace user list"
            )
        return row

    def _change(self, name: str, by: str, action: str, values: dict[str, Any], **told: Any) -> None:
        self._known(name)
        changed = update(USER).where(USER.c.name == name).values(**values)
        self._tell(changed, by, action, name, **told)

    def _tell(self, change: Executable, by: str, action: str, name: str, **told: Any) -> None:
        """Make a change and the entry of the audit chain that tells it: both, or neither."""
        with self.audit.writing() as connection:
            connection.execute(change)
            self.audit.append(connection, by, action, f"user/{name}", "done", **told)

    def _keep_one_admin(self, name: str) -> None:
        admins = [u.name for u in self.users() if u.role == "admin" and not u.disabled]
        if admins == [name]:
            raise Refused("SEC-1009", f"{name} is the only admin", "Make another admin first.")

    def _verify(self, known: str, password: str) -> bool:
        try:
            return self._hasher.verify(known, password[:PASSWORD_LENGTH_MAX])
        except (VerificationError, InvalidHashError):
            return False

    def _open_session(self, user_id: int, name: str, address: str) -> str:
        secret = new_token()
        now_us = self._clock.now_us()
        newest = (
            select(SESSION.c.token_hash)
            .where(SESSION.c.user_id == user_id)
            .order_by(SESSION.c.created_us.desc())
            .limit(SESSIONS_PER_USER_MAX - 1)
        )
        old = delete(SESSION).where(
            (SESSION.c.expires_us <= now_us)
            | ((SESSION.c.user_id == user_id) & SESSION.c.token_hash.not_in(newest))
        )
        row: dict[str, Any] = {
            "token_hash": token_hash(secret),
            "user_id": user_id,
            "created_us": now_us,
            "expires_us": now_us + SESSION_S * US_PER_S,
            "seen_us": now_us,
            "address": address[:64],
        }
        with self.audit.writing() as connection:
            connection.execute(old)
            connection.execute(insert(SESSION).values(row))
            told = {"address": address, "session": row["token_hash"][:12]}
            self.audit.append(connection, name, "sign_in", f"user/{name}", "done", **told)
        return secret


class _Failures:
    """Failed sign-ins of all consoles of an installation, so that none gives free tries of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def get(self, pair: tuple[str, str]) -> tuple[int, int]:
        query = select(FAILURE.c.count, FAILURE.c.last_us).where(*_is_pair(pair))
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        return (0, 0) if row is None else (row[0], row[1])

    def put(self, pair: tuple[str, str], count: int, last_us: int) -> None:
        oldest = (
            select(FAILURE.c.last_us)
            .order_by(FAILURE.c.last_us.desc())
            .offset(PAIRS_MAX - 1)
            .limit(1)
            .scalar_subquery()
        )
        forgotten = last_us - int(FORGET_S * US_PER_S)
        with self._engine.execution_options(immediate=True).begin() as connection:
            connection.execute(delete(FAILURE).where(*_is_pair(pair)))
            connection.execute(
                delete(FAILURE).where(
                    (FAILURE.c.last_us < forgotten) | (FAILURE.c.last_us <= oldest)
                )
            )
            row = {"name": pair[0], "address": pair[1][:64], "count": count, "last_us": last_us}
            connection.execute(insert(FAILURE).values(row))

    def drop(self, pair: tuple[str, str]) -> None:
        with self._engine.begin() as connection:
            connection.execute(delete(FAILURE).where(*_is_pair(pair)))


def _is_pair(pair: tuple[str, str]) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return (FAILURE.c.name == pair[0], FAILURE.c.address == pair[1][:64])


def _actor(row: Row[Any]) -> Actor:
    return Actor(row.name, row.role, row.must_change, row.language, row.theme)


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise Misconfigured("SEC-1008", f"there is no role {role!r}", f"Use: {', '.join(ROLES)}.")


def _check_password(password: str, name: str) -> None:
    if not PASSWORD_LENGTH_MIN <= len(password) <= PASSWORD_LENGTH_MAX:
        raise Misconfigured(
            "SEC-1005",
            f"the new password has {len(password)} characters",
            f"Use {PASSWORD_LENGTH_MIN} to {PASSWORD_LENGTH_MAX}; a short sentence is good.",
        )
    if name.lower() in password.lower():
        raise Misconfigured("SEC-1005", "the new password holds the name", "Choose another.")


def ensure_first_admin(folder: DataFolder) -> str | None:
    """Make the user ``admin`` when there is no user; gives the one-time password, else None."""
    identity = Identity(folder)
    try:
        return identity.add_user("admin", "admin") if identity.is_empty() else None
    finally:
        identity.close()
