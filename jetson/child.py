"""Work in a child process: what it needs is gone when it ends, and a crash of it is a sentence here.

TensorRT's builder keeps memory until its process ends, and may be killed for it.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from ..runtime.errors import EngineError, OrinspectError

Tell = Callable[..., None]


def run_in_child(work: Callable[..., Any], *arguments: Any, heard: Tell, what: str) -> Any:
    """`work(tell, *arguments)` in a fresh process; its result. Everything must be picklable.

    `heard` is called with whatever the child passes to `tell`. An OrinspectError of the child is raised here;
    EngineError when it dies, saying how; `what` names the work.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(there, work, arguments), daemon=True)
    child.start()
    there.close()
    try:
        while True:
            kind, value = here.recv()
            if kind == "tell":
                heard(*value)
                continue
            child.join()
            if kind == "error":
                raise value
            return value
    except EOFError:
        child.join()
        raise EngineError(f"{what} {_death(child.exitcode)}") from None
    finally:
        if child.is_alive():  # an exception here, Ctrl-C among them, ends it too
            child.terminate()
            child.join()
        here.close()


def _child(pipe: Connection, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    def tell(*value: Any) -> None:
        pipe.send(("tell", value))

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent has it too, and ends this process
    try:
        pipe.send(("done", work(tell, *arguments)))
    except OrinspectError as error:
        pipe.send(("error", error))
    except Exception as error:  # any other class may not be picklable
        pipe.send(("error", EngineError(f"{work.__name__} failed unexpectedly: {error!r}")))


def _death(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        if name == "SIGKILL":
            return (
                "was killed, most likely because memory ran out; stop other programs, or build the decoder "
                "in more parts with --parts N"
            )
        return f"crashed with {name}; run it again, and report it if it stays so"
    return f"ended without a result (exit code {exitcode}); run it again, and report it if it stays so"
