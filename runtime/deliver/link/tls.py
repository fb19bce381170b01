"""TLS: what the station demands and shows, and what a failed handshake means in plain words."""

from __future__ import annotations

import re
import ssl

from ...config import MqttConfig
from ...errors import ConfigError

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_NOT_YET_VALID, _EXPIRED = 9, 10  # X509_V_ERR_* of OpenSSL, `man x509_verify_cert_error_string`
_UNKNOWN_CA = (2, 18, 19, 20, 21, 27)
_HOST_NAME = (62, 63, 64)
# What the broker says about our certificate; the word "alert" marks what came from the other side.
_REFUSAL = re.compile(r"alert.*(certificate|unknown ca|access denied|handshake failure)", re.IGNORECASE)


class _TidySocket(ssl.SSLSocket):
    """Closes itself when the handshake fails; paho would leave that to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:
        """As in ssl.SSLSocket."""
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def context_from_config(config: MqttConfig) -> ssl.SSLContext | None:
    """None without TLS. The broker's certificate is always checked, by `ca_file` or the system's CAs, and so
    is its name. ConfigError names the file that cannot be used."""
    if not (config.tls or config.ca_file or config.cert_file):
        return None
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
    except OSError as error:  # SSLError is one
        raise ConfigError(f"mqtt.ca_file: {config.ca_file} cannot be used ({error})") from error
    context.sslsocket_class = _TidySocket
    context.minimum_version = _VERSIONS[config.tls_version]
    if config.cert_file is not None:
        try:
            # a key with a passphrase would ask for it on a terminal that a service has not
            context.load_cert_chain(config.cert_file, config.key_file, password=lambda: "")
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"mqtt.cert_file: {config.cert_file} with {config.key_file or 'its own key'}"
                f" cannot be used ({error})"
            ) from error
    return context


def alarm_from_handshake(error: ssl.SSLError, is_clock_synchronised: bool) -> tuple[str, str]:
    """Alarm code and sentence for a handshake that failed on our side."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return alarm_from_alert(str(error)) or ("tls.failed", f"the TLS handshake failed: {error}")
    why = f"the broker's certificate was not accepted: {error.verify_message}"
    if error.verify_code in (_NOT_YET_VALID, _EXPIRED):
        if not is_clock_synchronised:
            return "tls.clock_not_set", f"{why}; this device's clock is not synchronised and may be wrong"
        is_expired = error.verify_code == _EXPIRED
        return ("tls.certificate_expired" if is_expired else "tls.certificate_not_yet_valid"), why
    if error.verify_code in _UNKNOWN_CA:
        return "tls.unknown_ca", why
    if error.verify_code in _HOST_NAME:
        return "tls.host_name", why
    return "tls.failed", why


def alarm_from_alert(text: str) -> tuple[str, str] | None:
    """Alarm code and sentence when `text` is the broker's alert about our certificate, else None."""
    if _REFUSAL.search(text) is None:
        return None
    return "tls.certificate_refused", f"the broker does not accept this station's certificate: {text}"
