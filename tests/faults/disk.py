"""Disks: an outbox with wrong bytes anywhere in its files, a disk that is full, one that turns read-only.

The small disk is an ext4 file system in a file, which the campaign mounts where it may (root): it is filled
to the last byte, or aborted as the kernel does after an error, so that open files refuse to be written.
Elsewhere a limit on the size of files stands in for the full disk, and the read-only one is not tried.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from orinspect.runtime.deliver.outbox import Bounds, Outbox
from orinspect.runtime.errors import DeliveryError, OrinspectError
from orinspect.tests.faults.kill9 import NAME
from orinspect.tests.faults.means.campaign import Campaign, Tally
from orinspect.tests.faults.means.forked import Forked, Tell
from orinspect.tests.faults.means.recorded import recorded_payload

DAMAGES_A_ROUND = 40
PARTS = 50
ENDINGS = ("", "-wal", ".mark")
SMALL_DISK_BYTES = 32 << 20
SMALL = Bounds(least_free_bytes=8 << 20, reserve_bytes=1 << 20)
MOST_PARTS = 400


@dataclass(frozen=True)
class Copy:
    """The files of an outbox as a kill would leave them, and what its rows hold."""

    files: dict[str, bytes]  # by ending
    payloads: dict[str, str]
    waiting: frozenset[str]


def run_disk(seed: int, folder: Path, damages: int = DAMAGES_A_ROUND) -> Tally:
    """`damages` damaged outboxes, one disk that is full and one that is read-only for a while."""
    random = Random(f"disk {seed}")
    copy = made_copy(folder / "copy", random)
    failures, saved = [], 1.0
    for number in range(damages):
        place = folder / "damaged"
        place.mkdir()
        what = _damage(copy, place, random)
        faults, share = damage_faults(place, copy)
        failures += [f"damage {number} ({what}): {fault}" for fault in faults]
        saved = min(saved, share)
        shutil.rmtree(place)
    tally = Tally(damages, tuple(failures), {"waiting_saved_least": saved})
    with small_disk(folder / "small") as is_small:
        tally += _in_child(folder, lambda tell: _full(folder / "small", random, tell, is_small))
    if is_small:
        tally += _in_child(folder, lambda tell: _read_only(folder / "ext4", random, tell))
    return tally


def made_copy(folder: Path, random: Random) -> Copy:
    """A third published, a third waiting, the rest waiting in the write-ahead log only, one accepted."""
    folder.mkdir()
    path, payloads = folder / NAME, {}
    with Outbox(path) as outbox:
        for number in range(1, PARTS + 1):
            result_id = f"r{number}"
            outbox.accept(result_id, "boot", "cam", number, "{}")
            payloads[result_id] = recorded_payload(result_id, number, random)
            outbox.commit(result_id, payloads[result_id])
            if number == 2 * PARTS // 3:
                with contextlib.closing(sqlite3.connect(path)) as other:  # so that both files matter
                    other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        published = [f"r{number}" for number in range(1, PARTS // 3)]
        outbox.mark_published(*published)
        outbox.accept("open", "boot", "cam", PARTS + 1, "{}")
        files = {ending: Path(f"{path}{ending}").read_bytes() for ending in ENDINGS}
    return Copy(files, payloads, frozenset(payloads.keys() - set(published)))


def damage_faults(place: Path, copy: Copy) -> tuple[list[str], float]:
    """What does not hold after this damage, and the share of the waiting reports that survived it."""
    try:
        with Outbox(place / NAME) as outbox:
            outbox.waiting(1_000)  # a wrong report is found here, and the outbox rescued
            waiting = {row.result_id: row.payload for row in outbox.waiting(1_000)}
            faults = [
                f"result {result_id} is handed out with another content"
                for result_id, payload in waiting.items()
                if copy.payloads.get(result_id) != payload
            ]
            known = {n for gap in outbox.gaps() for n in range(gap.first, gap.last + 1)}
            with contextlib.closing(sqlite3.connect(place / NAME)) as other:
                known |= {row[0] for row in other.execute("SELECT sequence FROM result")}
            missing = set(range(1, PARTS + 2)) - known
            if missing:
                faults.append(f"sequences {sorted(missing)[:5]} are neither there nor said to be missing")
            if outbox.accept("new", "boot", "cam", PARTS + 2, "{}") in known:
                faults.append("a sequence was given out twice")
            outbox.commit("new", "{}")
            if outbox.rescued and not list(place.glob("*damaged*")):
                faults.append("the damaged file was not kept")
        with Outbox(place / NAME) as outbox:
            if "new" not in [row.result_id for row in outbox.waiting(1_000)]:
                faults.append("the report after the damage is gone after a restart")
    except OrinspectError as error:
        return [f"it does not come up: {error}"], 0.0
    return faults, len(waiting.keys() & copy.waiting) / len(copy.waiting)


def _damage(copy: Copy, place: Path, random: Random) -> str:
    """Write the copy with something wrong in it; what that is."""
    files = {ending: bytearray(content) for ending, content in copy.files.items()}
    ending = random.choice(("", "", "", "-wal", "-wal", ".mark"))
    target = files[ending]
    kind = random.choice(("bytes", "bytes", "block", "cut", "header", "swap", "gone", "longer"))
    at = random.randrange(len(target))
    if kind == "bytes":
        for _ in range(random.choice((1, 1, 8, 200))):
            target[random.randrange(len(target))] = random.randrange(256)
    elif kind == "block":
        size = random.choice((512, 4096))
        target[at : at + size] = random.choice((bytes(size), random.randbytes(size)))[: len(target) - at]
    elif kind == "cut":
        del target[at:]
    elif kind == "header":
        target[:100] = random.randbytes(100)
    elif kind == "swap" and len(target) > 8192:
        one, two = (4096 * random.randrange(len(target) // 4096) for _ in range(2))
        target[one : one + 4096], target[two : two + 4096] = (
            target[two : two + 4096],
            target[one : one + 4096],
        )
    elif kind == "longer":
        target += random.randbytes(5000)
    for each, content in files.items():
        if kind != "gone" or each != ending:
            (place / f"{NAME}{each}").write_bytes(content)
    return f"{kind} in {NAME}{ending}"


def _in_child(folder: Path, body: object) -> Tally:
    """Run one disk's trouble in a child; what it tells is `fault TEXT` and `point`."""
    with Forked(lambda tell, orders: body(tell) or 0, folder) as child:  # type: ignore[operator]
        code = child.wait()
        faults = [" ".join(rest) for word, *rest in child.said if word == "fault"]
        if code != 0:
            faults.append(f"it ended with {code}: {child.last_words()}")
        return Tally(sum(word == "point" for word, *_ in child.said), tuple(faults))


def _full(place: Path, random: Random, tell: Tell, is_small: bool) -> None:
    """Parts until there is no room, then more, then room again: every part is a row or counted."""
    tell("point")
    if not is_small:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    committed, refused, others, unfinished = {}, 0, [], []
    with Outbox(place / NAME, bounds=SMALL) as outbox:
        filler = place / "filler"
        fills_at = random.randrange(20, 200)
        for number in range(1, MOST_PARTS):
            if number == fills_at and is_small:
                _fill(filler, random.randrange(0, 60_000))
            try:
                sequence = outbox.accept(f"r{number}", "boot", "cam", number, "{}")
            except DeliveryError:  # OutboxFullError or OutboxFaultError: counted
                refused += 1
                if refused >= 20:
                    break
                continue
            payload = recorded_payload(f"r{number}", sequence, random)
            try:
                outbox.commit(f"r{number}", payload)
                committed[f"r{number}"] = payload
            except DeliveryError:
                unfinished.append((f"r{number}", payload))
        if not refused:
            others.append(f"{number} parts fit on a disk that has no room for them")
        if outbox.level == "ok":
            others.append("a full outbox says that it is well")
        filler.unlink(missing_ok=True)
        if not is_small:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        outbox.mark_published(*list(committed)[: len(committed) // 2])
        for result_id, payload in unfinished:  # what was accepted must be reported as soon as there is room
            outbox.commit(result_id, payload)
            committed[result_id] = payload
        others += _goes_on(outbox, number)
    with Outbox(place / NAME, bounds=SMALL) as outbox:
        others += _all_there(place, committed, refused, outbox)
    for text in others:
        tell("fault", text)


def _read_only(place: Path, random: Random, tell: Tell) -> None:
    """The file system stops in the midst of the work, and is mended and mounted again."""
    tell("point")
    committed, others = {}, []
    with small_disk(place), Outbox(place / NAME, bounds=SMALL) as outbox:
        turns_at = random.randrange(2, 30)
        for number in range(1, turns_at):
            sequence = outbox.accept(f"r{number}", "boot", "cam", number, "{}")
            committed[f"r{number}"] = recorded_payload(f"r{number}", sequence, random)
            outbox.commit(f"r{number}", committed[f"r{number}"])
        outbox.accept("held", "boot", "cam", turns_at, "{}")
        subprocess.run(["mount", "-o", "remount,abort", str(place)], check=True)
        for number in range(turns_at + 1, turns_at + 4):
            with contextlib.suppress(DeliveryError):
                outbox.accept(f"r{number}", "boot", "cam", number, "{}")
                others.append("a part was accepted on a read-only disk")
        with contextlib.suppress(DeliveryError):
            outbox.commit("held", "{}")
            others.append("a report was committed on a read-only disk")
        if outbox.level != "fault":
            others.append(f"the level is {outbox.level!r} on a read-only disk, not 'fault'")
    with small_disk(place, is_new=False), Outbox(place / NAME, bounds=SMALL) as outbox:
        if [row.result_id for row in outbox.abandoned()] != ["held"]:
            others.append("the part that was accepted before is not waiting for its report")
        others += _goes_on(outbox, 1_000)
        outbox.commit("held", "{}")
        others += _all_there(place, committed, 0, outbox)
    for text in others:
        tell("fault", text)


def _goes_on(outbox: Outbox, number: int) -> list[str]:
    """The next part is taken as if nothing had been; it may need a second one to notice."""
    for attempt in range(3):
        try:
            outbox.accept(f"after-{attempt}", "boot", "cam", number + attempt + 1, "{}")
            outbox.commit(f"after-{attempt}", "{}")
            return []
        except DeliveryError as error:
            last = error
    return [f"there is room again, and the outbox does not go on: {last}"]


def _all_there(place: Path, committed: dict[str, str], refused: int, outbox: Outbox) -> list[str]:
    """After a restart every committed report has its content, and every refused part is in a gap."""
    with contextlib.closing(sqlite3.connect(place / NAME)) as other:
        rows = dict(other.execute("SELECT result_id, payload FROM result").fetchall())
        sequences = {row[0] for row in other.execute("SELECT sequence FROM result")}
    gaps = {number for gap in outbox.gaps() for number in range(gap.first, gap.last + 1)}
    faults = ["the outbox believes that it was damaged"] if outbox.rescued else []
    lost = [
        name for name, payload in committed.items() if rows.get(name, payload) != payload or name not in rows
    ]
    if lost:
        faults.append(f"{len(lost)} committed results are lost or changed, the first is {lost[0]}")
    if len(gaps) < refused:
        faults.append(f"{refused} parts were refused and {len(gaps)} are counted")
    known = sequences | gaps
    missing = set(range(1, max(known) + 1)) - known
    if missing:
        faults.append(f"sequences {sorted(missing)[:5]} are neither there nor counted")
    return faults


def _fill(filler: Path, leaves: int) -> None:
    """Take the whole disk but `leaves` bytes."""
    free = shutil.disk_usage(filler.parent).free
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as stream:
        stream.write(bytes(max(free - leaves, 0)))


@contextlib.contextmanager
def small_disk(place: Path, *, is_new: bool = True) -> Iterator[bool]:
    """A folder on a disk of its own; gives False where none can be mounted and it is a folder as any."""
    place.mkdir(exist_ok=True)
    image = place.with_suffix(".img")
    if is_new:
        image.write_bytes(b"")
        os.truncate(image, SMALL_DISK_BYTES)
        commands = [["mkfs.ext4", "-q", "-F", str(image)]]
    else:
        commands = [["fsck.ext4", "-p", "-f", str(image)]]
    commands.append(["mount", "-o", "loop", str(image), str(place)])
    is_mounted = os.geteuid() == 0 and all(map(_works, commands))
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", str(place)], check=True)


def _works(command: list[str]) -> bool:
    try:  # fsck says 1 when it has mended something
        return subprocess.run(command, capture_output=True, check=False).returncode in (0, 1)
    except OSError:
        return False


CAMPAIGN = Campaign(
    name="disk",
    promise="outbox damaged, disk full, disk read-only: it comes up, hands out nothing false, counts what is"
    " missing, goes on alone",
    point="damages",
    target=1_000,
    run=run_disk,
)
