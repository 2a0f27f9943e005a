"""Attacks on REST: numbers, times and texts without bounds, bodies, filters, addresses."""

from __future__ import annotations

import json
import socket
from urllib.parse import quote

import httpx
import polars as pl
from attack_log import attack
from attack_target import FLOW, Target

from headrace.console.api.alarms import table_answer

SQL = ("' OR 1=1 --", '" OR ""="', "'; DROP TABLE tag; --", "%' UNION SELECT 1 --", "a\\'b")
TIMES = ("-" + "9" * 400 + "d", "-99999999999999d", "0001-01-01T00:00:00+14:00", "9" * 18)


@attack(
    "rest/read without a sign-in",
    tries="reads tags, samples, alarms, the site file, the audit chain as nobody",
    stops="every route asks the policy; without an actor the answer is 401",
    stride="I",
    requirement="SR 1.1",
)
def test_every_route_of_the_schema_needs_an_actor(target: Target) -> None:
    paths = target.ask("/api/openapi.json", None).json()["paths"]
    asked = 0
    for path, methods in paths.items():
        for method in methods:
            if path == "/api/v1/health":
                continue
            place = path.replace("{verb}", "acknowledge").replace("{", "").replace("}", "")
            query = {
                each["name"]: 1
                for each in methods[method].get("parameters", [])
                if each["in"] == "query" and each.get("required")
            }
            answer = target.ask(place, None, method=method.upper(), params=query, content=b"{}")
            known = answer.status_code in (
                401,
                404,
                422,
            )  # what does not fit is told before who asks
            assert known and answer.json()["code"] in ("SEC-1003", "CONS-1002", "CONS-1003"), path
            asked += 1
    assert asked > 30


@attack(
    "rest/change as a viewer",
    tries="writes values, changes formulas, the site file, alarms with the token of a viewer",
    stops="each change has an action of its own, which the policy denies a viewer",
    stride="E",
    requirement="SR 2.1",
)
def test_a_viewer_changes_nothing(target: Target) -> None:
    before = target.site.folder.site_file.read_bytes()
    formula = json.dumps({"text": "x = flow"}).encode()
    for method, path, body in (
        ("PUT", "/api/v1/site", before),
        ("POST", "/api/v1/write", json.dumps({"tag": FLOW, "value": 1}).encode()),
        ("PUT", "/api/v1/formula/pump/x", formula),
        ("DELETE", "/api/v1/formula/pump/hot", b""),
        ("PUT", "/api/v1/alarms/sheet", b"a"),
        ("POST", "/api/v1/alarms/acknowledge", b'{"alarms": []}'),
        ("POST", "/api/v1/notifications/x/test", b""),
        ("GET", "/api/v1/audit", b""),
        ("GET", "/api/v1/audit/checkpoint", b""),
    ):
        answer = target.refuses(path, method=method, content=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "SEC-1004"), path
    assert target.site.folder.site_file.read_bytes() == before


@attack(
    "rest/times far away",
    tries="asks for times of 400 digits, of the year 1 in another zone, of the year 30,000",
    stops="a time lies between 1900 and 2200, and is checked before anything counts with it",
    stride="D",
    requirement="SR 3.5",
)
def test_times_far_away(target: Target) -> None:
    for at in TIMES:
        for path in (
            f"/api/v1/samples?tags={FLOW}&",
            f"/api/v1/downsample?tag={FLOW}&",
            "/api/v1/ledger?",
            "/api/v1/alarms/journal?",
            "/api/v1/alarms/metrics?",
            "/api/v1/notifications/log?",
        ):
            answer = target.refuses(f"{path}start={quote(at)}")
            assert answer.json()["code"] == "CONS-1004"


@attack(
    "rest/intervals without end",
    tries="asks for aggregates of a millisecond over a century, of no length, of 10^400 days",
    stops="intervals are counted before they are worked out; at most 200,000",
    stride="D",
    requirement="SR 7.1",
)
def test_intervals_without_end(target: Target) -> None:
    for every in ("1ms", "9" * 400 + "d", "0.0000001ms", "-1s"):
        target.refuses(f"/api/v1/aggregate?tags={FLOW}&every={every}&start=-36500d")


@attack(
    "rest/numbers that are none",
    tries="sends NaN, infinity, 10^300, ids of 5,000 digits, places beyond 64 bits",
    stops="every number has bounds that are checked where it comes in",
    stride="D",
    requirement="SR 3.5",
)
def test_numbers_that_are_none(target: Target) -> None:
    for end in ("nan", "inf", "-inf", "1e300"):
        target.refuses(f"/api/v1/trend?tag_ids={FLOW}&start_ms=0&end_ms={end}")
    for digits in (20, 25, 5_000):
        target.refuses("/api/v1/last?tags=" + "9" * digits)
        target.refuses("/api/v1/alarms/journal?before=" + "9" * digits)
    assert target.ask(f"/api/v1/why/dialog?tag={FLOW}&seen_ms=1e300").status_code == 200
    trial = {"formula": "flow > 3 m3/h", "asset_type": "pump", "start": "-1h"}
    for more in ({"sweep": {"low": 0, "high": 1e300, "step": 1e-300}}, {"before_s": 1e300}):
        body = json.dumps(trial | more).encode()
        target.refuses("/api/v1/formula/backtest", method="POST", content=body)


@attack(
    "rest/JSON bombs",
    tries="sends JSON 200,000 levels deep, numbers of 5,000 digits, NaN, a million keys, half a text",
    stops="bodies are decoded into their types by msgspec, which bounds depth and refuses the rest",
    stride="D",
    requirement="SR 3.5",
)
def test_json_bombs(target: Target) -> None:
    many = b"{" + b",".join(b'"k%d":1' % n for n in range(100_000)) + b"}"
    for body in (
        b"[" * 200_000,
        b'{"unknown":' + b"[" * 200_000,
        b'{"tag":' + b"[" * 200_000,
        b'{"tag":"%s","value":%s}' % (FLOW.encode(), b"9" * 5_000),
        b'{"tag":"%s","value":NaN}' % FLOW.encode(),
        b'{"tag":"%s","value":1e400}' % FLOW.encode(),
        many,
        b'{"tag": "\xff\xfe',
        b"",
    ):
        target.refuses("/api/v1/write", "operator", method="POST", content=body)
        target.refuses("/api/v1/formula/preview", method="POST", content=body)


@attack(
    "rest/bodies too large",
    tries="sends 6 MB to routes that take a line, with and without saying so before",
    stops="a body ends at 5 MB, a form at 64 kB, before any route has it in memory",
    stride="D",
    requirement="SR 7.1",
)
def test_bodies_too_large(target: Target) -> None:
    def parts() -> object:
        return (b"x" * 65_536 for _ in range(96))

    for path in ("/api/v1/formula/preview", "/api/v1/alarms/acknowledge", "/api/v1/write"):
        try:
            answer = target.ask(path, "operator", method="POST", content=parts())
            assert (answer.status_code, answer.json()["code"]) == (413, "CONS-1005")
        except httpx.WriteError:
            pass  # the console had answered and closed before all was sent
    with target.raw() as connection:
        connection.sendall(
            b"POST /sign-in HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 413")
    assert target.is_well()


@attack(
    "rest/SQL in filters",
    tries="puts SQL into every filter that reaches a database: alarms, journal, audit, tags, notifications",
    stops="filters are bound parameters of SQLAlchemy or compared in memory; never text of a query",
    stride="E",
    requirement="SR 3.5",
)
def test_sql_in_filters(target: Target) -> None:
    for text in SQL:
        value = quote(text)
        for path in (
            f"/api/v1/alarms?view=all&search={value}&below={value}&assignee={value}&priority={value}",
            f"/api/v1/alarms/journal?alarm={value}&below={value}&actor={value}&search={value}",
            f"/api/v1/tags?search={value}&below={value}",
            f"/api/v1/notifications/log?channel={value}",
            f"/api/v1/events?search={value}&severity={value}",
            f"/api/v1/audit?actor={value}&action={value}&resource={value}",
            f"/api/v1/ledger?connection={value}&group={value}",
            f"/api/v1/formula/{value}/{value}/versions",
        ):
            answer = target.ask(path, "admin")
            assert answer.status_code in (200, 404), (path, answer.text)
            lists = [each for each in answer.json().values() if isinstance(each, list)]
            assert not any(lists), path
    assert target.ask("/api/v1/tags").json()["total"] == len(target.site.tags)


@attack(
    "rest/wildcards in a search",
    tries="searches for % and _ to read what a search would not show",
    stops="texts are compared as they are, without wildcards",
    stride="I",
    requirement="SR 3.5",
)
def test_wildcards_are_text(target: Target) -> None:
    assert target.ask("/api/v1/tags?search=%25%25").json()["total"] == 0
    assert target.ask("/api/v1/alarms/journal?search=%25").json()["transitions"] == []


@attack(
    "rest/too much at once",
    tries="asks for 1,001 tags, 10^9 rows, 5,000 formulas, 10^6 points",
    stops="every list has a most, and the answer says which",
    stride="D",
    requirement="SR 7.2",
)
def test_too_much_at_once(target: Target) -> None:
    target.refuses("/api/v1/last?tags=" + ",".join([FLOW] * 1_001))
    target.refuses(f"/api/v1/samples?tags={FLOW}&limit=1000000000")
    target.refuses(f"/api/v1/downsample?tag={FLOW}&points=1000000")
    target.refuses("/api/v1/alarms?limit=1000000000")
    target.refuses("/api/v1/audit?limit=1000000000", "admin")
    target.refuses("/api/v1/sparklines?tag_ids=" + ",".join([FLOW] * 51))


@attack(
    "rest/formula bombs",
    tries="sends formulas 20,000 levels deep, 100,000 characters long, of 10^999999, of 5,000 terms",
    stops="the length and the depth of a formula have bounds, which are checked before it is parsed",
    stride="D",
    requirement="SR 7.2",
)
def test_formula_bombs(target: Target) -> None:
    for formula in (
        "(" * 20_000 + "1" + ")" * 20_000,
        "-" * 20_000 + "1",
        "1" + "+1" * 20_000,
        "not " * 5_000 + "flow",
        "flow and " * 5_000 + "flow",
        "x" * 100_000,
        "9" * 100_000,
        "1e999999",
        "'" * 10_000,
        "flow[" * 3_000,
        "\u202e\0flow",
        "mean(flow, 99999999999 d)",
        "if(" * 2_000,
    ):
        body = {"formula": formula, "equipment": "utilities/pumping/*"}
        answer = target.post("/api/v1/formula/preview", body)
        assert answer.status_code == 422 and answer.json()["code"].startswith("FORM-"), formula[:20]


@attack(
    "rest/regular expression bombs",
    tries="sends texts on which a backtracking regular expression takes exponential time",
    stops="patterns of ours have no nested repetition; spans, globs and units are bounded",
    stride="D",
    requirement="SR 7.1",
)
def test_regular_expression_bombs(target: Target) -> None:
    long = "-" + "1" * 20_000 + "." + "1" * 20_000 + "!"
    target.refuses(f"/api/v1/ledger?start={long}")
    for pattern in ("*" * 200 + "x", "/".join(["**"] * 60) + "/x", "[" * 500, "a*" * 100 + "!"):
        body = {"formula": "flow > 1 m3/h", "equipment": pattern}
        assert 400 <= target.post("/api/v1/formula/preview", body).status_code < 500


@attack(
    "rest/addresses that do not exist",
    tries="asks for 200 addresses that do not exist, to have a page kept in memory for each",
    stops="an unknown address gets a short answer of ours; NiceGUI's page for it is never made",
    stride="D",
    requirement="SR 7.2",
)
def test_unknown_addresses_cost_nothing(target: Target) -> None:
    with httpx.Client(base_url=target.url, timeout=30) as client:
        for n in range(200):
            answer = client.get(f"/nothing/asked-{n}")
            assert answer.status_code == 404 and len(answer.content) < 400
            assert "asked" not in answer.text and answer.json()["code"] == "CONS-1009"


@attack(
    "rest/internals in an error",
    tries="provokes errors to read paths, versions and stack frames from the answers",
    stops="an error has a code, what and a remedy; the server names neither itself nor its files",
    stride="I",
    requirement="SR 3.7",
)
def test_errors_tell_no_internals(target: Target) -> None:
    for path in ("/api/v1/tags?limit=x", "/api/v1/nothing", "/equipment/%00", "/api/v1/samples"):
        answer = target.ask(path)
        text = answer.text + str(dict(answer.headers))
        for inside in ("Traceback", "site-packages", "uvicorn", str(target.site.folder.root)):
            assert inside not in text


@attack(
    "rest/method and head tricks",
    tries="uses unknown methods, an override of the method, two lengths, a folded head",
    stops="the parser refuses what is ambiguous; unknown methods are answered 405; overrides are not known",
    stride="T",
    requirement="SR 3.5",
)
def test_ambiguous_requests_are_refused(target: Target) -> None:
    answer = target.ask("/api/v1/tags", headers={"X-HTTP-Method-Override": "DELETE"})
    assert answer.status_code == 200
    assert target.ask("/api/v1/tags", method="TRACE").status_code in (404, 405)
    head = b"POST /sign-in HTTP/1.1\r\nHost: x\r\n"
    for more in (
        b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /",
        b"Content-Length: -1\r\n\r\n",
        b"X\0Y: 1\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nZZZ\r\n",
    ):
        assert _first_answer(target, head + more) in (400, 413, 422), more


def _first_answer(target: Target, request: bytes) -> int:
    with target.raw() as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return int(connection.recv(64).split(b" ")[1])


@attack(
    "rest/cross-origin reading",
    tries="reads answers from a page of another site",
    stops="no CORS header is ever sent; Cross-Origin-Resource-Policy is same-origin",
    stride="I",
    requirement="SR 3.8",
)
def test_no_other_site_reads_answers(target: Target) -> None:
    for path in ("/api/v1/tags", "/sign-in", "/static/headrace.js", "/api/v1/health"):
        answer = target.ask(path, headers={"Origin": "https://evil.example"})
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


@attack(
    "rest/formula in a spreadsheet",
    tries="has a comment that begins with = run as a formula when the journal is opened in a spreadsheet",
    stops="XLSX holds texts as texts; in CSV an apostrophe stands before what a spreadsheet would run",
    stride="T",
    requirement="SR 3.5",
)
def test_the_sheet_holds_texts_and_no_formulas(target: Target) -> None:
    import io
    import zipfile

    answer = target.ask("/api/v1/alarms/sheet?format=xlsx")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        sheets = [archive.read(name) for name in archive.namelist() if "worksheets/" in name]
    assert sheets and not any(b"<f>" in sheet for sheet in sheets)
    evil = pl.DataFrame(
        {"comment": ["=cmd|'/c calc'!A0", "@SUM(1)", "fine - so"], "value": [-1.0, 2, 3]}
    )
    written = bytes(table_answer(evil, "csv", "journal").body).decode().splitlines()
    assert written[1:] == ["'=cmd|'/c calc'!A0,-1.0", "'@SUM(1),2.0", "fine - so,3.0"]
