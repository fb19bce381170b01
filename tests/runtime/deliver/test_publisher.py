"""Delivery against a scripted broker: every order of failure that loses or doubles a message elsewhere."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orinspect.runtime.config import MqttConfig
from orinspect.runtime.deliver.outbox import Outbox
from orinspect.runtime.deliver.publisher import Publisher, StationState
from orinspect.runtime.errors import ConfigError
from orinspect.tests.scripted_broker import (
    NOT_AUTHORISED,
    UNKNOWN_PROTOCOL,
    WAIT_S,
    Answer,
    Connect,
    Gone,
    Publish,
    ScriptedBroker,
)

FACTS = StationState("", None, None, "orin-07", "aoi-1", "boot")


def _config(port: int, **changes: Any) -> MqttConfig:
    quick = {"retry_least_s": 0.01, "retry_most_s": 0.05, "connect_timeout_s": 5.0}
    return MqttConfig(host="127.0.0.1", root="plant/line", port=port, **{**quick, **changes})


def _commit(outbox: Outbox, *numbers: int) -> None:
    for number in numbers:
        outbox.accept(f"r{number}", "boot", "cam", number, "{}")
        outbox.commit(f"r{number}", json.dumps({"n": number}))


@contextlib.contextmanager
def _publishing(
    outbox: Outbox, config: MqttConfig, on_failure: Callable[[], None] = lambda: None
) -> Iterator[Publisher]:
    publisher = Publisher(outbox, config, FACTS, on_failure=on_failure, random=lambda: 0.5)
    publisher.start()
    try:
        yield publisher
    finally:
        publisher.close(0.0)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "o.sqlite") as opened:
        yield opened


def _reports(broker: ScriptedBroker, count: int) -> list[int]:
    found = (broker.next(Publish, "/result") for _ in range(count))
    return [json.loads(event.payload)["n"] for event in found if isinstance(event, Publish)]


def test_reports_go_out_in_order_and_are_marked_by_their_puback(outbox: Outbox) -> None:
    _commit(outbox, 1, 2)
    with ScriptedBroker() as broker, _publishing(outbox, _config(broker.port)) as publisher:
        _commit(outbox, 3)
        publisher.wake()
        assert _reports(broker, 3) == [1, 2, 3]
        assert publisher.close(WAIT_S) == 0
        assert outbox.counts()["published"] == 3


def test_everything_is_qos_1_and_only_the_state_is_retained(outbox: Outbox) -> None:
    _commit(outbox, 1)
    with ScriptedBroker() as broker, _publishing(outbox, _config(broker.port)) as publisher:
        publisher.announce("running")
        publisher.close(WAIT_S)
        sent = [event for event in list(broker.events.queue) if isinstance(event, Publish)]
        assert {event.qos for event in sent} == {1}
        assert {event.topic for event in sent if event.retain} == {"plant/line/state"}
        assert {event.topic for event in sent if not event.retain} == {"plant/line/result"}


def test_the_will_is_the_state_offline_and_a_clean_end_says_goodbye(outbox: Outbox) -> None:
    with ScriptedBroker() as broker, _publishing(outbox, _config(broker.port)) as publisher:
        publisher.announce("ready")
        connect = broker.next(Connect)
        assert isinstance(connect, Connect)
        assert (connect.will_topic, connect.will_retain, connect.will_qos) == ("plant/line/state", True, 1)
        will = json.loads(connect.will_payload)
        assert (will["state"], will["reason"], will["since"]) == ("offline", "connection lost", None)
        assert broker.next(Publish, "/state")
        publisher.close(WAIT_S)
        last = broker.next(Publish, "/state")
        assert isinstance(last, Publish)
        assert json.loads(last.payload)["reason"] == "stopped"
        assert broker.next(Gone) == Gone(said_goodbye=True)


def test_without_puback_the_row_stays_and_is_sent_again_over_the_next_connection(outbox: Outbox) -> None:
    closes = iter([True])
    with ScriptedBroker(
        puback=lambda publish: "close" if publish.topic.endswith("result") and next(closes, False) else "ack"
    ) as broker:
        _commit(outbox, 1)
        with _publishing(outbox, _config(broker.port)) as publisher:
            assert _reports(broker, 2) == [1, 1]
            assert publisher.close(WAIT_S) == 0
            assert publisher.connections == 2


def test_a_report_that_nobody_confirms_is_still_waiting_after_the_stop(outbox: Outbox) -> None:
    with ScriptedBroker(
        puback=lambda publish: "silence" if publish.topic.endswith("result") else "ack"
    ) as broker:
        _commit(outbox, 1)
        with _publishing(outbox, _config(broker.port)) as publisher:
            _reports(broker, 1)
            assert publisher.close(0.2) == 1
    assert [row.result_id for row in outbox.waiting(9)] == ["r1"]


def test_no_more_than_inflight_are_on_the_way(outbox: Outbox) -> None:
    """One of the four places is kept for what is inspected while the backlog drains."""
    gate = threading.Event()
    _commit(outbox, *range(1, 8))
    with (
        ScriptedBroker(puback=lambda publish: "ack" if gate.is_set() else "silence") as broker,
        _publishing(outbox, _config(broker.port, inflight=4)),
    ):
        assert _reports(broker, 3) == [1, 2, 3]
        assert outbox.counts()["published"] == 0
        assert not [e for e in list(broker.events.queue) if isinstance(e, Publish)]
        gate.set()
        broker.drop()  # the three are unconfirmed: they come again, then the rest
        assert _reports(broker, 7) == [1, 2, 3, 4, 5, 6, 7]


def test_a_broken_connection_comes_back_with_the_last_state(outbox: Outbox) -> None:
    with ScriptedBroker() as broker, _publishing(outbox, _config(broker.port)) as publisher:
        for state in ("starting", "running"):
            publisher.announce(state)
            assert json.loads(broker.next(Publish, "/state").payload)["state"] == state  # type: ignore[union-attr]
        broker.drop()
        assert broker.next(Gone) == Gone(said_goodbye=False)
        again = broker.next(Publish, "/state")
        assert isinstance(again, Publish)
        assert json.loads(again.payload)["state"] == "running"


@pytest.mark.parametrize("protocol", ["auto", "5", "3.1.1"])
def test_a_refusal_is_an_alarm_by_name_and_is_waited_out(outbox: Outbox, protocol: str) -> None:
    is_welcome = threading.Event()
    _commit(outbox, 1)
    with ScriptedBroker(
        connack=lambda connect: 0 if is_welcome.is_set() else NOT_AUTHORISED[connect.level]
    ) as broker:
        config = _config(broker.port, protocol=protocol)
        with _publishing(outbox, config) as publisher:
            for _ in range(3):
                broker.next(Connect)
            message = publisher.alarms.standing()["mqtt.not_authorised"]
            assert f"127.0.0.1:{broker.port}" in message
            assert "Not authorized" in message
            assert "135" in message
            assert outbox.counts()["committed"] == 1
            is_welcome.set()
            alarms = [json.loads(broker.next(Publish, "/alarm").payload) for _ in range(2)]  # type: ignore[union-attr]
            assert _reports(broker, 1) == [1]
            assert publisher.close(WAIT_S) == 0
            assert publisher.failure is None
            assert [(alarm["code"], alarm["active"]) for alarm in alarms] == [
                ("mqtt.not_authorised", True),
                ("mqtt.not_authorised", False),
            ]


def test_a_refusal_after_it_worked_once_is_waited_out(outbox: Outbox) -> None:
    answers = iter([0, 0x87, 0x87])
    with (
        ScriptedBroker(connack=lambda connect: next(answers, 0)) as broker,
        _publishing(outbox, _config(broker.port)) as publisher,
    ):
        broker.next(Connect)
        _commit(outbox, 1)
        publisher.wake()
        _reports(broker, 1)
        broker.drop()
        for _ in range(3):
            broker.next(Connect)
        _commit(outbox, 2)
        publisher.wake()
        while _reports(broker, 1) != [2]:  # the first comes again when its PUBACK was cut off
            pass
        assert publisher.failure is None


def test_a_busy_broker_is_asked_again(outbox: Outbox) -> None:
    answers = iter([0x88, 0x89])  # server unavailable, server busy
    _commit(outbox, 1)
    with (
        ScriptedBroker(connack=lambda connect: next(answers, 0)) as broker,
        _publishing(outbox, _config(broker.port, protocol="5")) as publisher,
    ):
        assert _reports(broker, 1) == [1]
        assert publisher.failure is None


@pytest.mark.parametrize("refusal", ["says so", "closes", "is silent"])
def test_a_broker_without_mqtt_5_gets_3_1_1(outbox: Outbox, refusal: str) -> None:
    hold = threading.Event()

    def connack(connect: Connect) -> int | None:
        if connect.level == 4:
            return 0
        if refusal == "is silent":
            hold.wait(WAIT_S)
        return UNKNOWN_PROTOCOL[5] if refusal == "says so" else None

    _commit(outbox, 1)
    with (
        ScriptedBroker(connack=connack) as broker,
        _publishing(outbox, _config(broker.port, connect_timeout_s=0.5)) as publisher,
    ):
        assert [broker.next(Connect).level for _ in range(2)] == [5, 4]  # type: ignore[union-attr]
        assert _reports(broker, 1) == [1]
        broker.drop()
        assert broker.next(Connect).level == 4  # type: ignore[union-attr]  # what worked is tried first
        assert publisher.close(WAIT_S) == 0
        hold.set()


def test_a_negative_puback_is_not_a_delivery(outbox: Outbox) -> None:
    answers: Iterator[Answer] = iter(["refuse"])
    _commit(outbox, 1)
    with (
        ScriptedBroker(
            puback=lambda publish: next(answers, "ack") if publish.topic.endswith("result") else "ack"
        ) as broker,
        _publishing(outbox, _config(broker.port)) as publisher,
    ):
        assert _reports(broker, 2) == [1, 1]
        assert publisher.close(WAIT_S) == 0


def _alarm_texts(publisher: Publisher) -> queue.Queue[tuple[str, str | None]]:
    """Alarms as they are raised and cleared."""
    found: queue.Queue[tuple[str, str | None]] = queue.Queue()
    publisher.alarms.on_change = lambda code, text: found.put((code, text))
    return found


def _until(alarms: queue.Queue[tuple[str, str | None]], code: str, is_raised: bool = True) -> str:
    while True:
        found, text = alarms.get(timeout=WAIT_S)
        if found == code and (text is not None) == is_raised:
            return text or ""


@pytest.mark.parametrize(
    ("codes", "alarm"),
    [
        ([0x99], "mqtt.report_refused"),  # payload format invalid: about this report
        ([0x95], "mqtt.report_refused"),  # no code of PUBACK, and paho reads no such packet
        ([0x80, 0x80, 0x80], "mqtt.report_refused"),  # unspecified, three times
    ],
)
def test_a_report_that_the_broker_will_not_have_lets_the_others_pass(
    outbox: Outbox, codes: list[int], alarm: str
) -> None:
    answers = iter(codes)
    _commit(outbox, 1, 2)
    with ScriptedBroker(
        puback=lambda publish: next(answers, "ack") if b'"n": 1}' in publish.payload else "ack"
    ) as broker:
        publisher = Publisher(
            outbox, _config(broker.port, inflight=1), FACTS, on_failure=lambda: None, random=lambda: 0.5
        )
        alarms = _alarm_texts(publisher)
        publisher.start()
        assert "r1" in _until(alarms, alarm if codes != [0x95] else "mqtt.packet_too_large")
        assert publisher.close(WAIT_S) == 1
    assert outbox.refused() == 1
    assert outbox.counts()["published"] == 1
    with ScriptedBroker() as broker, _publishing(outbox, _config(broker.port)) as publisher:
        assert _reports(broker, 1) == [1]  # the next start asks again
        assert publisher.close(WAIT_S) == 0


@pytest.mark.parametrize(("code", "alarm"), [(0x87, "mqtt.publish_denied"), (0x97, "mqtt.quota")])
def test_a_refusal_that_is_about_all_reports_is_waited_out(outbox: Outbox, code: int, alarm: str) -> None:
    answers: Iterator[Answer] = iter([code, code])
    _commit(outbox, 1)
    with ScriptedBroker(
        puback=lambda publish: next(answers, "ack") if publish.topic.endswith("result") else "ack"
    ) as broker:
        publisher = Publisher(
            outbox, _config(broker.port), FACTS, on_failure=lambda: None, random=lambda: 0.5
        )
        alarms = _alarm_texts(publisher)
        publisher.start()
        assert "r1" in _until(alarms, alarm)
        _until(alarms, alarm, is_raised=False)
        assert publisher.close(WAIT_S) == 0
        assert publisher.connections == 1


def test_a_session_that_is_taken_over_again_and_again_is_a_duplicate_client_id(outbox: Outbox) -> None:
    with ScriptedBroker() as broker:
        publisher = Publisher(
            outbox, _config(broker.port), FACTS, on_failure=lambda: None, random=lambda: 0.5, calm_s=0.5
        )
        alarms = _alarm_texts(publisher)
        publisher.announce("running")
        publisher.start()
        for _ in range(3):
            broker.next(Publish, "/state")
            broker.disconnect(0x8E)
        assert "taken over" in _until(alarms, "mqtt.session_taken_over")
        assert "orinspect-orin-07-aoi-1" in _until(alarms, "mqtt.duplicate_client_id")
        assert publisher.failure is None
        _until(alarms, "mqtt.duplicate_client_id", is_raised=False)
        publisher.close(WAIT_S)


def test_a_broker_that_answers_pings_and_confirms_nothing_is_left(outbox: Outbox) -> None:
    """Half-open: whatever else happens on the line must not prolong the patience."""
    is_silent = threading.Event()
    is_silent.set()
    with ScriptedBroker(puback=lambda publish: "silence" if is_silent.is_set() else "ack") as broker:
        _commit(outbox, 1)
        with _publishing(outbox, _config(broker.port, keepalive_s=1)) as publisher:
            for number in range(2, 6):
                _reports(broker, 1)
                _commit(outbox, number)
                publisher.wake()
            broker.next(Gone)
            is_silent.clear()
            assert publisher.close(WAIT_S) == 0
            assert publisher.connections >= 2


def test_new_reports_do_not_wait_behind_a_backlog(outbox: Outbox) -> None:
    """The backlog is confirmed one by one as the test says; what is committed meanwhile goes out next."""
    step = threading.Semaphore(0)
    _commit(outbox, *range(1, 101))

    def answer(publish: Publish) -> Answer:
        if publish.topic.endswith("result"):
            step.acquire(timeout=WAIT_S)
        return "ack"

    with (
        ScriptedBroker(puback=answer) as broker,
        _publishing(outbox, _config(broker.port, inflight=8)) as publisher,
    ):
        _reports(broker, 1)
        _commit(outbox, 1000)
        publisher.wake()
        seen = []
        while 1000 not in seen:
            step.release()
            seen += _reports(broker, 1)
        assert len(seen) <= 10, "behind what was on the way already"
        for _ in range(200):
            step.release()
        assert publisher.close(WAIT_S) == 0
    assert outbox.counts()["published"] == 101


def test_an_unacknowledged_report_is_sent_again_until_the_mes_has_it(outbox: Outbox) -> None:
    _commit(outbox, 1, 2)
    with ScriptedBroker() as broker:
        config = _config(broker.port, ack="required", ack_timeout_s=0.2)
        publisher = Publisher(outbox, config, FACTS, on_failure=lambda: None, random=lambda: 0.5)
        alarms = _alarm_texts(publisher)
        publisher.start()
        assert sorted(_reports(broker, 2)) == [1, 2]
        assert sorted(_reports(broker, 4))[:2] == [1, 1], "again, with the same content"
        assert "not acknowledged" in _until(alarms, "mes.no_ack")
        outbox.mark_acknowledged("r1", "r2")
        publisher.close(WAIT_S)
    assert outbox.counts()["acknowledged"] == 2
    assert outbox.first_due() is None


def test_without_ack_required_nothing_is_sent_twice(outbox: Outbox) -> None:
    _commit(outbox, 1)
    with ScriptedBroker() as broker, _publishing(outbox, _config(broker.port)) as publisher:
        _reports(broker, 1)
        assert publisher.close(WAIT_S) == 0
        assert outbox.first_due() is None


def test_nobody_listens_there(outbox: Outbox) -> None:
    """The outbox exists for this: no failure, everything waits, and a stop is quick."""
    with ScriptedBroker() as gone:
        port = gone.port
    _commit(outbox, 1)
    with _publishing(outbox, _config(port)) as publisher:
        assert publisher.close(0.3) == 1
        assert publisher.failure is None
        assert "Connection refused" in publisher.last_error


def test_an_outbox_that_fails_for_a_while_is_tried_again(outbox: Outbox) -> None:
    with ScriptedBroker() as broker, _publishing(outbox, _config(broker.port)) as publisher:
        broker.next(Connect)
        with outbox._atomic() as connection:
            connection.execute("ALTER TABLE result RENAME TO away")
        publisher.wake()
        broker.next(Gone)
        broker.next(Connect)
        with outbox._atomic() as connection:
            connection.execute("ALTER TABLE away RENAME TO result")
        _commit(outbox, 1)
        publisher.wake()
        assert _reports(broker, 1) == [1]
        assert "no such table" in publisher.last_error


def test_delivery_never_dies_unseen(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = threading.Event()

    def broken(limit: int, **_: object) -> tuple[()]:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(outbox, "waiting", broken)
    with ScriptedBroker() as broker, _publishing(outbox, _config(broker.port), failed.set) as publisher:
        assert failed.wait(WAIT_S)
        assert "a fault of ours" in str(publisher.failure)


def test_a_password_file_that_is_missing_ends_it(outbox: Outbox, tmp_path: Path) -> None:
    failed = threading.Event()
    with ScriptedBroker() as broker:
        config = _config(broker.port, username="u", password_file=tmp_path / "none")
        with _publishing(outbox, config, failed.set) as publisher:
            assert failed.wait(WAIT_S)
            assert isinstance(publisher.failure, ConfigError)
            assert "password_file" in str(publisher.failure)


def test_the_pause_between_attempts_doubles_up_to_its_most_with_jitter(outbox: Outbox) -> None:
    draws = iter([0.0, 0.999, 0.0, 0.0])
    publisher = Publisher(
        outbox,
        _config(1, retry_least_s=1.0, retry_most_s=10.0),
        FACTS,
        on_failure=lambda: None,
        random=lambda: next(draws),
    )
    pauses = [publisher.delay_s(attempt) for attempt in (0, 0, 2, 50)]
    assert pauses == [0.5, pytest.approx(1.0, abs=0.01), 2.0, 5.0]
