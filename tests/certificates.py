"""Certificates for a test, made with openssl: a CA of its own, valid, expired and not yet valid ones."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_CA = """
[ca]
default_ca = only
[only]
dir = {folder}
new_certs_dir = {folder}
database = {folder}/index.txt
rand_serial = yes
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
"""


@dataclass(frozen=True)
class Certificate:
    """Paths of a certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """A CA that keeps its files in `folder`; `ca.certificate` is what others trust."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self.ca = Certificate(folder / "ca.pem", folder / "ca.key")
        (folder / "index.txt").write_text("")
        (folder / "ca.conf").write_text(_CA.format(folder=folder))
        _openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-subj", f"/CN={folder.name}", "-days", "3650", "-out", self.ca.certificate,
            "-keyout", self.ca.key,
        )  # fmt: skip

    def issue(
        self,
        name: str,
        *,
        host: str = "IP:127.0.0.1",
        start: str = "20200101000000Z",
        end: str = "20991231000000Z",
    ) -> Certificate:
        """A certificate for CN `name`, valid for this host between these times."""
        made = Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        request = self._folder / f"{name}.csr"
        _openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
            "-addext", f"subjectAltName={host}", "-out", request, "-keyout", made.key,
        )  # fmt: skip
        _openssl(
            "ca", "-batch", "-notext", "-config", self._folder / "ca.conf", "-cert", self.ca.certificate,
            "-keyfile", self.ca.key, "-startdate", start, "-enddate", end, "-in", request,
            "-out", made.certificate,
        )  # fmt: skip
        return made


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
