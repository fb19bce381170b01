"""What happens over one connection: messages on the way, what their answers mean, and who goes first."""

from __future__ import annotations

import contextlib
import logging
import queue
import time
from typing import TYPE_CHECKING, Any

from ...errors import DeliveryError
from ..ack import result_ids_from_ack
from ..mqtt import PACKET_TOO_LARGE, Acknowledged, Denied, Lost, MqttLink, Received
from ..outbox import Committed
from .mail import Command

if TYPE_CHECKING:
    from ..publisher import Publisher, StationState

_LETTERS_AT_ONCE = 5  # on the way beside the reports
_BESIDE = _LETTERS_AT_ONCE + 2  # and states
_PUBACK_SLACK = 1.5  # of keepalive_s: a broker that answers pings but no PUBLISH for longer is no use
_GOODBYE_S = 2.0
_EVENTS_AT_ONCE = 500
_TRIES = 3  # of a report that the broker refuses without saying whose fault it is

# PUBACK reason codes of MQTT 5 (section 3.4.2.1) by what they say something about; 0x95 is mosquitto's.
_ABOUT_THE_REPORT = {PACKET_TOO_LARGE: "mqtt.packet_too_large", 0x99: "mqtt.report_refused"}
_ABOUT_THE_TOPIC = {0x87: "mqtt.publish_denied", 0x90: "mqtt.publish_denied", 0x97: "mqtt.quota"}

log = logging.getLogger(__name__)


class Session:
    """One connection, from its first message to its end. It lives in the delivery thread."""

    def __init__(self, publisher: Publisher, link: MqttLink) -> None:
        self.confirmed = 0  # messages of any kind
        self._publisher, self._link, self._outbox = publisher, link, publisher.outbox
        self._window = max(min(publisher.config.inflight, link.receive_maximum - _BESIDE), 1)
        self._live_share = min(max(self._window // 4, 1), self._window - 1)
        self._reports: dict[int, Committed] = {}  # message id -> report
        self._again: dict[int, str] = {}  # message id -> id of a report sent again for want of an ack
        self._states: set[int] = set()  # message ids
        self._letters: dict[int, int] = {}  # message id -> number of the letter
        # While draining: the newest row when that began. What is written from now on is live.
        self._backlog_end: int | None = self._outbox.last_number()
        self._old: set[int] = set()  # message ids of reports of the backlog
        self._held_until_s = 0.0  # no report before, after a refusal that is about all of them
        self._holds = 0
        self._progress_s = self._begun_s = time.monotonic()
        self._resent_round: int | None = None  # nothing was acknowledged since
        self._published: list[str] = []  # confirmed and not written yet
        self._acknowledged: list[str] = []

    def serve(self) -> Lost | str | None:
        """Run until the work is done (None) or the connection is no use any more (why)."""
        publisher = self._publisher
        self._link.subscribe(publisher.topic("ack"))
        if publisher.on_command is not None:
            self._link.subscribe(publisher.topic("cmd/#"))
        publisher.mail.begin()
        if publisher.state is not None:
            self._send_state(publisher.state)
        goodbye = False
        while True:
            self._send_states()
            self._send_letters()
            self._send_reports()
            if publisher.deadline_s is not None:
                late = time.monotonic() >= publisher.deadline_s
                is_empty = publisher.states.empty() and (late or not len(publisher.mail))
                if not goodbye and is_empty and publisher.is_finished():
                    if publisher.state is None or publisher.state.state != "fault":
                        self._send_state(publisher.state_now("offline", "stopped"))
                    goodbye = True
                if goodbye and not self._states:
                    return None
            problem: Lost | str | None = None
            for event in self._next_events(goodbye):
                problem = problem or self._handle(event)
            self._write_confirmations()
            if problem is not None:
                return problem
            if self._is_owed() and time.monotonic() > self._progress_s + self._patience_s():
                return "the broker confirms nothing any more"
            if goodbye and time.monotonic() > self._progress_s + _GOODBYE_S:
                return None
            publisher.be_calm(self._begun_s)

    def on_the_way(self) -> dict[str, int]:
        """Reports without an answer, id -> bytes."""
        return {row.result_id: len(row.payload) for row in self._reports.values()}

    def _next_events(self, goodbye: bool) -> list[Any]:
        """Wait for an event, and take all that came with it: their rows are marked in one transaction."""
        events, found = self._publisher.events, list[Any]()
        with contextlib.suppress(queue.Empty):
            found.append(events.get(timeout=self._wait_s(goodbye)))
            while len(found) < _EVENTS_AT_ONCE:
                found.append(events.get_nowait())
        return found

    def _wait_s(self, goodbye: bool) -> float | None:
        """Until the next moment at which something is to be done without an event; None: there is none."""
        now, moments = time.monotonic(), []
        if self._is_owed():
            moments.append(self._progress_s + self._patience_s() + 0.01)
        if goodbye:
            moments.append(self._progress_s + _GOODBYE_S + 0.01)
        elif self._publisher.deadline_s is not None:
            moments.append(self._publisher.deadline_s)
        if self._held_until_s > now:
            moments.append(self._held_until_s)
        if self._publisher.rounds is not None:
            moments.append(now + self._publisher.rounds.round_s)
        calm = self._publisher.calm_at(self._begun_s)
        if calm is not None:
            moments.append(calm)
        return max(min(moments) - now, 0.0) if moments else None

    def _patience_s(self) -> float:
        return self._publisher.config.keepalive_s * _PUBACK_SLACK

    def _is_owed(self) -> bool:
        """True while the broker has to confirm something."""
        return bool(self._reports or self._states or self._letters or self._again)

    def _handle(self, event: Any) -> Lost | str | None:
        """Take one event; anything but None says that the link is no use any more."""
        if isinstance(event, Received):
            self._receive(event)
        elif isinstance(event, Lost) and event.link is self._link:
            return event
        elif isinstance(event, Denied) and event.link is self._link:
            self._publisher.alarms.set("mqtt.subscribe_denied", f"{event.topic}: {event.reason}")
        elif isinstance(event, Acknowledged) and event.link is self._link:
            self._settle(event)
        return None

    def _settle(self, answer: Acknowledged) -> None:
        """A PUBACK, of whatever kind of message."""
        self._progress_s = time.monotonic()
        row, again = self._reports.pop(answer.mid, None), self._again.pop(answer.mid, None)
        self._old.discard(answer.mid)
        self._states.discard(answer.mid)
        number = self._letters.pop(answer.mid, None)
        if number is not None:
            letter = self._publisher.mail.settle(number)
            if answer.reason is not None and letter is not None:
                log.warning("the broker refused a message on %s: %s", letter.topic, answer.reason)
        if answer.reason is not None:
            if row is not None:
                self._refused(row, answer)
            elif again is None and number is None:
                log.warning("the broker refused the state: %s", answer.reason)
            return
        self.confirmed += 1
        if row is not None:
            self._holds = 0
            self._published.append(row.result_id)
            self._publisher.suspects.confirmed(row.result_id, len(row.payload))
            self._publisher.refusals.pop(row.result_id, None)
            self._publisher.alarms.clear("mqtt.publish_denied", "mqtt.quota")
        if again is not None and self._publisher.rounds is not None:
            tries = self._outbox.tries(again) + 1
            self._outbox.mark_sent_again(again, self._publisher.rounds.due(tries, time.monotonic()))

    def _refused(self, row: Committed, answer: Acknowledged) -> None:
        """A negative PUBACK: is it about this report alone, or about all of them?"""
        publisher, text = self._publisher, f"{row.result_id}: {answer.reason}"
        if answer.code in _ABOUT_THE_REPORT:
            publisher.set_aside(row.result_id, str(answer.reason), _ABOUT_THE_REPORT[answer.code])
            return
        if answer.code in _ABOUT_THE_TOPIC:
            publisher.alarms.set(_ABOUT_THE_TOPIC[answer.code], text)
        else:
            publisher.refusals[row.result_id] = publisher.refusals.get(row.result_id, 0) + 1
            if publisher.refusals[row.result_id] >= _TRIES:
                del publisher.refusals[row.result_id]
                publisher.set_aside(row.result_id, str(answer.reason), "mqtt.report_refused")
        delay_s = publisher.delay_s(self._holds)
        self._holds += 1
        self._held_until_s = time.monotonic() + delay_s
        publisher.last_error = f"the broker refused {text}"
        log.warning("%s; reports wait, next attempt in %.1f s", publisher.last_error, delay_s)

    def _write_confirmations(self) -> None:
        rounds = self._publisher.rounds
        if self._published:
            due = None if rounds is None else rounds.due(0, time.monotonic())
            self._outbox.mark_published(*self._published, due=due)
            self._published.clear()
            self._publisher.alarms.clear("outbox.refuses")
        if self._acknowledged:
            known = self._outbox.mark_acknowledged(*self._acknowledged)
            if known < len(self._acknowledged):
                strangers = len(self._acknowledged) - known
                log.warning("ack: %d unknown results, one of %r", strangers, self._acknowledged[:20])
            if known:
                self._resent_round = None
                self._publisher.alarms.clear("mes.no_ack")
            self._acknowledged.clear()

    def _send_reports(self) -> None:
        """Put waiting reports on the way, as many as may be there; then those that nobody acknowledged."""
        if time.monotonic() < self._held_until_s:
            return
        while self._fill():
            pass
        self._send_again()

    def _fill(self) -> bool:
        """Fill the window; True when a report was set aside, so that there is room for another."""
        is_careful = self._publisher.suspects.is_careful
        room = (1 if is_careful else self._window) - len(self._reports)
        if room <= 0:
            return False
        busy = {row.result_id for row in self._reports.values()}
        rows = self._outbox.waiting(room, without=busy)
        live: tuple[Committed, ...] = ()
        if len(rows) < room or is_careful:
            self._backlog_end = None
        else:  # a backlog: what is inspected now goes before it, in slots that the backlog never takes
            if self._backlog_end is None:
                self._backlog_end = self._outbox.last_number()
            live = self._outbox.waiting(self._live_share, without=busy, after=self._backlog_end)[-room:]
            fresh = {row.result_id for row in live}
            free = min(room - len(live), self._window - self._live_share - len(self._old))
            rows = tuple(row for row in rows if row.result_id not in fresh)[: max(free, 0)]
        aside = [row for row in (*live, *rows) if not self._send_report(row, row not in live)]
        return bool(aside)

    def _send_report(self, row: Committed, is_old: bool) -> bool:
        """Put one report on the way; False when the broker said that it takes none so large."""
        topic = self._publisher.topic("result")
        if not self._link.fits(topic, row.payload):
            self._publisher.set_aside(
                row.result_id,
                f"{len(row.payload)} characters, the broker takes {self._link.maximum_packet_size} bytes",
                "mqtt.packet_too_large",
            )
            return False
        mid = self._link.publish(topic, row.payload)
        if not self._is_owed():
            self._progress_s = time.monotonic()
        self._reports[mid] = row
        if is_old and self._backlog_end is not None:
            self._old.add(mid)
        return True

    def _send_again(self) -> None:
        """Reports without the MES's ack. While it acknowledges nothing at all, a few a round are enough."""
        rounds = self._publisher.rounds
        if rounds is None:
            return
        now = rounds.at(time.monotonic())
        room = max(self._live_share, 1) - len(self._again)
        if room <= 0 or (self._resent_round is not None and self._resent_round >= now):
            return
        for row in self._outbox.due(now, room, without=set(self._again.values())):
            self._resent_round = now
            if self._outbox.tries(row.result_id) >= 1:
                self._publisher.alarms.set(
                    "mes.no_ack", f"{row.result_id} was published and not acknowledged, more than once"
                )
            if not self._is_owed():
                self._progress_s = time.monotonic()
            self._again[self._link.publish(self._publisher.topic("result"), row.payload)] = row.result_id

    def _send_letters(self) -> None:
        """Put other messages on the way, a few at a time."""
        publisher = self._publisher
        for number, letter in publisher.mail.take(_LETTERS_AT_ONCE - len(self._letters)):
            topic = letter.topic if letter.is_full else publisher.topic(letter.topic)
            if not self._link.fits(topic, letter.payload):
                log.warning("a message on %s is larger than the broker takes; it is dropped", topic)
                publisher.mail.settle(number)
                continue
            if not self._is_owed():
                self._progress_s = time.monotonic()
            mid = self._link.publish(
                topic, letter.payload, retain=letter.retain, correlation=letter.correlation
            )
            self._letters[mid] = number

    def _send_states(self) -> None:
        """Publish every state announced meanwhile, in order."""
        while True:
            try:
                state = self._publisher.states.get_nowait()
            except queue.Empty:
                return
            self._send_state(state)

    def _send_state(self, state: StationState) -> None:
        self._publisher.state = state
        if not self._is_owed():
            self._progress_s = time.monotonic()
        self._states.add(self._link.publish(self._publisher.topic("state"), state.to_json(), retain=True))

    def _receive(self, message: Received) -> None:
        """Take a message of somebody else; whatever it holds, delivery goes on."""
        name = message.topic[len(self._publisher.topic("")) :]
        if name == "ack":
            try:
                self._acknowledged += result_ids_from_ack(message.payload)
            except DeliveryError as error:
                log.warning("%s", error)
        elif name.startswith("cmd/") and self._publisher.on_command is not None:
            command = Command(
                name[len("cmd/") :],
                message.payload,
                message.is_retained,
                message.response_topic,
                message.correlation,
            )
            try:
                self._publisher.on_command(command)
            except Exception:
                log.exception("the command %r failed", command.name)
