"""Users, their sessions and their tokens, in the metadata database.

Passwords are kept as argon2id hashes (RFC 9106), sessions and tokens as hashes of random secrets.
There is no default password: the first admin gets a random one, once per data folder, and must
replace it at the first sign-in.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, cast

from sqlalchemy import Executable, delete, event, func, insert, select, update
from sqlalchemy.engine import Engine, ExceptionContext, Row
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError

from headrace.model.errors import Misconfigured, Refused, Transient
from headrace.model.folder import DataFolder
from headrace.model.ids import check_name
from headrace.model.time import US_PER_S, Clock, SystemClock
from headrace.security.actors import Actors, grants_of, grants_text
from headrace.security.audit import AuditChain
from headrace.security.database import TABLES, is_shared, metadata_url, open_engine, writing
from headrace.security.factors import Factors, FactorState
from headrace.security.grants import Grants
from headrace.security.lanes import SignInLanes
from headrace.security.passwords import Passwords, check_password
from headrace.security.receipts import Receipts
from headrace.security.rights import ROLES, Actor, Grant, Role, lesser_role
from headrace.security.sessions import FRESH_S, ID_LENGTH, Sessions, Stage
from headrace.security.settings import load_settings
from headrace.security.sharing.book import SharingBook
from headrace.security.sign_in import Origin, SignIns
from headrace.security.signatures import Releases
from headrace.security.tables import LINK, TOKEN, USER
from headrace.security.tokens import (
    ACTOR_PREFIX,
    TOKEN_PREFIX,
    new_token,
    one_time_password,
    token_hash,
)

PATIENCE_S: Final = 5.0
NAMES_MAX: Final = 100
LANGUAGES: Final = ("en", "zh")
SYSTEM: Final = "system"
NO_PASSWORD: Final = "!"
SigningWay = Literal["password", "code", "provider"]
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


@dataclass(frozen=True)
class LinkedPerson:
    """Who an OpenID provider vouches for, with role and grants of the groups.

    Attributes:
        issuer, subject: the provider and its own, never reused name for the person.
        name: what the user is called here when it is still free.
        auth_us: when the provider asked who it is, UTC microseconds; 0 when it does not say.
    """

    issuer: str
    subject: str
    name: str
    role: Role
    grants: tuple[Grant, ...] = ()
    auth_us: int = 0


def open_metadata(folder: DataFolder) -> Engine:
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
        if not is_shared(folder):
            folder.metadata_file.chmod(0o600)
    else:
        event.listen(engine, "handle_error", _when_away)
    return engine


@contextmanager
def opened_chain(folder: DataFolder, clock: Clock | None = None) -> Iterator[AuditChain]:
    """The audit chain of a data folder alone, for those who only tell what they do: no password is hashed.

    Raises:
        Transient: SEC-1202 when a shared database does not answer.
    """
    engine = open_metadata(folder)
    try:
        yield AuditChain(engine, folder.audit, clock or SystemClock())
    finally:
        engine.dispose()


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
        sessions, factors, ways: sessions, second factors, and the ways in.
        lanes: where hashing passwords is done, bounded.
        settings: of ``headrace.toml``.
        receipts: who read which data, in that chain. sharing: contracts with partners.
        grants: roles that count for parts of the site. releases: signatures and approvals.

    Raises:
        Transient: SEC-1202 when a shared database does not answer; every call may raise it.
    """

    def __init__(self, folder: DataFolder, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._engine = open_metadata(folder)
        self.audit = AuditChain(self._engine, folder.audit, self._clock)
        self.actors = Actors(self._engine, self.audit, self._clock)
        self.receipts = Receipts(self.audit, self._clock)
        self.sharing = SharingBook(self.audit, self._clock)
        self.grants = Grants(self._engine, self.audit, self._clock)
        self.releases = Releases(self._engine, self.audit, self._clock)
        self.settings = load_settings(folder).identity
        self.lanes = SignInLanes()
        self.factors = Factors(self._engine, self._clock, folder.identity)
        self.sessions = Sessions(self._engine, self._clock, self.settings)
        self._passwords = Passwords()
        shared = (self._engine, self.audit, self._clock, self._passwords)
        self.ways = SignIns(*shared, self.sessions, self.factors)
        for role in self.settings.second_factor_roles:
            _check_role(role)

    def close(self) -> None:
        """Close the database; sign-ins that wait are given up."""
        self.lanes.close()
        self._engine.dispose()

    # users

    def add_user(
        self, name: str, role: Role, password: str | None = None, *, by: str = SYSTEM
    ) -> str:
        """Add a user; gives the password, a one-time one when none was given.

        Raises:
            Misconfigured: SEC-1005 or SEC-1034 a password that is not taken, SEC-1006 the name is
                taken, SEC-1008 no such role, MODEL-1002 not a name.
        """
        check_name(name, "user")
        _check_role(role)
        if password is not None:
            check_password(password, name)
        secret = password or one_time_password()
        row = {
            "name": name,
            "role": role,
            "password_hash": self._passwords.hash(secret),
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
            self.end_sessions(name, by=by)

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
        values = {"password_hash": self._passwords.hash(secret), "must_change": True}
        self._change(name, by, "user.reset_password", values)
        self.end_sessions(name, by=by)
        return secret

    def change_password(self, name: str, old: str, new: str) -> None:
        """Replace one's own password; all sessions of the user end.

        Raises:
            Refused: SEC-1001 when ``old`` is wrong. Transient: SEC-1002 after too many tries.
            Misconfigured: SEC-1005 when ``new`` is too short, holds the name, or is the old one,
                SEC-1034 when attackers try it first.
        """
        row = self.ways.check_password(name, old, Origin(f"change/{name}"))
        check_password(new, name, has_factor=self.factors.state(row.id).has_second)
        if new == old:
            raise Misconfigured("SEC-1005", "the new password is the old one", "Choose another.")
        values = {"password_hash": self._passwords.hash(new), "must_change": False}
        self._change(name, name, "user.change_password", values)
        self.end_sessions(name, by=name)

    def set_preferences(self, name: str, *, language: str = "", theme: str = "") -> None:
        """Keep a user's language (en, zh) and theme (auto, light, dark); others are left out."""
        values = {}
        if language in LANGUAGES:
            values["language"] = language
        if theme in THEMES:
            values["theme"] = theme
        if values:
            self._known(name)
            with writing(self._engine) as connection:
                connection.execute(update(USER).where(USER.c.name == name).values(**values))

    # sessions

    def sign_in(
        self, name: str, password: str, address: str, *, agent: str = "", device: str = ""
    ) -> str:
        """Check name and password and open a session; gives its secret for the cookie.

        Where a second factor is to come, the session is nobody's yet: see :meth:`stage_of`.

        Args:
            address: where the request came from, for the brake.
            agent: what the browser calls itself. device: its device secret, if it has one.

        Raises:
            Transient: SEC-1002 after too many failures of this name from this place.
            Refused: SEC-1001 for a wrong name or password, or a closed account.
        """
        return self.ways.by_password(name, password, Origin(address, agent, device))[0]

    def stage_of(self, secret: str) -> Stage | None:
        """What a session still needs: "" nothing, ``code``, ``enrol``; None when it is none."""
        stages: tuple[Stage, ...] = ("", "code", "enrol")
        return next((s for s in stages if self.sessions.row(secret, s) is not None), None)

    def signing_way(self, name: str) -> SigningWay:
        """What somebody gives to sign: a ``password``, with a ``code``, or the ``provider`` is asked."""
        row = self._row(name)
        if row is not None and row.password_hash == NO_PASSWORD:
            return "provider"
        has_code = row is not None and self.factors.state(row.id).has_second
        return "code" if has_code else "password"

    def confirm(
        self, name: str, password: str, address: str, *, code: str = "", session: str = ""
    ) -> None:
        """Let who is signed in show again who it is, with every factor it has, for one signature.

        Args:
            code: of the second factor, where there is one.
            session: secret of the session, for people whom a provider vouches for: it must have
                been asked in the last 5 minutes (see :meth:`asked_again`).

        Raises:
            Transient: SEC-1002 after too many failures of this name from this address.
            Refused: SEC-1001 for a wrong password, or a closed account; SEC-1024, SEC-1025 for the
                code; SEC-1036 for none, SEC-1037 when the provider must be asked again.
        """
        try:
            way = self.signing_way(name)
            if way == "provider":
                self._use_asked(name, session)
            elif way == "code" and not code.strip():
                raise Refused("SEC-1036", "the code is missing", "Type the code of your app too.")
            else:
                self.check_again(name, password, code, address)
        except Refused:
            self.audit.record(name, "sign", f"user/{name}", "denied", address=address)
            raise

    def actor_of_session(self, secret: str) -> Actor | None:
        """Who holds this session; None when it is unknown, over, revoked, or still at a stage."""
        row = self.sessions.row(secret)
        if row is None:
            return None
        factors = frozenset(row.factors.split(","))
        return replace(_actor(row), grants=grants_of(row.grants), factors=factors)

    def is_open(self, name: str) -> bool:
        """Whether a person may still do something: known and not closed."""
        row = self._row(name)
        return row is not None and not row.disabled

    def sign_out(self, secret: str) -> None:
        """End one session."""
        actor = self.actor_of_session(secret)
        if actor is not None:
            self.end_session(actor.name, token_hash(secret), by=actor.name, action="sign_out")

    def end_session(
        self, name: str, id: str, *, by: str = SYSTEM, action: str = "session.revoke"
    ) -> None:
        """End one session of a user, by its id of a list."""
        with self.audit.writing() as connection:
            if self.sessions.end(connection, name, id=id):
                told = {"session": id[:ID_LENGTH]}
                self.audit.append(connection, by, action, f"user/{name}", "done", **told)

    def end_sessions(self, name: str, *, by: str = SYSTEM, but: str = "") -> None:
        """End all sessions of a user, all but that of the secret ``but``."""
        with self.audit.writing() as connection:
            ended = self.sessions.end(connection, name, but=but)
            if ended:
                about = (by, "session.revoke", f"user/{name}")
                self.audit.append(connection, *about, "done", sessions=ended)

    def alive(self, secrets: Collection[str]) -> set[str]:
        """Which of these secrets, of sessions or tokens, still count; for whoever holds a line open."""
        hashes = {
            token_hash(s): s for s in secrets if not s.startswith((TOKEN_PREFIX, ACTOR_PREFIX))
        }
        found = {hashes[h] for h in self.sessions.alive(hashes)} if hashes else set()
        tokens = set(secrets) - set(hashes.values())
        return found | {s for s in tokens if self.actor_of_token(s) is not None}

    # second factors

    def factors_of(self, name: str) -> FactorState:
        """Which second factors a user has."""
        return self.factors.state(self._known(name).id)

    def remove_second_factor(self, name: str, *, by: str = SYSTEM, but: str = "") -> None:
        """Forget a user's second factors and recovery codes; other sessions than ``but`` end.

        Raises:
            Misconfigured: SEC-1006 no such user.
        """
        row = self._known(name)
        with self.audit.writing() as connection:
            self.factors.remove(connection, row.id)
            self.sessions.end(connection, name, but=but)
            self.audit.append(connection, by, "factor.remove", f"user/{name}", "done")

    def check_again(self, name: str, password: str, code: str = "", address: str = "") -> None:
        """Let who is signed in show again who it is: before a signature, or a change of factors.

        Args:
            code: of the second factor; needed where the user has one.

        Raises:
            Refused: SEC-1001 wrong password, SEC-1024 wrong code, SEC-1025 a code used before.
            Transient: SEC-1002 after too many failures.
        """
        origin = Origin(address)
        row = self.ways.check_password(name, password, origin)
        if self.factors.state(row.id).has_second:
            self.ways.check_code(row, code, origin)

    # single sign-on

    def sign_in_linked(self, person: LinkedPerson, origin: Origin) -> str:
        """Open a session for who a provider vouches for; the user is made at the first time.

        The link is the provider's own subject, never the name: nobody becomes a local user by being
        called like one. Role and grants are those of the groups, as of now.

        Raises:
            Refused: SEC-1001 when the account is closed here.
        """
        row = self._linked(person)
        if row is None:
            row = self._make_linked(person)
        if row.disabled:
            raise Refused("SEC-1001", f"the account of {row.name} is closed", "Ask an admin.")
        if row.role != person.role:
            self._change(
                row.name, person.issuer, "user.role", {"role": person.role}, role=person.role
            )
        grants = grants_text(person.grants)
        told = {"issuer": person.issuer}
        return self.ways.open(row.id, row.name, origin, "oidc", grants=grants, **told)

    def asked_again(self, person: LinkedPerson, session: str) -> None:
        """Note that the provider asked the person of a session again who it is; one signature follows.

        Raises:
            Refused: SEC-1037 when it is not the session of this person, or when the provider does not
                say that it asked just now.
        """
        holder, row = self.sessions.row(session), self._linked(person)
        if holder is None or row is None or holder.user_id != row.id:
            raise _ask_again("somebody else came back from the provider")
        now_us = self._clock.now_us()
        if not person.auth_us or abs(now_us - person.auth_us) > FRESH_S * US_PER_S:
            raise _ask_again("the provider does not say that it asked just now who you are")
        with self.audit.writing() as connection:
            self.sessions.freshen(connection, session, min(person.auth_us, now_us))
            told = {"issuer": person.issuer}
            self.audit.append(
                connection, row.name, "sign_in.again", f"user/{row.name}", "done", **told
            )

    def _use_asked(self, name: str, session: str) -> None:
        with writing(self._engine) as connection:
            if not self.sessions.use_fresh(connection, session, name):
                raise _ask_again("your provider was not asked just now who you are")

    def _linked(self, person: LinkedPerson) -> Row[Any] | None:
        query = (
            select(USER)
            .join(LINK, LINK.c.user_id == USER.c.id)
            .where(LINK.c.issuer == person.issuer, LINK.c.subject == person.subject)
        )
        with self._engine.connect() as connection:
            return connection.execute(query).first()

    def _make_linked(self, person: LinkedPerson) -> Row[Any]:
        name = self._free_name(person.name)
        with self.audit.writing() as connection:
            values = {
                "name": name,
                "role": person.role,
                "password_hash": NO_PASSWORD,  # no password: the provider is asked
                "created_us": self._clock.now_us(),
            }
            key = connection.execute(insert(USER).values(values)).inserted_primary_key
            assert key is not None, "an insert of one row"
            link = {"issuer": person.issuer, "subject": person.subject, "user_id": key[0]}
            connection.execute(insert(LINK).values(link))
            about = (person.issuer, "user.add", f"user/{name}")
            self.audit.append(connection, *about, "done", role=person.role, subject=person.subject)
        return self._known(name)

    def _free_name(self, wanted: str) -> str:
        plain = re.sub(r"[^A-Za-z0-9_-]+", "_", wanted.partition("@")[0]).strip("_")[:50] or "user"
        names = [plain, *(f"{plain}-{number}" for number in range(2, NAMES_MAX))]
        for name in names:
            if self._row(name) is None and not self.actors.is_known(name):
                return name
        raise Refused("SEC-1006", f"there are {NAMES_MAX} users like {plain!r}", "Rename some.")

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

        A machine's secret is one too when the machine has grants: without, it has rights at the
        broker only.
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


def _actor(row: Row[Any]) -> Actor:
    return Actor(row.name, row.role, row.must_change, row.language, row.theme)


def _ask_again(what: str) -> Refused:
    remedy = "Open /sso/start?again=1 in this browser, sign in there, then sign within 5 minutes."
    return Refused("SEC-1037", what, remedy)


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise Misconfigured("SEC-1008", f"there is no role {role!r}", f"Use: {', '.join(ROLES)}.")


def ensure_first_admin(folder: DataFolder) -> str | None:
    """Make the user ``admin`` when there is no user; gives the one-time password, else None."""
    identity = Identity(folder)
    try:
        return identity.add_user("admin", "admin") if identity.is_empty() else None
    finally:
        identity.close()
