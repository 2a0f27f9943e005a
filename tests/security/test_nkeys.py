"""Keys and tokens of NATS; that the real server believes them is tried in tests/bus/test_broker_rights.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.errors import Corrupt
from headrace.security.nkeys import SigningKey, decode_key, derived, encode_key, read_token


@given(st.binary(min_size=32, max_size=32))
def test_a_key_comes_back_and_one_changed_letter_is_found(raw: bytes) -> None:
    text = encode_key("account", raw)
    assert text[0] == "A" and len(text) == 56
    assert decode_key("account", text) == raw
    changed = text[:20] + ("B" if text[20] != "B" else "C") + text[21:]
    with pytest.raises(Corrupt, match="SEC-1601"):
        decode_key("account", changed)
    with pytest.raises(Corrupt, match="SEC-1601"):
        decode_key("user", text)


def test_known_keys_of_the_servers_own_documentation() -> None:
    # From the auth callout page of docs.nats.io: an account's public key.
    known = "ABJHLOVMPA4CI6R5KLNGOB4GSLNIY7IOUPAJC4YFNDLQVIOBYQGUWVLA"
    assert encode_key("account", decode_key("account", known)) == known


@given(st.text(max_size=300))
def test_no_text_is_taken_for_a_token(text: str) -> None:
    with pytest.raises(Corrupt, match="SEC-160"):
        read_token(text)


def test_a_token_is_its_issuers_and_unchanged() -> None:
    key = SigningKey(derived("secret", "a"))
    token = key.sign({"sub": "x"}, 5_000_000)
    claims = read_token(token)
    assert (claims["sub"], claims["iss"], claims["iat"]) == ("x", key.public, 5)
    header, body, signature = token.split(".")
    for bad in (f"{header}.{body[:-2]}AA.{signature}", f"{header}.{body}.{signature[::-1]}"):
        with pytest.raises(Corrupt, match="SEC-160"):
            read_token(bad)
