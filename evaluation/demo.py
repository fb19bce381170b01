"""The main job on simulated boards, with real processes: bundle, broker, service, and an MES that listens.

    demo ──► EmbeddedBroker     amqtt, a process of its own on a free port
         ──► orinspect run      the service: scenes -> inspection -> outbox -> MQTT
         ──► examples/mes       an MES: knows topics and JSON Schemas, nothing else; stores, acknowledges

What is left in the folder: `bundle/`, `service.toml`, `outbox.sqlite`, `mes.sqlite` (what the MES stored),
`results.jsonl` (its reports as received), `pictures/`, `summary.json`, `service.log`, `run.json`. A run that
was killed is continued by the next one; a run that ended is replaced by the next one.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..runtime.errors import BundleError, DeliveryError, EngineError, UsageError
from ..runtime.infer.bundle import Bundle
from .embedded_broker import HOST, EmbeddedBroker
from .received import draw_pictures, reports_from_file, summary_from_reports, summary_text

ROOT_TOPIC = "demo/plant/area/line/station"
CALIBRATION = "scenes:pcb?seed=77"
LEAST_F = 0.90
"""Below this the demo says that the weights are not good enough, and its summary says `passed: false`."""

_PACKAGE = Path(__file__).resolve().parent.parent
_EXAMPLES = _PACKAGE / "examples"
_MES = [sys.executable, "-m", "mes"]  # from its folder, as a plant would start its copy of it
_RESTARTS = 3
_LISTENING_TIMEOUT_S = 30.0
_LAST_REPORT_TIMEOUT_S = 30.0

Say = Callable[[str], None]
Export = Callable[..., Any]


def run_demo(
    out: str | Path,
    *,
    parts: int,
    export: Export,
    checkpoint: str | Path,
    recipe: str | Path,
    style: str = "grey",
    say: Say = print,
) -> dict[str, Any]:
    """Run the whole demo into the folder `out` and return its summary, which is also `out/summary.json`.

    `export(checkpoint, [recipe], calibration, bundle)` writes the bundle. The summary's `passed` tells
    whether F reached LEAST_F and no part has two ids. EngineError or DeliveryError when a process fails.
    """
    say = _one_at_a_time(say)
    if not (_EXAMPLES / "mes").is_dir():
        raise UsageError("the demo needs examples/mes, which a wheel leaves out; use a clone")
    out = Path(out).absolute()
    source = f"scenes:pcb?seed=1&fps=5&style={style}&parts={parts}&good=0.25"
    plan = _plan(source, Path(checkpoint), Path(recipe))
    goes_on = _is_unfinished(out, plan)
    if goes_on:
        say(f"going on with the unfinished run in {out.name}/")
    else:
        _clear(out)
        (out / "run.json").write_text(plan, encoding="utf-8")
    bundle = _bundle(out, goes_on, export, checkpoint, recipe, say)
    with ExitStack() as opened:
        broker = opened.enter_context(EmbeddedBroker())
        say(f"broker: {HOST}:{broker.port}; reports on {ROOT_TOPIC}/result")
        config = out / "service.toml"
        config.write_text(_config_text(source, broker.port), encoding="utf-8")
        mes = opened.enter_context(_mes(broker.port, out, say))
        _run_service(config, out / "service.log", say)
        mes.wait_for_the_end()
    _write_results(out)
    reports = reports_from_file(out / "results.jsonl")
    compiled = bundle.recipe().recipe
    summary = summary_from_reports(reports, source, compiled, least_f=LEAST_F)
    pictures = draw_pictures(reports, source, compiled, out / "pictures")
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    say("")
    say(summary_text(summary))
    say(f"{pictures} annotated pictures in {out.name}/pictures, reports in {out.name}/results.jsonl")
    return summary


def _one_at_a_time(say: Say) -> Say:
    """`say` for two threads, ours and the one that reads the MES; through a pipe too, at once."""
    mutex = threading.Lock()

    def said(line: str) -> None:
        with mutex:
            say(line)
            sys.stdout.flush()

    return said


def _plan(source: str, checkpoint: Path, recipe: Path) -> str:
    """What a run is about, as JSON: only a run of the same parts, weights and recipe may be continued."""
    files = sorted(checkpoint.iterdir()) if checkpoint.is_dir() else []
    weights = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    text = recipe.read_text(encoding="utf-8") if recipe.is_file() else ""
    return json.dumps({"source": source, "checkpoint": checkpoint.name, "files": weights, "recipe": text})


def _is_unfinished(out: Path, plan: str) -> bool:
    """True when a run of the same plan was cut off there."""
    run = out / "run.json"
    if (out / "summary.json").exists() or not (out / "outbox.sqlite").exists() or not run.exists():
        return False
    return run.read_text(encoding="utf-8") == plan


def _clear(out: Path) -> None:
    """Remove what an earlier run left, and nothing else; the bundle is replaced when it is exported."""
    out.mkdir(parents=True, exist_ok=True)
    names = ("run.json", "summary.json", "results.jsonl", "service.toml", "service.log")
    for path in (*(out / name for name in names), *out.glob("outbox.sqlite*"), *out.glob("mes.sqlite*")):
        path.unlink(missing_ok=True)
    shutil.rmtree(out / "pictures", ignore_errors=True)


def _bundle(
    out: Path, keep: bool, export: Export, checkpoint: str | Path, recipe: str | Path, say: Say
) -> Bundle:
    """The demo's bundle, opened: exported, unless an unfinished run has left a whole one."""
    if keep:
        with contextlib.suppress(BundleError):
            return Bundle.open(out / "bundle")
    say(f"export: {Path(checkpoint).name} -> {out.name}/bundle (INT8)")
    export(checkpoint, [recipe], CALIBRATION, out / "bundle")
    return Bundle.open(out / "bundle", verify=False)


def _config_text(source: str, port: int) -> str:
    """The demo's service.toml; paths count from its folder. JSON strings are TOML strings."""
    return f"""# Written by `orinspect demo`; start from it for a station of your own.
[device]
device_id = "demo-device"
station_id = "demo-station"

[camera]
source = {json.dumps(source)}

[inspection]
bundle = "bundle"

[mqtt]
host = {json.dumps(HOST)}
port = {port}
root = {json.dumps(ROOT_TOPIC)}
protocol = "3.1.1"  # the embedded broker speaks nothing newer

[outbox]
path = "outbox.sqlite"
"""


def _run_service(config: Path, log: Path, say: Say) -> None:
    """The service as a child, until the parts are done; killed, it is started again, as systemd would."""
    for _ in range(_RESTARTS + 1):
        with log.open("ab") as errors:
            service = subprocess.Popen(
                [sys.executable, "-m", "orinspect.cli", "run", "--config", str(config)],
                stderr=errors,
                preexec_fn=_end_with_the_parent,
            )
        say(f"service: process {service.pid}")
        try:
            code = service.wait()
        finally:
            service.kill()
            service.wait()
        if code == 0:
            return
        if code > 0:
            last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            told = last[0].removeprefix("orinspect: ") if last else "it said nothing"
            raise EngineError(f"the service ended with exit code {code}: {told}")
        say(f"the service was killed ({signal.Signals(-code).name}); starting it again")
    raise EngineError(f"the service was killed {_RESTARTS + 1} times; see {log}")


class _Mes:
    """The consumer: its lines go to the screen from a thread, its end is waited for."""

    def __init__(self, process: subprocess.Popen[str], say: Say) -> None:
        self._process, self._say = process, say
        self._last = "it said nothing"
        self._is_listening = threading.Event()
        self._thread = threading.Thread(target=self._read, name="mes", daemon=True)
        self._thread.start()
        if not self._is_listening.wait(_LISTENING_TIMEOUT_S) or process.poll() is not None:
            raise DeliveryError(f"the MES did not start: {self._last}")

    def wait_for_the_end(self) -> None:
        """Until it has received the station's `offline`; DeliveryError when that does not come, or when it
        received something that is not a report."""
        try:
            code = self._process.wait(_LAST_REPORT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise DeliveryError("the MES did not hear that the station stopped") from None
        self._thread.join()
        if code:
            raise DeliveryError(f"the MES ended with exit code {code}: {self._last}")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._last = line.rstrip()
            self._say(self._last)
            if line.startswith("listening"):
                self._is_listening.set()
        self._is_listening.set()  # it ended: nobody must wait any longer


@contextlib.contextmanager
def _mes(port: int, out: Path, say: Say) -> Iterator[_Mes]:
    """The consumer, listening. The embedded broker speaks no MQTT 5."""
    process = subprocess.Popen(
        [
            *(*_MES, "run", "--database", f"sqlite:{out / 'mes.sqlite'}", "--root", ROOT_TOPIC),
            *("--host", HOST, "--port", str(port), "--protocol", "3.1.1", "--until-offline"),
        ],
        cwd=_EXAMPLES,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=_end_with_the_parent,
    )
    try:
        yield _Mes(process, say)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _write_results(out: Path) -> None:
    """`results.jsonl` from the MES's table, each report as often as it came."""
    dump = [*_MES, "dump", "--database", f"sqlite:{out / 'mes.sqlite'}", "--copies"]
    with (out / "results.jsonl").open("wb") as results:
        done = subprocess.run(dump, cwd=_EXAMPLES, stdout=results, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        raise DeliveryError(f"the MES cannot read its table: {done.stderr.decode(errors='replace').strip()}")


def _end_with_the_parent() -> None:
    """In the child, before it becomes the program: Linux kills it when the demo dies, however that dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG, <sys/prctl.h>
