"""A SQLite file or a PostgreSQL of our own for a test: a temporary cluster behind a Unix socket, no port."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orinspect.tests.programs import postgresql_folder, require

KINDS = ("sqlite", "postgresql")


class Cluster:
    """A running PostgreSQL; `database` gives an empty place in it, `crash` and `start` are a restart."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self._folder, self._programs = folder, programs
        self._made = 0
        # PostgreSQL refuses to run as root.
        self._as: dict[str, Any] = {}
        if os.getuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(folder, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        done = subprocess.run(
            [programs / "initdb", "-D", folder / "data", "-A", "trust", "-U", "postgres", "--no-sync",
             "--locale=C.UTF-8", "--encoding=UTF8"],
            **self._as, cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        self.start()

    def start(self) -> None:
        """Run the server; returns when it takes connections."""
        self._process = subprocess.Popen(
            [self._programs / "postgres", "-D", self._folder / "data", "-k", self._folder,
             "-c", "listen_addresses=", "-c", "fsync=off"],
            **self._as, cwd=self._folder, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if "ready to accept connections" in line:
                return
        raise AssertionError("PostgreSQL did not start")

    def crash(self) -> None:
        """SIGQUIT: connections are cut, the next start recovers from the log."""
        self._process.send_signal(3)
        self._process.communicate(timeout=30)

    def database(self) -> str:
        """The URL of a new schema: as good as a database, and three hundred files fewer."""
        import psycopg

        self._made += 1
        name = f"mes{self._made}"
        url = f"postgresql://postgres@/postgres?host={self._folder}"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"{url}&options=-csearch_path%3D{name}"


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster in a short-named folder that the server's user can reach; removed afterwards."""
    require("postgresql")
    programs = postgresql_folder()
    assert programs is not None
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    try:
        running = Cluster(folder, programs)
        try:
            yield running
        finally:
            running.crash()
    finally:
        shutil.rmtree(folder)
