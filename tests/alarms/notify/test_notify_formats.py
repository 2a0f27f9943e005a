"""Each channel's format against local servers that check what the makers' documents say."""

from __future__ import annotations

import ssl
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from notify_samples import START_US, channel, config, notice, route
from robot_servers import Robot, in_json, serving
from smtp_server import MailServer, mail_server

from headrace.alarms.notify.plan import plan
from headrace.alarms.notify.robots import judge
from headrace.alarms.notify.sending import Sender, blotted, resolve_secret
from headrace.alarms.notify.texts import Message, compose, one_line
from headrace.model.calendar import PlantCalendar
from headrace.model.errors import Misconfigured
from headrace.model.notify import ChannelConfig
from headrace.security.authority import ensure_authority, ensure_server

BERLIN = ZoneInfo("Europe/Berlin")


def messages(language="en", count=1, **fields) -> Message:
    settings = config([channel("a")], [route((0, "a"))])
    due = [
        each
        for number in range(1, min(count, 50) + 1)
        for each in plan(notice(number, **fields), settings, PlantCalendar())
    ]
    return compose(due, count, settings, language, BERLIN)


@pytest.fixture
def send(tmp_path: Path):
    sender = Sender(tmp_path, lambda: START_US)

    async def sending(made: ChannelConfig, message: Message | None = None, key: str = "k1"):
        return await sender.send(made, message or messages(), key)

    return sending


@pytest.fixture
def robot_url(monkeypatch: pytest.MonkeyPatch):
    def put(robot: Robot, name: str = "ROBOT") -> None:
        monkeypatch.setenv(name, robot.url())
        monkeypatch.setenv("SIGN", "SEC-7788")

    return put


async def test_wecom_takes_markdown_in_chinese(send, robot_url):
    with serving(Robot("wecom")) as robot:
        robot_url(robot)
        outcome = await send(channel("ops", language="zh"), messages("zh"))
    assert (outcome.result, outcome.code) == ("sent", "errcode 0")
    content = robot.got[0]["markdown"]["content"]
    assert content.startswith('### <font color="warning">[高] 1 号泵：轴承过热 · 工厂</font>')
    assert "> **处置措施** 停泵" in content and "01:00:00 CET" in content
    assert content.endswith("[打开报警列表](https://mill.example/alarms)")


async def test_wecom_mentions_go_as_text_and_long_texts_are_cut_to_their_bytes(send, robot_url):
    with serving(Robot("wecom")) as robot:
        robot_url(robot)
        await send(channel("ops", mention=("13800001111", "all")))
        long = messages("zh", cause=("", "油" * 5_000), action=("", "停" * 5_000), count=50)
        assert (await send(channel("ops"), long)).result == "sent"
        wide = Message("标题", tuple(("行", "字" * 290) for _ in range(20)), "red")
        assert (await send(channel("ops"), wide)).result == "sent"
    assert robot.got[0]["text"]["mentioned_mobile_list"] == ["13800001111", "@all"]
    assert 4_000 < len(robot.got[2]["markdown"]["content"].encode()) <= 4_096


async def test_dingtalk_is_signed_and_has_its_keyword(send, robot_url):
    robot = Robot("dingtalk", secret="SEC-7788", keyword="报警", now_s=lambda: START_US / 1e6)
    with serving(robot):
        robot_url(robot)
        made = channel("ops", "dingtalk", secret="env:SIGN", keyword="报警", mention=("138", "all"))
        assert (await send(made)).result == "sent"
        assert robot.got[0]["at"] == {"atMobiles": ["138"], "isAtAll": True}
        assert robot.got[0]["markdown"]["text"].startswith("报警\n### [HIGH] Pump 1")
        unsigned = await send(channel("ops", "dingtalk", keyword="报警"))
        assert (unsigned.result, unsigned.code) == ("refused", "errcode 310000")
        unnamed = await send(channel("ops", "dingtalk", secret="env:SIGN"))
        assert unnamed.text == "no: keywords not in content"


async def test_feishu_card_is_signed(send, robot_url):
    robot = Robot("feishu", secret="SEC-7788", now_s=lambda: START_US / 1e6)
    with serving(robot):
        robot_url(robot)
        made = channel("ops", "feishu", secret="env:SIGN", mention=("ou_1",))
        assert (await send(made)).result == "sent"
        robot.now_s = lambda: START_US / 1e6 + 3_700
        late = await send(made)
        assert (late.result, late.code) == ("refused", "code 19021")
    card = robot.got[0]["card"]
    assert card["header"]["template"] == "red"
    assert card["header"]["title"]["content"] == "[HIGH] Pump 1: bearing too hot · Mill"
    assert "Likely cause: lack of oil" in card["elements"][0]["text"]["content"]
    assert card["elements"][1]["content"] == "<at id=ou_1></at>"
    assert card["elements"][2]["actions"][0]["url"] == "https://mill.example/alarms"


async def test_webhook_is_signed_and_carries_every_notice(send, robot_url):
    with serving(Robot("webhook", secret="SEC-7788")) as robot:
        robot_url(robot)
        made = channel("ours", "webhook", secret="env:SIGN")
        assert (await send(made, messages(count=3), "k9")).result == "sent"
        wrong = await send(channel("ours", "webhook"))
        assert (wrong.result, wrong.code) == ("refused", "http 401")
    body = robot.got[0]
    assert body["schema"] == "headrace.notification.v1" and body["id"] == "k9"
    assert [each["asset"][-1] for each in body["notices"]] == ["1", "2", "3"]
    assert robot.headers[0]["idempotency-key"] == "k9"


ANSWERS = [
    ("wecom", {"errcode": 45009, "errmsg": "api freq out of limit"}, "limited", 60),
    ("wecom", {"errcode": -1, "errmsg": "system busy"}, "retry", 0),
    ("wecom", {"errcode": 93000, "errmsg": "invalid webhook url"}, "refused", 0),
    ("dingtalk", {"errcode": 130101, "errmsg": "send too fast"}, "limited", 600),
    ("feishu", {"code": 11232, "msg": "frequency limited"}, "limited", 60),
    ("feishu", {"code": 9499, "msg": "too many request"}, "limited", 60),
    ("feishu", {"code": 9499, "msg": "Bad Request"}, "refused", 0),
    ("feishu", {"StatusCode": 0, "StatusMessage": "success"}, "sent", 0),
    ("feishu", {"hello": 1}, "retry", 0),
]


@pytest.mark.parametrize(("kind", "body", "result", "after_s"), ANSWERS)
async def test_an_error_in_a_200_is_no_success(kind, body, result, after_s, send, robot_url):
    with serving(Robot(kind, scripted=[in_json(body)])) as robot:
        robot_url(robot)
        outcome = await send(channel("ops", kind))
    assert (outcome.result, outcome.retry_after_s) == (result, after_s)


def test_http_status_decides_first():
    assert judge("wecom", 429, {"retry-after": "7"}, b"").retry_after_s == 7
    assert judge("wecom", 429, {"retry-after": "99999"}, b"").retry_after_s == 900
    assert judge("wecom", 429, {"retry-after": "²"}, b"").retry_after_s == 60
    assert judge("webhook", 503, {"retry-after": "20"}, b"later")[:4] == (
        "retry",
        "http 503",
        "later",
        20,
    )
    assert judge("webhook", 302, {}, b"").result == "refused"
    assert judge("dingtalk", 200, {}, b"<html>sign in</html>").result == "retry"


async def test_secrets_come_from_the_data_folder_and_are_never_recorded(send, tmp_path):
    (tmp_path / "secrets").mkdir()
    with serving(Robot("wecom")) as robot:
        (tmp_path / "secrets" / "ops.url").write_text(robot.url() + "\n")
        made = channel("ops", url="file:secrets/ops.url")
        assert (await send(made)).result == "sent"
        robot.scripted = [(500, {}, f"cannot POST {robot.url()}".encode())]
        assert "693a91f6" not in (await send(made)).text
    outcome = await send(made)  # nobody listens any more
    assert outcome.result == "retry" and outcome.code == "network"
    assert blotted("token=abcdef12 wrong", ["https://h/p?token=abcdef12"]) == "*** wrong"
    missing = await send(channel("ops", url="file:secrets/none"))
    assert missing.result == "refused" and missing.code == "ALARM-2004"
    (tmp_path.parent / "outside.url").write_text("http://h/")
    (tmp_path / "link").symlink_to(tmp_path.parent / "outside.url")
    with pytest.raises(Misconfigured, match="outside"):
        resolve_secret("file:link", tmp_path)


async def test_only_its_own_proxy_is_used_and_no_redirect_is_followed(send, monkeypatch):
    with serving(Robot("webhook")) as target, serving(Robot("webhook")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        made = channel("ours", "webhook", url=target.url())
        assert (await send(made)).result == "sent"
        assert len(target.got) == 1 and not proxy.posts
        via = channel("ours", "webhook", url=target.url(), proxy=f"http://127.0.0.1:{proxy.port}")
        assert (await send(via)).result == "sent"
        assert proxy.lines == [target.url()] and len(target.got) == 1
        target.scripted = [(307, {"Location": proxy.url()}, b"")]
        assert (await send(made)).code == "http 307"
        assert len(proxy.posts) == 1


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("authority")
    ensure_authority(folder, 1_700_000_000_000_000)
    ensure_server(folder, ("127.0.0.1",), 1_700_000_000_000_000)
    return folder


async def test_a_private_authority_is_trusted_only_where_it_is_named(send, tmp_path, authority):
    (tmp_path / "ca.pem").write_bytes((authority / "ca.pem").read_bytes())
    pair = str(authority / "server.pem"), str(authority / "server.key")
    with serving(Robot("webhook"), pair) as robot:
        url = robot.url("https")
        strange = await send(channel("ours", "webhook", url=url))
        assert (strange.result, strange.code) == ("refused", "tls")
        known = await send(channel("ours", "webhook", url=url, ca_file="ca.pem"))
        assert known.result == "sent"
    lost = await send(channel("ours", "webhook", url=url, ca_file="none.pem"))
    assert lost.code == "ALARM-2005"


def server_context(authority: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.pem", authority / "server.key")
    return context


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_mail_goes_encrypted_and_signed_in(security, send, tmp_path, authority, monkeypatch):
    monkeypatch.setenv("MAIL", "s3cret-pass")
    (tmp_path / "ca.pem").write_bytes((authority / "ca.pem").read_bytes())
    server = MailServer(
        server_context(authority), security == "tls", user="plant", password="s3cret-pass"
    )
    async with mail_server(server):
        made = channel(
            "post", "email", security=security, port=server.port, user="plant",
            password="env:MAIL", ca_file="ca.pem", to=("a@mill.example", "b@mill.example"),
        )  # fmt: skip
        assert (await send(made, messages("zh"), "k1")).result == "sent"
        assert (await send(made, messages("zh"), "k1")).result == "sent"
        monkeypatch.setenv("MAIL", "wrong-password")
        refused = await send(made)
        assert (refused.result, refused.code) == ("refused", "smtp 535")
        strange = await send(
            channel("post", "email", security=security, port=server.port, user="plant",
                    password="env:MAIL")
        )  # fmt: skip
        assert (strange.result, strange.code) == ("refused", "tls")
    assert server.encrypted == [True, True]
    assert server.recipients[0] == ["a@mill.example", "b@mill.example"]
    mail, again = server.mails
    assert mail["Subject"] == "[高] 1 号泵：轴承过热 · 工厂"
    assert mail["Message-ID"] == again["Message-ID"] and mail["Auto-Submitted"] == "auto-generated"
    assert "可能原因: 缺油" in mail.get_content()


async def test_what_a_mail_server_says_is_understood(send):
    server = MailServer(refuse={"b@mill.example": "550 no such user"})
    async with mail_server(server):
        made = channel("post", "email", security="none", port=server.port)
        server.replies["MAIL"] = ["451 try later"]
        later = await send(made)
        assert (later.result, later.code, later.text) == ("retry", "smtp 451", "try later")
        some = await send(
            channel("post", "email", security="none", port=server.port,
                    to=("a@mill.example", "b@mill.example"))
        )  # fmt: skip
        assert some.result == "sent" and some.text == "but not to b@mill.example (550)"
        nobody = await send(
            channel("post", "email", security="none", port=server.port, to=("b@mill.example",))
        )
        assert (nobody.result, nobody.code) == ("refused", "smtp 550")
        stripped = await send(channel("post", "email", port=server.port))
        assert stripped.result == "refused" and "STARTTLS" in stripped.text
    assert len(server.mails) == 1
    gone = await send(made)
    assert gone.result == "retry"


def test_texts_of_others_cannot_pose_as_parts_of_a_message():
    forged = "hot\n### URGENT\u202e <@all> [x](http://evil)"
    message = messages(message=(forged, ""))
    assert "\n" not in message.title and "\u202e" not in message.title
    assert one_line("a" * 400) == "a" * 299 + "…"


def test_a_digest_counts_what_it_does_not_say():
    message = messages(count=37)
    assert message.title == "37 alarms: 37 HIGH · Mill"
    assert len(message.lines) == 11 and message.lines[-1] == ("", "and 27 more")
    flood = messages("zh", count=1_000)
    assert flood.title == "1000 条报警 · 工厂" and flood.lines[-1] == ("", "另有 990 条")
    waited = messages(count=1)
    assert waited.plain().splitlines()[0] == "[HIGH] Pump 1: bearing too hot · Mill"
