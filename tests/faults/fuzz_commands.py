"""Fuzzing of whole commands: an exit code of their own, one sentence on standard error, never a traceback.

Most run `cli.main` in a forked child, which costs no second import; one in REAL_EVERY is a whole process.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TextIO

from orinspect import cli
from orinspect.runtime.infer.bundle import manifest_digest, sha256_of_file
from orinspect.runtime.tables import is_text
from orinspect.tests.faults.fuzz import ENDINGS, SERVICE, Ground, prepare
from orinspect.tests.faults.means.boxed import HANG_S, watch_writes
from orinspect.tests.faults.means.campaign import Campaign, Tally
from orinspect.tests.faults.means.forked import fork
from orinspect.tests.faults.means.mutations import (
    TEXTS,
    json_bytes,
    mutated_bytes,
    mutated_tree,
    toml_bytes,
)

COMMANDS = 50
REAL_EVERY = 25
LONGEST_S = 60.0
WORK_S = 20.0  # of CPU: a picture that is inspected after all
WORDS = (
    *(text for text in TEXTS if "\0" not in text and is_text(text)),
    "\udcff",  # how Python hands down a byte of the command line that is no UTF-8
    "--json",
    "-",
    "--recipe",
    "x" * 300,
)


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code (negative: a signal), CPU seconds, and what it said."""

    code: int
    cpu_s: float
    out: str
    err: str
    strays: str


def run_fuzz_commands(seed: int, folder: Path, commands: int = COMMANDS) -> Tally:
    """`commands` commands with something damaged in each."""
    ground = prepare(folder)
    failures = []
    for number in range(commands):
        random = Random(f"command {seed} {number}")
        place = folder / "case"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        arguments = drawn_command(ground, place, random)
        ended = (_real if number % REAL_EVERY == 0 else _forked)(arguments, place)
        failures += [
            f"command {number} {arguments}: {fault}"[:500] for fault in faults_of(ended, arguments[0])
        ]
    return Tally(commands, tuple(failures))


def drawn_command(ground: Ground, place: Path, random: Random) -> list[str]:
    """Write damaged documents into `place` and name a command that reads them."""
    (place / "part.png").write_bytes(ground.pictures[".png"])
    bundle, picture, extra = (
        str(ground.bundle),
        str(place / "part.png"),
        ["--template", str(place / "part.png")],
    )
    kind = random.randrange(6)
    if kind == 0:
        picture = str(place / f"damaged{random.choice(ENDINGS)}")
        Path(picture).write_bytes(mutated_bytes(ground.pictures[random.choice(ENDINGS)], random))
    elif kind == 1:
        bundle = str(_damaged_bundle(ground, place, random))
    elif kind == 2:
        (place / "scale.json").write_bytes(json_bytes(mutated_tree(ground.scale, random), random))
        extra += ["--scale", str(place / "scale.json")]
    elif kind == 3:
        words = ["inspect", bundle, picture, *extra, "--threads", "1"]
        for _ in range(random.choice((1, 1, 3))):
            at = random.randrange(len(words) + 1)
            words[at : at + random.randrange(2)] = [random.choice(WORDS)]
        return words if "demo" not in words else ["inspect"]
    elif kind == 4:
        ending, write = random.choice(((".json", json_bytes), (".toml", toml_bytes)))
        config = place / f"service{ending}"
        config.write_bytes(write(mutated_tree(SERVICE, random), random))
        return ["check-config", "--config", str(config), *random.choice(([], ["--json"]))]
    else:
        Path(place / "template.png").write_bytes(mutated_bytes(ground.pictures[".png"], random))
        extra = ["--template", str(place / "template.png")]
    return ["inspect", bundle, picture, *extra, "--threads", "1", *random.choice(([], ["--json"]))]


def faults_of(ended: Ended, command: str) -> list[str]:
    """What a user or a service manager must never see."""
    faults = []
    if ended.code not in (0, 1, 2):
        faults.append(f"exit code {ended.code}")
    if "Traceback" in ended.err or "Traceback" in ended.out:
        faults.append(f"a traceback: {ended.err.strip().splitlines()[-1]!r}")
    said = [line for line in ended.err.splitlines() if line.startswith(("orinspect: ", "orinspect "))]
    said += ended.out.splitlines() if command == "check-config" else []  # what is wrong is its answer
    if ended.code in (1, 2) and not said:
        faults.append(f"exit code {ended.code} and not a sentence: {ended.err[-200:]!r}")
    if ended.cpu_s > (WORK_S if ended.code == 0 else HANG_S):
        faults.append(f"exit code {ended.code} after {ended.cpu_s:.1f} s of CPU")
    if ended.strays:
        faults.append(f"it would change {ended.strays}")
    return faults


def _damaged_bundle(ground: Ground, place: Path, random: Random) -> Path:
    """A copy of the bundle in which one file is damaged, its manifest made to fit or not."""
    bundle = place / "bundle"
    shutil.copytree(ground.bundle, bundle)
    manifest = json.loads(ground.manifest)
    name = random.choice(sorted(manifest["files"]))
    content = (bundle / name).read_bytes()
    (bundle / name).write_bytes(mutated_bytes(content, random))
    if random.random() < 0.8:
        entry = {"bytes": (bundle / name).stat().st_size, "sha256": sha256_of_file(bundle / name)}
        manifest["files"][name] = entry
        manifest["manifest_sha256"] = manifest_digest(manifest)
        (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return bundle


def _forked(arguments: Sequence[str], place: Path) -> Ended:
    """`cli.main` in a forked child."""
    pid = fork()
    if pid == 0:
        code = 99
        try:
            for descriptor, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(place / name, os.O_WRONLY | os.O_CREAT), descriptor)
            os.chdir(place)
            sys.stdout, sys.stderr = _stream(1), _stream(2)
            strays = watch_writes(place)
            code = cli.main(arguments)
            (place / "strays").write_text(" ".join(strays), encoding="utf-8")
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    _, status, used = os.wait4(pid, 0)
    return Ended(
        os.waitstatus_to_exitcode(status),
        used.ru_utime + used.ru_stime,
        _text(place / "out"),
        _text(place / "err"),
        _text(place / "strays"),
    )


def _stream(descriptor: int) -> TextIO:
    """As Python opens its own: what cannot be written is escaped on standard error only."""
    return open(descriptor, "w", closefd=False, errors="strict" if descriptor == 1 else "backslashreplace")


def _real(arguments: Sequence[str], place: Path) -> Ended:
    """A process of its own; what Python takes to start drowns its CPU time: LONGEST_S counts alone."""
    command = [sys.executable, "-m", "orinspect.cli", *arguments]
    done = subprocess.run(command, cwd=place, capture_output=True, timeout=LONGEST_S, check=False)
    out, err = (text.decode("utf-8", errors="replace") for text in (done.stdout, done.stderr))
    return Ended(done.returncode, 0.0, out, err, "")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


CAMPAIGN = Campaign(
    name="fuzz_commands",
    promise="commands with damaged files: exit code 0, 1 or 2, one sentence, no traceback, no stray file",
    point="commands",
    target=1_000,
    run=run_fuzz_commands,
)
