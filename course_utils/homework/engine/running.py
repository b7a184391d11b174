"""Run a student's code so that whatever it does ends in a sentence."""

from __future__ import annotations

import builtins
import contextlib
import io
import linecache
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

__all__ = ["Run", "run"]

_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_MAX_PRINTED = 500


class _TooSlow(BaseException):
    """Not an Exception, so that a student's ``except Exception`` lets it pass."""


class _AskedForInput(BaseException):
    """The code called ``input()``, which nobody will answer."""


@dataclass(frozen=True)
class Run:
    """What became of a call: its ``value``, or a ``failure`` in words, or ``todo`` for a stub."""

    value: Any = None
    failure: str = ""
    todo: bool = False


def run(function: Callable[..., Any], *arguments: Any, seconds: float = 5.0, quiet: bool = False) -> Run:
    """Call a student's function.

    Errors, ``sys.exit``, ``input()`` and endless loops become a failure in words; of what the code prints, the first
    500 characters are shown. The time limit works in the main thread of Linux and macOS; elsewhere there is none.

    Args:
        function: the student's.
        arguments: handed over as they are.
        seconds: the time limit.
        quiet: show nothing of what the code prints.
    """
    try:
        with _time_limit(seconds), _short_output(0 if quiet else _MAX_PRINTED), _no_input():
            return Run(function(*arguments))
    except KeyboardInterrupt:
        raise
    except _TooSlow:
        return Run(failure=f"it was still running after {seconds:g} s: is there a loop that never ends?")
    except _AskedForInput:
        return Run(failure="it calls input(), which nobody answers here: take the values from the arguments")
    except SystemExit:
        return Run(failure="it ends the program (exit or quit): return a value instead")
    except BaseException as error:  # a student's own exception may derive from anything
        if isinstance(error, NotImplementedError) and _raised_by_a_stub(error):
            return Run(todo=True)
        return Run(failure=_in_words(error))


def _raised_by_a_stub(error: NotImplementedError) -> bool:
    """Torch also raises this error, for operations a dtype lacks; a stub names it in its own line."""
    line = traceback.extract_tb(error.__traceback__)[-1].line or ""
    return "NotImplementedError" in line or not str(error)


def _in_words(error: BaseException) -> str:
    text = " ".join(str(error).split())
    text = f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
    return f"it raises {text}{_where(error.__traceback__)}"


def _where(trace: TracebackType | None) -> str:
    """Name the deepest line that the student wrote."""
    place = ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith(_PACKAGE) and "site-packages" not in file and not file.startswith(sys.base_prefix):
            line = linecache.getline(file, trace.tb_lineno).strip()
            number = trace.tb_lineno - trace.tb_frame.f_code.co_firstlineno + 1
            place = f" (line {number} of `{trace.tb_frame.f_code.co_name}`" + (f": `{line}`)" if line else ")")
        trace = trace.tb_next
    return place


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise _TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    # Again every 0.1 s, for code that swallows the first one.
    remaining, interval = signal.setitimer(signal.ITIMER_REAL, seconds, 0.1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, remaining, interval)
        signal.signal(signal.SIGALRM, before)


class _Tap(io.TextIOBase):
    """Passes the first characters on and drops the rest: 200,000 prints would freeze the page."""

    def __init__(self, target: Any, limit: int) -> None:
        self.target, self.limit, self.left = target, limit, limit

    def write(self, text: str, /) -> int:
        if self.left > 0:
            self.target.write(text[: self.left])
            self.left -= len(text)
            if self.left <= 0:
                self.target.write(f"\n… (the check shows the first {self.limit} characters that your code prints)\n")
        return len(text)


@contextlib.contextmanager
def _short_output(limit: int) -> Iterator[None]:
    with contextlib.redirect_stdout(_Tap(sys.stdout, limit)):
        yield


@contextlib.contextmanager
def _no_input() -> Iterator[None]:
    def ask(*_: object) -> str:
        raise _AskedForInput

    before = builtins.input
    builtins.input = ask
    try:
        yield
    finally:
        builtins.input = before
