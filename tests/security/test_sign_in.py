"""The way in: second factors, stages, sessions, lanes and brakes against who wants to lock others out."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pyotp
import pytest
from argon2 import PasswordHasher
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.errors import Corrupt, Misconfigured, Refused, Transient
from headrace.model.folder import DataFolder
from headrace.model.time import US_PER_S, ManualClock
from headrace.security import passwords
from headrace.security.brake import FORGET_S
from headrace.security.identity import Identity
from headrace.security.lanes import PER_ADDRESS_MAX, Lane, network_of
from headrace.security.passwords import check_password
from headrace.security.policy import Grant
from headrace.security.sessions import TRIES_MAX
from headrace.security.sign_in import DEVICES_MAX, FREE_TRIES_OF_PLACE, Origin
from waiting import until

GOOD = "a long enough phrase"
HERE = Origin("10.0.0.7", "Firefox/1")


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what is tried here, and each takes 64 MiB."""
    cheap = partial(PasswordHasher, time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(passwords, "PasswordHasher", cheap)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def make(folder: Path, clock: ManualClock, settings: str = "") -> Identity:
    (folder / "headrace.toml").write_text(settings)
    identity = Identity(DataFolder(folder), clock)
    if identity.is_empty():
        identity.add_user("boss", "admin", GOOD)
        identity.add_user("mia", "operator", GOOD)
    return identity


@pytest.fixture
def identity(tmp_path: Path, clock: ManualClock) -> Iterator[Identity]:
    store = make(tmp_path, clock)
    yield store
    store.close()


def enrol(
    identity: Identity, clock: ManualClock, name: str = "mia"
) -> tuple[pyotp.TOTP, list[str]]:
    secret = identity.sign_in(name, GOOD, "10.0.0.7")
    totp = pyotp.TOTP(identity.ways.begin_enrolment(secret).seed)
    _, codes = identity.ways.confirm_enrolment(secret, code_of(totp, clock), HERE)
    clock.advance_us(60 * US_PER_S)
    return totp, codes


def code_of(totp: pyotp.TOTP, clock: ManualClock, step: int = 0) -> str:
    return totp.at(clock.now_us() // US_PER_S + 30 * step)


def test_the_password_alone_is_nobody_until_the_code(
    identity: Identity, clock: ManualClock
) -> None:
    totp, _ = enrol(identity, clock)
    stage = identity.sign_in("mia", GOOD, "10.0.0.7")
    assert identity.stage_of(stage) == "code"
    assert identity.actor_of_session(stage) is None and identity.alive([stage]) == set()
    session = identity.ways.by_code(stage, code_of(totp, clock), HERE)
    assert session != stage and identity.stage_of(stage) is None
    actor = identity.actor_of_session(session)
    assert actor is not None and actor.factors == {"password", "totp"}


def test_a_code_counts_once_and_so_do_older_ones(identity: Identity, clock: ManualClock) -> None:
    totp, _ = enrol(identity, clock)
    code, older = code_of(totp, clock), code_of(totp, clock, -1)
    identity.ways.by_code(identity.sign_in("mia", GOOD, "a"), code, HERE)
    for used in (code, older):
        stage = identity.sign_in("mia", GOOD, "10.0.0.7")
        with pytest.raises(Refused, match="SEC-1025"):
            identity.ways.by_code(stage, used, HERE)
    clock.advance_us(30 * US_PER_S)
    stage = identity.sign_in("mia", GOOD, "10.0.0.7")
    assert identity.ways.by_code(stage, code_of(totp, clock), HERE)


def test_of_many_that_send_one_code_at_once_one_gets_in(
    identity: Identity, clock: ManualClock
) -> None:
    totp, _ = enrol(identity, clock)
    stages = [identity.sign_in("mia", GOOD, "10.0.0.7") for _ in range(4)]
    code, outcomes = code_of(totp, clock), []

    def try_it(stage: str) -> None:
        try:
            identity.ways.by_code(stage, code, HERE)
            outcomes.append("in")
        except (Refused, Transient) as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=try_it, args=(stage,)) for stage in stages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert outcomes.count("in") == 1 and len(outcomes) == 4


def test_many_browsers_are_remembered_at_once(identity: Identity) -> None:
    """Each reads before it writes: told too late that it would write, SQLite refuses it at once."""
    with ThreadPoolExecutor(8) as pool:
        secrets = list(pool.map(lambda _: identity.ways.remember_device("mia"), range(60)))
    assert len(set(secrets)) == 60
    assert sum(identity.ways.is_known("mia", secret) for secret in secrets) == DEVICES_MAX


def test_codes_of_other_times_and_of_others_are_wrong(
    identity: Identity, clock: ManualClock
) -> None:
    totp, _ = enrol(identity, clock)
    other, _ = enrol(identity, clock, "boss")
    for wrong in (code_of(totp, clock, 3), code_of(totp, clock, -3), code_of(other, clock), ""):
        stage = identity.sign_in("mia", GOOD, f"10.1.0.{len(wrong)}")
        clock.advance_us(31 * US_PER_S)
        with pytest.raises(Refused, match="SEC-1024"):
            identity.ways.by_code(stage, wrong, HERE)
        clock.advance_us(31 * US_PER_S)


def test_five_wrong_codes_end_the_stage_and_slow_down_all_addresses(
    identity: Identity, clock: ManualClock
) -> None:
    totp, _ = enrol(identity, clock)
    stage = identity.sign_in("mia", GOOD, "10.0.0.7")
    for turn in range(TRIES_MAX):
        clock.advance_us(31 * US_PER_S)
        with pytest.raises(Refused, match="SEC-1024"):
            identity.ways.by_code(stage, "000000", Origin(f"10.2.0.{turn}"))
    clock.advance_us(31 * US_PER_S)
    with pytest.raises(Refused, match="SEC-1026"):
        identity.ways.by_code(stage, code_of(totp, clock), HERE)
    stage = identity.sign_in("mia", GOOD, "10.3.0.1")
    with pytest.raises(Refused, match="SEC-1024"):
        identity.ways.by_code(stage, "000000", Origin("10.3.0.1"))
    with pytest.raises(Transient, match="SEC-1002"):
        identity.ways.by_code(stage, "000001", Origin("10.3.0.2"))


def test_a_recovery_code_counts_once(identity: Identity, clock: ManualClock) -> None:
    _, codes = enrol(identity, clock)
    assert len(set(codes)) == 10 and identity.factors_of("mia").recovery_left == 10
    stage = identity.sign_in("mia", GOOD, "10.0.0.7")
    session = identity.ways.by_code(stage, codes[3].upper().replace("-", " "), HERE)
    actor = identity.actor_of_session(session)
    assert actor is not None and "recovery" in actor.factors
    assert identity.factors_of("mia").recovery_left == 9
    stage = identity.sign_in("mia", GOOD, "10.0.0.7")
    with pytest.raises(Refused, match="SEC-1024"):
        identity.ways.by_code(stage, codes[3], HERE)


def test_the_database_alone_has_neither_seed_nor_codes(
    identity: Identity, clock: ManualClock, tmp_path: Path
) -> None:
    totp, codes = enrol(identity, clock)
    identity.ways.remember_device("mia")
    held = b"".join(path.read_bytes() for path in tmp_path.glob("metadata.db*"))
    assert totp.secret.encode() not in held
    assert not any(
        code.encode() in held or code.replace("-", "").encode() in held for code in codes
    )
    key = tmp_path / "identity" / "factors.key"
    assert key.stat().st_mode & 0o077 == 0
    key.write_bytes(bytes(32))
    stage = identity.sign_in("mia", GOOD, "10.0.0.7")
    with pytest.raises(Corrupt, match="SEC-1030"):
        identity.ways.by_code(stage, code_of(totp, clock), HERE)


def test_roles_that_must_have_a_factor_get_no_session_without(
    tmp_path: Path, clock: ManualClock
) -> None:
    before = make(tmp_path, clock)
    old = before.sign_in("boss", GOOD, "10.0.0.7")
    before.close()
    identity = make(tmp_path, clock, '[identity]\nsecond_factor_roles = ["admin"]\n')
    assert identity.actor_of_session(old) is None, "also sessions from before the demand"
    assert identity.actor_of_session(identity.sign_in("mia", GOOD, "here")) is not None
    stage = identity.sign_in("boss", GOOD, "10.0.0.7")
    assert identity.stage_of(stage) == "enrol" and identity.actor_of_session(stage) is None
    with pytest.raises(Refused, match="SEC-1026"):
        identity.ways.by_code(stage, "123456", HERE)
    totp = pyotp.TOTP(identity.ways.begin_enrolment(stage).seed)
    with pytest.raises(Refused, match="SEC-1024"):
        identity.ways.confirm_enrolment(stage, "000000", HERE)
    session, codes = identity.ways.confirm_enrolment(stage, code_of(totp, clock), HERE)
    actor = identity.actor_of_session(session)
    assert actor is not None and actor.factors == {"password", "totp"} and len(codes) == 10
    identity.close()
    with pytest.raises(Misconfigured, match="SEC-1008"):
        make(tmp_path, clock, '[identity]\nsecond_factor_roles = ["root"]\n')


def test_an_admin_resets_a_lost_factor_and_all_sessions_end(
    identity: Identity, clock: ManualClock
) -> None:
    totp, _ = enrol(identity, clock)
    session = identity.ways.by_code(
        identity.sign_in("mia", GOOD, "10.0.0.7"), code_of(totp, clock), HERE
    )
    identity.remove_second_factor("mia", by="boss")
    assert identity.actor_of_session(session) is None
    assert identity.stage_of(identity.sign_in("mia", GOOD, "10.0.0.7")) == ""
    assert identity.audit.entries(action="factor.remove")[0].actor == "boss"


def test_a_factor_change_gives_a_new_secret_and_ends_other_sessions(
    identity: Identity, clock: ManualClock
) -> None:
    other = identity.sign_in("mia", GOOD, "10.0.0.9")
    mine = identity.sign_in("mia", GOOD, "10.0.0.7")
    totp = pyotp.TOTP(identity.ways.begin_enrolment(mine).seed)
    fresh, _ = identity.ways.confirm_enrolment(mine, code_of(totp, clock), HERE)
    assert identity.alive([other, mine, fresh]) == {fresh}
    with pytest.raises(Misconfigured, match="SEC-1028"):
        identity.ways.begin_enrolment(fresh)


def test_who_signs_shows_both_factors_again(identity: Identity, clock: ManualClock) -> None:
    identity.check_again("mia", GOOD)
    totp, _ = enrol(identity, clock)
    with pytest.raises(Refused, match="SEC-1001"):
        identity.check_again("mia", "not the right one", code_of(totp, clock))
    with pytest.raises(Refused, match="SEC-1024"):
        identity.check_again("mia", GOOD)
    identity.check_again("mia", GOOD, code_of(totp, clock))
    with pytest.raises(Refused, match="SEC-1025"):
        identity.check_again("mia", GOOD, code_of(totp, clock))


# sessions


def test_idle_and_absolute_time_end_a_session(tmp_path: Path, clock: ManualClock) -> None:
    identity = make(tmp_path, clock, "[identity]\nidle_min = 30\nsession_h = 2\n")
    idle = identity.sign_in("mia", GOOD, "10.0.0.7")
    used = identity.sign_in("mia", GOOD, "10.0.0.7")
    for _ in range(5):
        clock.advance_us(20 * 60 * US_PER_S)
        assert identity.actor_of_session(used) is not None
    assert identity.actor_of_session(idle) is None
    clock.advance_us(20 * 60 * US_PER_S)
    assert identity.actor_of_session(used) is None and identity.alive([used]) == set()
    identity.close()


def test_sessions_are_listed_and_revoked(identity: Identity, clock: ManualClock) -> None:
    secrets = [identity.sign_in("mia", GOOD, f"10.0.0.{n}", agent=f"Agent/{n}") for n in range(3)]
    boss = identity.sign_in("boss", GOOD, "10.0.0.9")
    clock.advance_us(120 * US_PER_S)
    identity.actor_of_session(secrets[1])
    listed = identity.sessions.list("mia")
    assert next((e.address, e.agent) for e in listed) == ("10.0.0.1", "Agent/1")
    assert listed[0].seen_us == clock.now_us() and listed[1].seen_us < clock.now_us()
    assert not any(secret in str(listed) for secret in secrets)
    identity.end_session("boss", listed[0].id, by="mia")
    assert identity.actor_of_session(secrets[1]) is not None, "another's id ends nothing"
    identity.end_session("mia", listed[0].id, by="boss")
    assert identity.alive([*secrets, boss]) == {secrets[0], secrets[2], boss}
    identity.end_sessions("mia", by="mia", but=secrets[2])
    assert identity.alive([*secrets, boss]) == {secrets[2], boss}
    assert [e.actor for e in identity.audit.entries(action="session.revoke")] == ["mia", "boss"]


def test_alive_knows_sessions_tokens_and_machines(identity: Identity) -> None:
    session = identity.sign_in("mia", GOOD, "10.0.0.7")
    token = identity.add_token("mia", "report")
    machine = identity.actors.add("service", "erp", [Grant("viewer")])
    assert identity.alive([session, token, machine, "nonsense"]) == {session, token, machine}
    identity.set_disabled("mia", True)
    identity.actors.disable("erp")
    assert identity.alive([session, token, machine]) == set()


# lock-out


def test_an_attacker_at_the_same_address_cannot_lock_the_operator_out(
    identity: Identity, clock: ManualClock
) -> None:
    device = identity.ways.remember_device("mia")
    attacker, mia = Origin("10.0.0.7"), Origin("10.0.0.7", device=device)
    for turn in range(30):
        with pytest.raises((Refused, Transient)):
            identity.ways.by_password("mia", f"guess number {turn}", attacker)
        clock.advance_us(5 * US_PER_S)
    with pytest.raises(Transient, match="SEC-1002"):
        identity.ways.by_password("mia", GOOD, attacker)
    assert identity.ways.by_password("mia", GOOD, mia)[1] == "", "her own browser is let in at once"
    assert identity.sign_in("mia", GOOD, "10.0.0.8"), "and so is another address"


def test_a_device_secret_is_of_one_user_and_for_half_a_year(
    identity: Identity, clock: ManualClock
) -> None:
    device = identity.ways.remember_device("mia")
    assert identity.ways.is_known("mia", device)
    assert not identity.ways.is_known("boss", device)
    assert not identity.ways.is_known("mia", "") and not identity.ways.is_known("mia", "x")
    clock.advance_us(181 * 86_400 * US_PER_S)
    assert not identity.ways.is_known("mia", device)


def test_guessing_over_many_names_is_slowed_down_too(
    identity: Identity, clock: ManualClock
) -> None:
    for turn in range(FREE_TRIES_OF_PLACE):
        with pytest.raises(Refused, match="SEC-1001"):
            identity.sign_in(f"user{turn}", "summer and winter", "2001:db8::1")
    with pytest.raises(Transient, match="SEC-1002"):
        identity.sign_in("another", "summer and winter", "2001:db8::ffff")
    assert identity.sign_in("mia", GOOD, "2001:db9::1")
    clock.advance_us(int(FORGET_S + 1) * US_PER_S)
    assert identity.sign_in("mia", GOOD, "2001:db8::1")


async def test_a_flood_of_sign_ins_is_refused_at_once_and_holds_up_no_other_address() -> None:
    lane = Lane("test", 2, 32)
    gate, running = threading.Event(), threading.Semaphore(0)
    most, now, lock = [0], [0], threading.Lock()

    def hash_it() -> str:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        running.release()
        gate.wait(60)
        with lock:
            now[0] -= 1
        return "in"

    flood = [asyncio.create_task(lane.run("10.6.6.6", hash_it)) for _ in range(1_000)]
    await until(lambda: sum(task.done() for task in flood) == 1_000 - PER_ADDRESS_MAX)
    waiting = [task for task in flood if not task.done()]
    refused = [t for t in flood if t.done() and isinstance(t.exception(), Transient)]
    assert len(refused) == 1_000 - PER_ADDRESS_MAX and len(waiting) == PER_ADDRESS_MAX
    mia = asyncio.create_task(lane.run("10.0.0.7", hash_it))
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.wait_for(mia, 60) == "in"
    await asyncio.gather(*waiting)
    assert most[0] <= 2, "so many hashes at once, whatever is asked"
    assert await lane.run("10.6.6.6", hash_it) == "in", "places are given back"
    lane.close()


async def test_a_full_lane_says_so(identity: Identity) -> None:
    lane, gate = Lane("test", 1, 4), threading.Event()
    flood = [asyncio.create_task(lane.run(f"10.0.0.{n}", gate.wait, 60)) for n in range(4)]
    await asyncio.sleep(0)
    with pytest.raises(Transient, match="SEC-1027"):
        await lane.run("10.0.0.99", gate.wait, 60)
    assert await identity.lanes.known.run("device", lambda: "in") == "in", "its own lane"
    gate.set()
    await asyncio.gather(*flood)
    lane.close()


def test_an_address_is_a_host_or_its_network() -> None:
    assert network_of("2001:db8:1:2:3:4:5:6") == network_of("2001:db8:1:2::1")
    assert network_of("2001:db8:1:2::1") != network_of("2001:db8:1:3::1")
    assert network_of("::ffff:10.0.0.7") == "10.0.0.7"
    assert network_of("testclient") == "testclient"


# passwords


@pytest.mark.parametrize(
    "bad",
    [
        "password1234567",
        "P@ssw0rdP@ssw0rd",
        "qwertyuiopasdfghjkl",
        "123456789012345678",
        "aaaaaaaaaaaaaaaaaaaa",
        "abcabcabcabcabcabc",
        "headrace2026!!!!!!",
        "Headrace-Admin-123",
        "summer2026winter2027",
        "Welcome123Welcome123",
        "zyxwvutsrqponmlkjihg",
        "factory-operator-1",
        "woaini5201314woaini",
    ],
)
def test_what_attackers_try_first_is_refused(bad: str) -> None:
    with pytest.raises(Misconfigured, match="SEC-1034"):
        check_password(bad, "mia")


@pytest.mark.parametrize(
    "good",
    [
        "the lathe hums at dawn",
        "pump seven sings low",
        "数据一条不丢从设备到决策全部都在",
        "xkvq-7tzm-hwpd-3rfy",
    ],
)
def test_sentences_of_ones_own_are_taken(good: str) -> None:
    check_password(good, "mia")


def test_length_counts_and_a_factor_makes_it_shorter() -> None:
    with pytest.raises(Misconfigured, match="SEC-1005"):
        check_password("lathe at dawn", "mia")
    check_password("lathe at dawn", "mia", has_factor=True)
    for bad in ("lathes", "x" * 257, "mia and the lathe"):
        with pytest.raises(Misconfigured, match="SEC-1005"):
            check_password(bad, "mia", has_factor=True)


@given(st.text(min_size=15, max_size=60))
def test_any_text_is_taken_or_refused_with_a_code(text: str) -> None:
    try:
        check_password(text, "mia")
    except Misconfigured as error:
        assert error.code in ("SEC-1005", "SEC-1034")
