"""Alarms: what a person should know, under a name from a closed list, on the topic `alarm`.

An alarm is raised once and cleared once, however often its cause is met in between. While the broker is away
the last hundred messages wait, so that an outage tells its story afterwards.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ...report import timestamp

Severity = Literal["warning", "error", "critical"]


@dataclass(frozen=True)
class AlarmKind:
    """How bad it is, and what a person does about it."""

    severity: Severity
    remedy: str


ALARMS: dict[str, AlarmKind] = {
    "mqtt.unreachable": AlarmKind("warning", "start the broker, or check network, mqtt.host and mqtt.port"),
    "mqtt.no_answer": AlarmKind("warning", "check what answers at mqtt.host and mqtt.port"),
    "mqtt.bad_user": AlarmKind("error", "check mqtt.username and the password"),
    "mqtt.not_authorised": AlarmKind("error", "let this user or certificate in, in the broker"),
    "mqtt.client_id_refused": AlarmKind("error", "choose another mqtt.client_id, or allow this one"),
    "mqtt.banned": AlarmKind("error", "lift the ban in the broker"),
    "mqtt.refused": AlarmKind("error", "see the reason code in the broker's manual"),
    "mqtt.connection_lost": AlarmKind("warning", "check network and broker; reports wait in the outbox"),
    "mqtt.connection_unstable": AlarmKind("error", "check network, broker and whether client ids are unique"),
    "mqtt.session_taken_over": AlarmKind("warning", "somebody else connected under this client id"),
    "mqtt.duplicate_client_id": AlarmKind("error", "give each station its own mqtt.client_id"),
    "mqtt.publish_denied": AlarmKind("error", "let this user publish under mqtt.root, in the broker's ACL"),
    "mqtt.subscribe_denied": AlarmKind("error", "let this user read `ack` and `cmd/#`, in the broker's ACL"),
    "mqtt.quota": AlarmKind("warning", "the broker's quota is used up; raise it or wait"),
    "mqtt.packet_too_large": AlarmKind("error", "raise the broker's packet size; the report waits aside"),
    "mqtt.report_refused": AlarmKind("error", "see why in the text; the report waits aside"),
    "mqtt.stopped": AlarmKind("critical", "restart the service and report this as a fault of orinspect"),
    "tls.clock_not_set": AlarmKind("error", "set this device's clock (NTP); the certificate may be valid"),
    "tls.certificate_expired": AlarmKind("error", "renew the broker's certificate"),
    "tls.certificate_not_yet_valid": AlarmKind("error", "check the dates of the broker's certificate"),
    "tls.unknown_ca": AlarmKind("error", "put the CA of the broker's certificate into mqtt.ca_file"),
    "tls.host_name": AlarmKind("error", "use the name in the broker's certificate as mqtt.host"),
    "tls.certificate_refused": AlarmKind("error", "give the station a certificate that the broker accepts"),
    "tls.failed": AlarmKind("error", "compare the TLS versions and settings of station and broker"),
    "config.unusable": AlarmKind("error", "see the text; the file may have been renewed or removed"),
    "mes.no_ack": AlarmKind("warning", "check the consumer: it stores no reports, or its acks do not arrive"),
    "outbox.full": AlarmKind("critical", "make room: parts are counted and not inspected"),
    "outbox.fault": AlarmKind("critical", "stop the line and make room: not even the count can be written"),
    "outbox.damaged": AlarmKind("error", "replace the storage; what could be read was saved"),
    "outbox.refuses": AlarmKind("error", "check the disk of the outbox"),
    "audit.not_written": AlarmKind("error", "make room on the disk of the audit"),
    "evidence.not_written": AlarmKind("warning", "make room on the disk of the evidence"),
    "statistics.not_counted": AlarmKind("warning", "check the disk of the outbox; results are counted later"),
    "statistics.not_written": AlarmKind("warning", "make room on the disk of shifts.csv"),
    "health.metrics_not_served": AlarmKind("warning", "choose another health.metrics_port"),
    "camera.failed": AlarmKind("error", "check the camera, its cable and its network"),
    "camera.stopped": AlarmKind("error", "check the camera; its process was started anew"),
    "camera.died": AlarmKind("error", "see the log; the process of the camera was started anew"),
    "camera.frozen": AlarmKind("error", "restart the camera if it does not come back"),
    "camera.stale": AlarmKind("error", "restart the camera if it does not come back"),
    "camera.black": AlarmKind("error", "check light, lens cap and exposure"),
    "camera.saturated": AlarmKind("error", "check light and exposure"),
    "camera.blurred": AlarmKind("error", "check focus, lens and distance"),
    "camera.moved": AlarmKind("error", "put the camera back in its place, or take a new reference"),
    "camera.picture": AlarmKind("error", "check where the pictures come from"),
    "station.self_test": AlarmKind("critical", "build the engines again, or activate another bundle"),
    "station.engine": AlarmKind("critical", "the service starts again; see its log if that goes on"),
    "station.choice": AlarmKind("error", "install the bundle that was chosen, or choose again"),
}


class Alarms:
    """Which alarms stand; safe to use from several threads."""

    def __init__(
        self, names: dict[str, str], post: Callable[[str], None], unix_s: Callable[[], float]
    ) -> None:
        """`names`: device_id, station_id and boot_id of each message; `post` publishes one on `alarm`."""
        self.on_change: Callable[[str, str | None], None] | None = None
        self._names, self._post, self._unix_s = names, post, unix_s
        self._mutex = threading.Lock()
        self._standing: dict[str, str] = {}

    def set(self, code: str, text: str | None) -> None:
        """Raise an alarm with this sentence, or clear it with None; KeyError for a code not in ALARMS."""
        kind = ALARMS[code]
        with self._mutex:
            before = self._standing.get(code)
            if text is None:
                self._standing.pop(code, None)
            else:
                self._standing[code] = text
            if (before is None) == (text is None):
                return
            message = {
                "schema": "orinspect.alarm/1.0", "code": code, "severity": kind.severity,
                "active": text is not None, "text": text or before, "remedy": kind.remedy,
                "at": timestamp(self._unix_s()), **self._names,
            }  # fmt: skip
            self._post(json.dumps(message, ensure_ascii=False))
        if self.on_change is not None:
            self.on_change(code, text)

    def clear(self, *prefixes: str) -> None:
        """Clear every standing alarm whose code begins so."""
        for code in self.standing():
            if code.startswith(prefixes):
                self.set(code, None)

    def standing(self) -> dict[str, str]:
        """Code -> sentence of every alarm that stands."""
        with self._mutex:
            return dict(self._standing)
