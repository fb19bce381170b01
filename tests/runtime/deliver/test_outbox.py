"""The outbox: what a row may do, what a crash leaves, and files that are not ours."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from orinspect.runtime.deliver.outbox import Outbox
from orinspect.runtime.deliver.store import intake
from orinspect.runtime.deliver.store.mark import Mark, MarkFile
from orinspect.runtime.deliver.store.schema import SCHEMA_VERSION
from orinspect.runtime.errors import DeliveryError


def _accept(outbox: Outbox, number: int, boot: str = "boot") -> int:
    return outbox.accept(f"r{number}", boot, "cam", number, f'{{"n":{number}}}')


def test_a_row_goes_from_accepted_to_acknowledged(tmp_path: Path) -> None:
    with Outbox(tmp_path / "o.sqlite") as outbox:
        assert _accept(outbox, 1) == 1
        assert [row.result_id for row in outbox.abandoned()] == ["r1"]
        assert outbox.waiting(10) == ()
        outbox.commit("r1", "{}")
        assert outbox.abandoned() == ()
        assert [row.payload for row in outbox.waiting(10)] == ["{}"]
        outbox.mark_published("r1")
        assert outbox.waiting(10) == ()
        assert outbox.mark_acknowledged("r1")
        assert outbox.counts() == {"accepted": 0, "committed": 0, "published": 0, "acknowledged": 1}


def test_the_state_survives_closing(tmp_path: Path) -> None:
    path = tmp_path / "o.sqlite"
    with Outbox(path) as outbox:
        for number in (1, 2, 3):
            _accept(outbox, number)
        outbox.commit("r1", "one")
        outbox.commit("r2", "two")
        outbox.mark_published("r1")
    with Outbox(path) as outbox:
        assert [row.result_id for row in outbox.waiting(9)] == ["r2"]
        assert [(row.result_id, row.sequence, row.trigger) for row in outbox.abandoned()] == [
            ("r3", 3, '{"n":3}')
        ]
        assert outbox.last_source_sequence("cam") == 3
        assert outbox.last_source_sequence("other") is None


def test_keys_of_captures_stay_when_their_rows_are_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "KEYS_KEPT", 4)
    with Outbox(tmp_path / "o.sqlite", keep=1) as outbox:
        for number in range(6):
            outbox.accept(f"r{number}", "boot", "folder:a", 1, "{}", f"k{number}")
            outbox.commit(f"r{number}", "{}")
            outbox.mark_published(f"r{number}")
        outbox.accept("r6", "boot", "folder:a", 1, "{}", "k5")  # on purpose a second time
        outbox.accept("r7", "boot", "scenes:pcb", 1, "{}")
    with Outbox(tmp_path / "o.sqlite") as outbox:
        assert outbox.accepted_keys("folder:a") == {"k2", "k3", "k4", "k5"}
        assert outbox.accepted_keys("scenes:pcb") == frozenset()


def test_sequences_go_on_within_a_boot_and_begin_again_in_the_next(tmp_path: Path) -> None:
    path = tmp_path / "o.sqlite"
    with Outbox(path) as outbox:
        assert [_accept(outbox, n) for n in (1, 2)] == [1, 2]
    with Outbox(path) as outbox:
        assert _accept(outbox, 3) == 3
        assert _accept(outbox, 4, boot="next") == 1


@pytest.mark.parametrize("result_id", ["r1", "never"])
def test_a_second_report_under_one_id_is_refused_and_the_first_stays(tmp_path: Path, result_id: str) -> None:
    with Outbox(tmp_path / "o.sqlite") as outbox:
        _accept(outbox, 1)
        outbox.commit("r1", "first")
        with pytest.raises(DeliveryError, match="not waiting for a report"):
            outbox.commit(result_id, "second")
        assert [row.payload for row in outbox.waiting(9)] == ["first"]


def test_one_id_is_accepted_once(tmp_path: Path) -> None:
    with Outbox(tmp_path / "o.sqlite") as outbox:
        _accept(outbox, 1)
        with pytest.raises(DeliveryError, match="UNIQUE"):
            _accept(outbox, 1)
        assert outbox.counts()["accepted"] == 1


def test_published_twice_is_published_once_and_never_before_its_report(tmp_path: Path) -> None:
    with Outbox(tmp_path / "o.sqlite") as outbox:
        _accept(outbox, 1)
        outbox.mark_published("r1")
        assert not outbox.mark_acknowledged("r1")
        assert outbox.counts()["accepted"] == 1
        outbox.commit("r1", "{}")
        outbox.mark_published("r1")
        outbox.mark_published("r1")
        assert outbox.counts()["published"] == 1


def test_waiting_comes_in_order_and_at_most_as_many_as_asked(tmp_path: Path) -> None:
    with Outbox(tmp_path / "o.sqlite") as outbox:
        for number in range(5):
            _accept(outbox, number)
        for number in (3, 0, 4, 1, 2):
            outbox.commit(f"r{number}", "{}")
        assert [row.result_id for row in outbox.waiting(3)] == ["r0", "r1", "r2"]


def test_old_published_rows_go_but_no_waiting_one(tmp_path: Path) -> None:
    with Outbox(tmp_path / "o.sqlite", keep=2) as outbox:
        for number in range(6):
            _accept(outbox, number)
            outbox.commit(f"r{number}", "{}")
        for number in (1, 2, 3, 4, 5):
            outbox.mark_published(f"r{number}")
        assert outbox.counts() == {"accepted": 0, "committed": 1, "published": 2, "acknowledged": 0}
        assert [row.result_id for row in outbox.waiting(9)] == ["r0"]
        assert _accept(outbox, 6) == 7


def test_durability_is_switched_on(tmp_path: Path) -> None:
    """NORMAL survives a killed process, not a power cut."""
    with Outbox(tmp_path / "o.sqlite") as outbox, outbox._atomic() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_two_threads_lose_nothing(tmp_path: Path) -> None:
    with Outbox(tmp_path / "o.sqlite") as outbox:

        def work(first: int) -> None:
            for number in range(first, first + 20):
                _accept(outbox, number)
                outbox.commit(f"r{number}", "{}")

        threads = [threading.Thread(target=work, args=(first,)) for first in (0, 100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outbox.counts()["committed"] == 40
        assert outbox.last_source_sequence("cam") == 119


def test_a_second_process_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    path = tmp_path / "o.sqlite"
    code = "import sys; from orinspect.runtime.deliver.outbox import Outbox; Outbox(sys.argv[1])"
    with Outbox(path):
        refused = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert refused.returncode == 1
    assert "in use by another orinspect" in refused.stderr
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 0


def test_a_killed_writer_leaves_whole_rows(tmp_path: Path) -> None:
    """SIGKILL between two commits, and in the middle of a transaction."""
    path = tmp_path / "o.sqlite"
    code = """
import os, signal, sys
from orinspect.runtime.deliver.outbox import Outbox
outbox = Outbox(sys.argv[1])
for number in (1, 2):
    outbox.accept(f"r{number}", "boot", "cam", number, "{}")
outbox.commit("r1", "one")
with outbox._atomic() as connection:
    connection.execute("UPDATE result SET state = 'committed', payload = 'half' WHERE result_id = 'r2'")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    with Outbox(path) as outbox:
        assert [(row.result_id, row.payload) for row in outbox.waiting(9)] == [("r1", "one")]
        assert [row.result_id for row in outbox.abandoned()] == ["r2"]


def test_a_failed_transaction_leaves_nothing_behind(tmp_path: Path) -> None:
    with Outbox(tmp_path / "o.sqlite") as outbox:
        _accept(outbox, 1)
        with pytest.raises(ZeroDivisionError), outbox._atomic() as connection:
            assert connection.execute("DELETE FROM result").rowcount / 0
        assert outbox.counts()["accepted"] == 1


def test_a_full_disk_is_an_error_and_the_outbox_works_on(tmp_path: Path) -> None:
    with Outbox(tmp_path / "o.sqlite") as outbox:
        with outbox._atomic() as connection:
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
        outbox._file._connection.execute(f"PRAGMA max_page_count = {pages + 1}")
        _accept(outbox, 1)
        with pytest.raises(DeliveryError, match="full"):
            outbox.commit("r1", "x" * 100_000)
        assert [row.result_id for row in outbox.abandoned()] == ["r1"]
        outbox.commit("r1", "small")
        assert outbox.counts()["committed"] == 1


def test_the_outbox_of_a_newer_version_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "o.sqlite"
    with Outbox(path) as outbox:
        _accept(outbox, 1)
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    MarkFile(Path(f"{path}.mark")).write(Mark(SCHEMA_VERSION + 1, "boot", 1, 99))  # as a newer one does
    with pytest.raises(DeliveryError, match=f"schema {SCHEMA_VERSION + 1}"):
        Outbox(path)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM result").fetchone() == (1,)
    connection.close()


def test_files_that_are_no_outbox(tmp_path: Path) -> None:
    text, other = tmp_path / "notes.txt", tmp_path / "other.sqlite"
    text.write_text("not a database, but long enough to look at" * 30)
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE result (a)")
    connection.close()
    with pytest.raises(DeliveryError, match="not a database"):
        Outbox(text)
    with pytest.raises(DeliveryError, match="another program's"):
        Outbox(other)
    with pytest.raises(DeliveryError, match="cannot be made"):
        Outbox(text / "o.sqlite")
