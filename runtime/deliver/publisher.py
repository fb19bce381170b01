"""The delivery thread: reports from the outbox to the broker, and the station's state beside them.

At least once, in the outbox's order: a row is marked only by its PUBACK, and whatever a broken connection
left unmarked is sent again over the next one. Everything that concerns delivery happens in this one thread,
which waits on one queue of events; the other threads only put events there.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..config import MqttConfig
from ..errors import ConfigError, DeliveryError
from ..report import timestamp
from .ack import result_ids_from_ack
from .link.mail import Command, Letter, Mail
from .mqtt import (
    OTHER_PROTOCOL_MAY_HELP,
    Acknowledged,
    Lost,
    MqttLink,
    Protocol,
    Received,
    RefusedError,
    Will,
)
from .outbox import Outbox

STATES = (
    "starting",
    "building_engines",
    "self_test",
    "ready",
    "running",
    "degraded",
    "fault",
    "stopping",
    "offline",
)
_LETTERS_AT_ONCE = 5  # on the way beside the reports
_PUBACK_SLACK = 1.5  # of keepalive_s: a broker that answers pings but no PUBLISH for longer is no use

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StationState:
    """One message on `state`; `since` is None in the will, whose moment only the broker knows."""

    state: str
    reason: str | None
    since: str | None
    device_id: str
    station_id: str
    boot_id: str

    def to_json(self) -> str:
        """The payload, `orinspect.state/1.0`."""
        return json.dumps({"schema": "orinspect.state/1.0", **self.__dict__}, ensure_ascii=False)


@dataclass(frozen=True)
class _Wake:
    """Look again: a report was committed or the thread must stop."""


class Publisher:
    """Start with `start`, `wake` it after each commit, end with `close`, which delivers what it still can.

    `on_failure` is called in the delivery thread when the broker refuses the first connection for good; the
    thread ends then and `failure` holds the error. `on_command`, set before `start`, is called in the
    delivery thread with every message on `cmd/#`: it must not wait, and answers with `answer` from any
    thread.
    """

    def __init__(
        self,
        outbox: Outbox,
        config: MqttConfig,
        facts: StationState,
        *,
        on_failure: Callable[[], None],
        random: Callable[[], float],
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        """`facts` names the station; its state and reason do not matter. `random()` lies in [0, 1)."""
        self.failure: DeliveryError | ConfigError | None = None
        self.on_command: Callable[[Command], None] | None = None
        self.connections = 0
        self.last_error = "never tried"
        self._outbox, self._config, self._facts = outbox, config, facts
        self._on_failure, self._random, self._unix_s = on_failure, random, unix_s
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._states: queue.SimpleQueue[StationState] = queue.SimpleQueue()
        self._mail = Mail()
        self._state: StationState | None = None
        self._protocols: tuple[Protocol, ...] = (
            ("5", "3.1.1") if config.protocol == "auto" else (config.protocol,)
        )
        self._deadline: float | None = None  # monotonic seconds; set once the thread must end
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)

    def start(self) -> None:
        """Begin to connect; nothing waits for it."""
        self._thread.start()

    def wake(self) -> None:
        """A report was committed."""
        self._events.put(_Wake())

    def announce(self, state: str, reason: str | None = None) -> None:
        """Publish the station's state, retained; while there is no connection only the last one is kept."""
        self._states.put(self._facts_as(state, reason))
        self._events.put(_Wake())

    def publish(self, name: str, payload: str, *, retain: bool = False) -> None:
        """Publish on `<root>/<name>` at QoS 1, from any thread; nothing waits. While there is no connection a
        retained topic keeps its last message, any other topic the last hundred. `result` and `state` have
        ways of their own."""
        self._mail.post(Letter(name, payload, retain))
        self._events.put(_Wake())

    def answer(self, command: Command, payload: str) -> None:
        """Answer a command where its sender listens: the response topic of MQTT 5 with its correlation data,
        else `cmd-response`. A response topic may not be one of this station's own: a command must not be
        able to forge a report."""
        topic = command.response_topic
        root = f"{self._config.root}/"
        is_ours = topic is not None and f"{topic}/".startswith(root)
        if (
            topic is None
            or set(topic) & set("+#\0")
            or (is_ours and topic[len(root) :].split("/")[0] != "cmd-response")
        ):
            self._mail.post(Letter("cmd-response", payload, correlation=command.correlation))
        else:
            self._mail.post(Letter(topic, payload, is_full=True, correlation=command.correlation))
        self._events.put(_Wake())

    def close(self, timeout_s: float) -> int:
        """Deliver what waits for at most `timeout_s`, publish `offline`, disconnect; return what is left.

        A `fault` stays the retained state: whoever looks later must see why the station is not there.
        """
        self._deadline = time.monotonic() + timeout_s
        self._events.put(_Wake())
        if self._thread.ident is not None:
            self._thread.join(timeout_s + self._config.connect_timeout_s + 5.0)
        return self._outbox.counts()["committed"]

    def _facts_as(self, state: str, reason: str | None) -> StationState:
        facts = self._facts
        since = timestamp(self._unix_s())
        return StationState(state, reason, since, facts.device_id, facts.station_id, facts.boot_id)

    def _run(self) -> None:
        """The thread. It never dies unseen: reports would pile up behind a station that looks healthy."""
        try:
            self._deliver()
        except BaseException as error:
            log.exception("delivery stopped unexpectedly")
            self.failure = DeliveryError(f"delivery stopped unexpectedly: {error!r}")
            self._on_failure()

    def _deliver(self) -> None:
        """Connect, serve until the connection breaks, wait, again."""
        attempt = 0
        while not self._is_finished():
            try:
                link = self._connected()
            except (DeliveryError, ConfigError) as error:
                lasting = isinstance(error, ConfigError) or (
                    isinstance(error, RefusedError) and error.lasting
                )
                if lasting and not self.connections:
                    self.failure = error
                    self._on_failure()
                    return
                problem = str(error)
            else:
                self.connections += 1
                log.info("connected to %s:%d, MQTT %s", self._config.host, self._config.port, link.protocol)
                attempt = 0
                try:
                    with link:
                        done = _Session(self, link).serve()
                except DeliveryError as error:  # the outbox: a full disk may have room again later
                    done = str(error)
                if done is None:
                    return
                problem = done
            self.last_error = problem
            delay_s = self._delay_s(attempt)
            log.warning("%s; reports wait in the outbox, next attempt in %.1f s", problem, delay_s)
            self._rest(delay_s)
            attempt += 1

    def _connected(self) -> MqttLink:
        """A new link, in the newest protocol that the broker speaks."""
        facts = self._facts
        will = StationState(
            "offline", "connection lost", None, facts.device_id, facts.station_id, facts.boot_id
        )
        client_id = self._config.client_id or f"orinspect-{facts.device_id}-{facts.station_id}"
        for protocol in self._protocols:
            try:
                link = MqttLink(
                    self._config, client_id, Will(self.topic("state"), will.to_json()), self._events, protocol
                )
            except RefusedError as error:
                if error.code in OTHER_PROTOCOL_MAY_HELP and protocol != self._protocols[-1]:
                    continue
                raise
            self._protocols = (protocol, *(other for other in self._protocols if other != protocol))
            return link
        raise AssertionError("no protocol to try")

    def topic(self, name: str) -> str:
        """The full topic of `result`, `state`, ..."""
        return f"{self._config.root}/{name}"

    def _delay_s(self, attempt: int) -> float:
        """Doubling with jitter, so that a line of stations does not come back in one instant."""
        ceiling = min(self._config.retry_least_s * 2.0 ** min(attempt, 16), self._config.retry_most_s)
        return ceiling * (0.5 + 0.5 * self._random())

    def _rest(self, delay_s: float) -> None:
        """Wait, but not beyond the end of the thread's time."""
        until = time.monotonic() + delay_s
        while not self._is_finished():
            end = until if self._deadline is None else min(until, self._deadline)
            left_s = end - time.monotonic()
            if left_s <= 0:
                return
            try:
                self._events.get(timeout=left_s)
            except queue.Empty:
                return

    def _is_finished(self) -> bool:
        """True when the thread must end and has nothing left to do, or no time left to do it."""
        if self._deadline is None:
            return False
        return time.monotonic() >= self._deadline or not self._outbox.waiting(1)


class _Session:
    """What happens over one link: messages on the way and what their answers will mean."""

    def __init__(self, publisher: Publisher, link: MqttLink) -> None:
        self._publisher, self._link = publisher, link
        self._outbox, self._inflight = publisher._outbox, publisher._config.inflight
        self._reports: dict[int, str] = {}  # message id -> result_id
        self._states: set[int] = set()  # message ids of states on the way
        self._letters: dict[int, int] = {}  # message id -> number of the letter

    def serve(self) -> str | None:
        """Run until the work is done (None) or the connection is no use any more (why)."""
        publisher = self._publisher
        self._link.subscribe(publisher.topic("ack"))
        if publisher.on_command is not None:
            self._link.subscribe(publisher.topic("cmd/#"))
        publisher._mail.begin()
        if publisher._state is not None:
            self._send_state(publisher._state)
        goodbye = False
        while True:
            self._send_states()
            self._send_letters()
            self._send_reports()
            if publisher._deadline is not None:
                if not goodbye and (publisher._is_finished() and publisher._states.empty()):
                    if publisher._state is None or publisher._state.state != "fault":
                        self._send_state(publisher._facts_as("offline", "stopped"))
                    goodbye = True
                if goodbye and not self._states:
                    return None
            try:
                event = publisher._events.get(timeout=self._patience_s(goodbye))
            except queue.Empty:
                if publisher._deadline is None:
                    return "the broker confirms nothing any more"
                if goodbye:
                    return None
                continue
            problem = self._handle(event)
            if problem is not None:
                return problem

    def _patience_s(self, goodbye: bool) -> float | None:
        """How long to wait for the next event; None: for ever, nothing is on the way."""
        deadline = self._publisher._deadline
        if goodbye:
            return 2.0
        if deadline is not None:
            return max(deadline - time.monotonic(), 0.0)
        return self._publisher._config.keepalive_s * _PUBACK_SLACK if self._is_owed() else None

    def _is_owed(self) -> bool:
        """True while the broker has to confirm something."""
        return bool(self._reports or self._states or self._letters)

    def _handle(self, event: Any) -> str | None:
        """Take one event; a text says that the link is no use any more."""
        if isinstance(event, Received):
            self._receive(event)
        elif isinstance(event, Lost) and event.link is self._link:
            return event.reason
        elif isinstance(event, Acknowledged) and event.link is self._link:
            self._states.discard(event.mid)
            number = self._letters.pop(event.mid, None)
            if number is not None:
                self._publisher._mail.settle(number)
            result_id = self._reports.pop(event.mid, None)
            if event.reason is not None:
                return f"the broker refused {result_id or 'the state'}: {event.reason}"
            if result_id is not None:
                self._outbox.mark_published(result_id)
        return None

    def _send_reports(self) -> None:
        """Put the oldest waiting reports on the way, as many as may be there."""
        room = self._inflight - len(self._reports)
        if room <= 0:
            return
        on_the_way = set(self._reports.values())
        for row in self._outbox.waiting(self._inflight):
            if row.result_id not in on_the_way and room > 0:
                self._reports[self._link.publish(self._publisher.topic("result"), row.payload)] = (
                    row.result_id
                )
                room -= 1

    def _send_letters(self) -> None:
        """Put other messages on the way, a few at a time."""
        publisher = self._publisher
        for number, letter in publisher._mail.take(_LETTERS_AT_ONCE - len(self._letters)):
            topic = letter.topic if letter.is_full else publisher.topic(letter.topic)
            mid = self._link.publish(
                topic, letter.payload, retain=letter.retain, correlation=letter.correlation
            )
            self._letters[mid] = number

    def _send_states(self) -> None:
        """Publish every state announced meanwhile, in order."""
        while True:
            try:
                state = self._publisher._states.get_nowait()
            except queue.Empty:
                return
            self._send_state(state)

    def _send_state(self, state: StationState) -> None:
        self._publisher._state = state
        self._states.add(self._link.publish(self._publisher.topic("state"), state.to_json(), retain=True))

    def _receive(self, message: Received) -> None:
        """Take a message of somebody else; whatever it holds, delivery goes on."""
        name = message.topic[len(self._publisher.topic("")) :]
        if name == "ack":
            self._acknowledge(message.payload)
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

    def _acknowledge(self, payload: bytes) -> None:
        """The MES has these reports. Any other message is logged: a stranger's mistake must not stop us."""
        try:
            result_ids = result_ids_from_ack(payload)
        except DeliveryError as error:
            log.warning("%s", error)
            return
        for result_id in result_ids:
            if not self._outbox.mark_acknowledged(result_id):
                log.warning("ack: unknown result %r", result_id)
