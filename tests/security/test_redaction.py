"""Known secrets are blotted out of texts and logs, in each form in which they may stand."""

from __future__ import annotations

import base64
import io
import logging
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.security import redaction
from headrace.security.redaction import LogFilter, Redactor

SECRETS = st.text(st.characters(codec="utf-8", exclude_characters="*"), min_size=8, max_size=40)


@settings(max_examples=100, deadline=None)
@given(secret=SECRETS, before=st.text(max_size=9), after=st.text(max_size=9))
def test_no_form_of_a_known_secret_is_left(secret: str, before: str, after: str) -> None:
    redactor = Redactor()
    redactor.know(secret)
    raw = secret.encode()
    texts = [
        secret,
        quote(secret, safe=""),
        raw.hex(),
        base64.b64encode(raw).decode(),
        base64.urlsafe_b64encode(raw).decode(),
    ]
    for text in texts:
        assert secret not in redactor.blotted(f"{before}{text}{after}")
        assert "***" in redactor.blotted(f"{before}{text}{after}")


@settings(max_examples=60, deadline=None)
@given(
    secret=st.text("abcdefgh0123456789", min_size=12, max_size=24), user=st.text("uvw", max_size=7)
)
def test_a_secret_inside_of_a_longer_base64_text_is_found(secret: str, user: str) -> None:
    redactor = Redactor()
    redactor.know(secret)
    basic = base64.b64encode(f"{user}:{secret}".encode()).decode()
    blotted = redactor.blotted(f"Authorization: Basic {basic}")
    assert "***" in blotted
    begin, _, left = blotted.removeprefix("Authorization: Basic ").partition("***")
    assert len(left) <= 4
    assert len(begin) <= (len(user) + 1) * 4 / 3 + 4


def test_logs_and_tracebacks_are_blotted(monkeypatch: pytest.MonkeyPatch) -> None:
    redactor = Redactor()
    redactor.know("tulip-7731")
    monkeypatch.setattr(redaction, "REDACTOR", redactor)
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.addFilter(LogFilter())
    log = logging.getLogger("test of redaction")
    log.addHandler(handler)
    log.propagate = False
    try:
        raise ValueError("login with tulip-7731 failed")
    except ValueError:
        log.exception("the device said %s", "tulip-7731 is wrong")
    assert "tulip-7731" not in written.getvalue()
    assert "ValueError: login with *** failed" in written.getvalue()


def test_short_secrets_are_not_looked_for_and_the_list_is_bounded() -> None:
    redactor = Redactor()
    redactor.know("abc")
    assert redactor.blotted("abc") == "abc"
    for number in range(redaction.KNOWN_MAX + 5):
        redactor.know(f"secret-{number:06d}")
    assert redactor.blotted("secret-000001") == "secret-000001"
    assert redactor.blotted("secret-000009") == "***"
