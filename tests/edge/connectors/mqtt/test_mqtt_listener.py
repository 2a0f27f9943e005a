"""What the platform's own MQTT listener does and does not do (docs/adr/0004-mqtt-listener.md)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.edge.connectors.mqtt.session import Will
from headrace.model.errors import Refused, Transient
from mqtt_brokers import Observer, PlatformBroker, open_session


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[PlatformBroker]:
    made = PlatformBroker(tmp_path / "broker")
    made.up()
    yield made
    made.kill()


@pytest.mark.parametrize(
    "topic", ["spBv1.0/a.b/c.", "a*b/>c", "a//b", "/a", "a/", "größe/x", "$x/y"]
)
async def test_topics_that_pass(broker: PlatformBroker, topic: str) -> None:
    async with Observer(broker, topic) as observer:
        await observer.session.publish(topic, b"1", qos=1)
        (message,) = await observer.until(lambda seen: len(seen) == 1)
        assert (message.topic, message.payload) == (topic, b"1")


@pytest.mark.parametrize("topic", ["a b/c", "v1/acme/mill", "$JS/x"])
async def test_topics_that_are_refused(broker: PlatformBroker, topic: str) -> None:
    session = open_session(broker, "onlooker")
    await session.connect()
    with pytest.raises(Refused, match="EDGE-4014") as caught:
        await session.subscribe([(topic, 1)])
    assert topic in str(caught.value)
    await session.close()


async def test_publisher_on_a_topic_with_a_blank_is_disconnected(broker: PlatformBroker) -> None:
    session = open_session(broker, "device")
    await session.connect()
    with pytest.raises(Transient, match="EDGE-4013"):
        await session.publish("a b/c", b"1", qos=1)


@pytest.mark.kill
async def test_retained_will_survives_a_kill(broker: PlatformBroker) -> None:
    will = Will("spBv1.0/STATE/scada", b"gone", 1, True)
    async with Observer(broker, will.topic) as observer:
        session = open_session(broker, "device", will=will)
        await session.connect()
        session.abort()
        await observer.until(lambda seen: len(seen) == 1)
    await broker.stop()
    await broker.start()
    async with Observer(broker, "spBv1.0/#") as observer:
        (message,) = await observer.until(lambda seen: len(seen) == 1)
        assert message.retain and message.payload == b"gone"


@pytest.mark.parametrize("client_id", ["a.b", "a b", "a*", "a>"])
async def test_client_ids_that_are_refused(broker: PlatformBroker, client_id: str) -> None:
    with pytest.raises(Refused, match="EDGE-4016"):
        await open_session(broker, client_id).connect()
