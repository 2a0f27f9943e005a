"""Every route of the OpenAPI schema takes what schemathesis makes of it: an answer, never a crash.

The short form asks each route a few times with a fixed seed; the long form (``soak``) a hundred times as often.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from attack_log import attack
from attack_target import Target
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

schemathesis = pytest.importorskip(
    "schemathesis", reason="install schemathesis to fuzz the REST interface"
)
SHORT, LONG = 4, 300
SEED = 20_261_123


@pytest.fixture(scope="module")
def operations(target: Target) -> list[Any]:
    """Every operation of the schema as the console tells it."""
    schema = schemathesis.openapi.from_dict(target.ask("/api/openapi.json", None).json())
    found = [each.ok() for each in schema.get_all_operations()]
    assert len(found) > 40
    return found


@pytest.fixture
def client(target: Target) -> Iterator[httpx.Client]:
    head = {"Authorization": f"Bearer {target.tokens['engineer']}"}
    with httpx.Client(base_url=target.url, headers=head, timeout=60) as made:
        yield made


@attack(
    "rest/anything at every route",
    tries="asks every route of the OpenAPI schema with what schemathesis makes: right, wrong, no UTF-8",
    stops="every route decodes into types with bounds and answers an error with a code",
    stride="D",
    requirement="SR 3.5",
)
def test_every_route_answers_what_the_schema_allows(
    target: Target, operations: list[Any], client: httpx.Client
) -> None:
    _fuzz(target, operations, client, SHORT)


@pytest.mark.soak
@pytest.mark.timeout(3_600)
def test_every_route_answers_for_long(
    target: Target, operations: list[Any], client: httpx.Client
) -> None:
    _fuzz(target, operations, client, LONG)


def _fuzz(target: Target, operations: list[Any], client: httpx.Client, examples: int) -> None:
    for operation in operations:
        asked = list[Any]()
        _fuzz_one(operation, client, examples, asked)
        assert asked, operation.label
    assert target.is_well()


def _fuzz_one(operation: Any, client: httpx.Client, examples: int, asked: list[Any]) -> None:
    made = operation.as_strategy()
    if _has_input(operation):
        negative = schemathesis.GenerationMode.NEGATIVE
        made |= operation.as_strategy(generation_mode=negative)

    @seed(SEED)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=made, body=st.binary(max_size=60))
    def run(case: Any, body: bytes) -> None:
        _ask(client, case, body)
        asked.append(case)

    run()


def _has_input(operation: Any) -> bool:
    parts = (operation.query, operation.path_parameters, operation.body)
    return any(len(list(part)) for part in parts)


def _ask(client: httpx.Client, case: Any, body: bytes) -> None:
    given = case.as_transport_kwargs(base_url=str(client.base_url))
    url, method = given.pop("url"), given.pop("method")
    content = given.pop("json", None), given.pop("data", None)
    more: dict[str, Any] = {"params": given.get("params")}
    if method not in ("GET", "HEAD") and content == (None, None):
        more["content"] = body  # our routes read their bodies themselves: the schema names none
    elif content[0] is not None:
        more["json"] = content[0]
    try:
        answer = client.request(method, url, **more)
    except (httpx.InvalidURL, UnicodeEncodeError, ValueError):
        return  # the client itself does not send it
    assert answer.status_code < 500 or answer.json()["class"] == "transient", (
        f"{method} {url} {more}: {answer.status_code} {answer.text[:300]}"
    )
    assert "Traceback" not in answer.text and "/site-packages/" not in answer.text
    if answer.status_code >= 400:
        told = answer.json()
        codes = [each["code"] for each in told.get("problems", [told])]  # a site file has several
        assert codes and all(codes), f"{method} {url} {more}: {answer.text[:300]}"
