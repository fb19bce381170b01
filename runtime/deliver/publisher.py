"""The delivery thread: reports from the outbox to the broker, and the station's state beside them.

At least once: a row is marked only by its PUBACK, and whatever a broken connection left unmarked is sent
again over the next one. Reports go in the outbox's order, but new ones do not wait behind a backlog. All of
it happens in this one thread, which waits on one queue of events; the other threads only put events there.
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
from .link.alarm import Alarms
from .link.mail import Command, Letter, Mail
from .link.rounds import Rounds
from .link.session import Session
from .link.suspects import Suspects
from .mqtt import (
    OTHER_PROTOCOL_MAY_HELP,
    SESSION_TAKEN_OVER,
    LinkError,
    Lost,
    MqttLink,
    Protocol,
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
_TAKEN_OVER_MOST, _LOST_MOST, _WITHIN_S = 3, 6, 600.0  # connections that end so within this time
_RETRY_REFUSED_S = 3600.0
_CLEARED_BY_CONNECTING = (
    "mqtt.unreachable",
    "mqtt.no_answer",
    "mqtt.bad_user",
    "mqtt.not_authorised",
    "mqtt.client_id_refused",
    "mqtt.banned",
    "mqtt.refused",
)
_CLEARED_BY_CALM = (
    "mqtt.connection_lost",
    "mqtt.connection_unstable",
    "mqtt.session_taken_over",
    "mqtt.duplicate_client_id",
)

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

    Whatever the broker says, delivery waits and tries again, under an alarm. `on_failure` is called in the
    delivery thread when the configuration names a file that cannot be used, before there was any connection;
    the thread ends then and `failure` holds the error. `on_command`, set before `start`, is called in the
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
        is_clock_synchronised: Callable[[], bool] = lambda: True,
        calm_s: float = 60.0,
    ) -> None:
        """`facts` names the station; its state and reason do not matter. `random()` lies in [0, 1).

        `is_clock_synchronised` tells an expired certificate from a clock that was never set. A connection is
        trusted again, and its alarms are cleared, when it has lasted for `calm_s`.
        """
        self.failure: DeliveryError | ConfigError | None = None
        self.on_command: Callable[[Command], None] | None = None
        self.connections = 0
        self.last_error = "never tried"
        self.outbox, self.config, self._facts = outbox, config, facts
        self._on_failure, self._random, self._unix_s = on_failure, random, unix_s
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.states: queue.SimpleQueue[StationState] = queue.SimpleQueue()
        self.mail = Mail()
        names = {"device_id": facts.device_id, "station_id": facts.station_id, "boot_id": facts.boot_id}
        self.alarms = Alarms(names, lambda text: self.publish("alarm", text), unix_s)
        self.suspects = Suspects()
        self.refusals: dict[str, int] = {}  # result_id -> negative PUBACKs that do not say whose fault it is
        self.rounds: Rounds | None = None
        self._is_clock_synchronised, self._calm_s = is_clock_synchronised, calm_s
        self._taken_over_s: list[float] = []  # monotonic
        self._lost_s: list[float] = []
        self._retried_refused_s: float | None = None
        self.state: StationState | None = None
        self._protocols: tuple[Protocol, ...] = (
            ("5", "3.1.1") if config.protocol == "auto" else (config.protocol,)
        )
        self.deadline_s: float | None = None  # monotonic seconds; set once the thread must end
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)

    def start(self) -> None:
        """Begin to connect; nothing waits for it."""
        self._thread.start()

    def wake(self) -> None:
        """A report was committed."""
        self.events.put(_Wake())

    def announce(self, state: str, reason: str | None = None) -> None:
        """Publish the station's state, retained; while there is no connection only the last one is kept."""
        self.states.put(self.state_now(state, reason))
        self.events.put(_Wake())

    def publish(self, name: str, payload: str, *, retain: bool = False) -> None:
        """Publish on `<root>/<name>` at QoS 1, from any thread; nothing waits. While there is no connection a
        retained topic keeps its last message, any other topic the last hundred. `result` and `state` have
        ways of their own."""
        self.mail.post(Letter(name, payload, retain))
        self.events.put(_Wake())

    def alarm(self, code: str, text: str | None) -> None:
        """Raise an alarm of the closed list (link/alarm.py) with this sentence, or clear it with None; from
        any thread. `alarms.on_change` is told, so that the station's state can follow."""
        self.alarms.set(code, text)

    def answer(self, command: Command, payload: str) -> None:
        """Answer a command where its sender listens: the response topic of MQTT 5 with its correlation data,
        else `cmd-response`. A response topic may not be one of this station's own: a command must not be
        able to forge a report."""
        topic = command.response_topic
        root = f"{self.config.root}/"
        is_ours = topic is not None and f"{topic}/".startswith(root)
        if (
            topic is None
            or set(topic) & set("+#\0")
            or (is_ours and topic[len(root) :].split("/")[0] != "cmd-response")
        ):
            self.mail.post(Letter("cmd-response", payload, correlation=command.correlation))
        else:
            self.mail.post(Letter(topic, payload, is_full=True, correlation=command.correlation))
        self.events.put(_Wake())

    def close(self, timeout_s: float) -> int:
        """Deliver what waits for at most `timeout_s`, publish `offline`, disconnect; return what is left.

        A `fault` stays the retained state: whoever looks later must see why the station is not there.
        """
        self.deadline_s = time.monotonic() + timeout_s
        self.events.put(_Wake())
        if self._thread.ident is not None:
            self._thread.join(timeout_s + self.config.connect_timeout_s + 5.0)
        return self.outbox.counts()["committed"]

    def state_now(self, state: str, reason: str | None) -> StationState:
        """This station's message on `state`, dated now."""
        facts = self._facts
        since = timestamp(self._unix_s())
        return StationState(state, reason, since, facts.device_id, facts.station_id, facts.boot_id)

    def _run(self) -> None:
        """The thread. It never dies unseen: reports would pile up behind a station that looks healthy."""
        try:
            self._deliver()
        except BaseException as error:
            log.exception("delivery stopped unexpectedly")
            self.alarms.set("mqtt.stopped", repr(error))
            self.failure = DeliveryError(f"delivery stopped unexpectedly: {error!r}")
            self._on_failure()

    def _deliver(self) -> None:
        """Connect, serve until the connection breaks, wait, again."""
        if self.config.ack == "required":
            self.rounds = Rounds(self.config.ack_timeout_s, self.outbox.first_due(), time.monotonic())
        attempt = 0
        while not self.is_finished():
            try:
                link = self._connected()
            except (LinkError, ConfigError) as error:
                if isinstance(error, ConfigError) and not self.connections:
                    self.failure = error
                    self._on_failure()
                    return
                problem = str(error)
                code = error.alarm if isinstance(error, LinkError) else "config.unusable"
                if code not in self.alarms.standing():
                    self.alarms.clear("tls.", "config.", *_CLEARED_BY_CONNECTING)
                self.alarms.set(code, problem)
            else:
                self.connections += 1
                log.info("connected to %s:%d, MQTT %s", self.config.host, self.config.port, link.protocol)
                self.alarms.clear("tls.", "config.", *_CLEARED_BY_CONNECTING)
                done, is_good = self._serve(link)
                if done is None:
                    return
                problem = done
                attempt = 0 if is_good else attempt
            self.last_error = problem
            delay_s = self.delay_s(attempt)
            log.warning("%s; reports wait in the outbox, next attempt in %.1f s", problem, delay_s)
            self._rest(delay_s)
            attempt += 1

    def _serve(self, link: MqttLink) -> tuple[str | None, bool]:
        """One session: why it ended, None when the work is done, and whether the next may come at once."""
        session: Session | None = None
        try:
            with link:
                self._retry_refused()
                session = Session(self, link)
                done = session.serve()
        except DeliveryError as error:  # the outbox: a full disk may have room again later
            self.alarms.set("outbox.refuses", str(error))
            return str(error), session is not None and session.confirmed > 0
        if done is None:
            return None, True
        is_unreadable = isinstance(done, Lost) and done.is_unreadable
        aside = self.suspects.lost(session.on_the_way(), is_unreadable=is_unreadable)
        if aside is not None:
            self.set_aside(aside, "the connection breaks whenever it is sent", "mqtt.packet_too_large")
        if isinstance(done, Lost) and done.code == SESSION_TAKEN_OVER:
            self._note_end(self._taken_over_s, _TAKEN_OVER_MOST)
            if len(self._taken_over_s) < _TAKEN_OVER_MOST:
                self.alarms.set("mqtt.session_taken_over", done.reason)
            else:
                self.alarms.set(
                    "mqtt.duplicate_client_id",
                    f"somebody else uses {self._client_id()!r}, too: {done.reason}",
                )
            return done.reason, False  # at once we would throw the other one out again
        reason = done if isinstance(done, str) else done.reason
        self._note_end(self._lost_s, _LOST_MOST)
        is_unstable = len(self._lost_s) >= _LOST_MOST
        if is_unstable:  # some brokers close without a word when another client takes our id
            self.alarms.set(
                "mqtt.connection_unstable",
                f"{_LOST_MOST} connections were lost in {_WITHIN_S / 60:g} minutes; is {self._client_id()!r}"
                f" used by somebody else? {reason}",
            )
        self.alarms.set("mqtt.connection_lost", reason)
        return reason, session.confirmed > 0 and not is_unstable

    def _note_end(self, ends_s: list[float], most: int) -> None:
        """Add the end of a connection to those that are recent, the last `most` of them."""
        now = time.monotonic()
        ends_s[:] = [*[s for s in ends_s if s > now - _WITHIN_S][1 - most :], now]

    def calm_at(self, begun_s: float) -> float | None:
        """When the present connection will have lasted long enough to clear its alarms; None: none stand."""
        standing = any(code in _CLEARED_BY_CALM for code in self.alarms.standing())
        return begun_s + self._calm_s if standing else None

    def be_calm(self, begun_s: float) -> None:
        """Clear what a lasting connection disproves."""
        calm = self.calm_at(begun_s)
        if calm is not None and time.monotonic() >= calm:
            self.alarms.clear(*_CLEARED_BY_CALM)

    def set_aside(self, result_id: str, reason: str, code: str) -> None:
        """The broker will not have this report; the ones behind it go on."""
        log.error("report %s is set aside: %s", result_id, reason)
        self.outbox.mark_refused(result_id, reason)
        self.alarms.set(code, f"report {result_id} is set aside: {reason}")

    def _retry_refused(self) -> None:
        """Once at the start and once an hour, with a new connection: the broker may have changed its mind."""
        now = time.monotonic()
        if self._retried_refused_s is not None and now < self._retried_refused_s + _RETRY_REFUSED_S:
            return
        self._retried_refused_s = now
        if self.outbox.retry_refused():
            self.alarms.clear("mqtt.packet_too_large", "mqtt.report_refused")

    def _client_id(self) -> str:
        return self.config.client_id or f"orinspect-{self._facts.device_id}-{self._facts.station_id}"

    def _connected(self) -> MqttLink:
        """A new link, in the newest protocol that the broker speaks."""
        facts = self._facts
        will = StationState(
            "offline", "connection lost", None, facts.device_id, facts.station_id, facts.boot_id
        )
        for protocol in self._protocols:
            try:
                link = MqttLink(
                    self.config,
                    self._client_id(),
                    Will(self.topic("state"), will.to_json()),
                    self.events,
                    protocol,
                    is_clock_synchronised=self._is_clock_synchronised,
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
        return f"{self.config.root}/{name}"

    def delay_s(self, attempt: int) -> float:
        """Seconds of rest, doubling with jitter: a line of stations must not come back in one instant."""
        ceiling = min(self.config.retry_least_s * 2.0 ** min(attempt, 16), self.config.retry_most_s)
        return ceiling * (0.5 + 0.5 * self._random())

    def _rest(self, delay_s: float) -> None:
        """Wait, but not beyond the end of the thread's time."""
        until = time.monotonic() + delay_s
        while not self.is_finished():
            end = until if self.deadline_s is None else min(until, self.deadline_s)
            left_s = end - time.monotonic()
            if left_s <= 0:
                return
            try:
                self.events.get(timeout=left_s)
            except queue.Empty:
                return

    def is_finished(self) -> bool:
        """True when the thread must end and has nothing left to do, or no time left to do it."""
        if self.deadline_s is None:
            return False
        return time.monotonic() >= self.deadline_s or not self.outbox.waiting(1)
