"""Prove a check: it accepts right solutions in different styles, and names the fault of each wrong one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from course_utils.homework.engine.verdict import Verdict

__all__ = ["MIN_RIGHT", "MIN_WRONG", "Proof", "checks_of", "complaints"]

MIN_RIGHT, MIN_WRONG = 2, 4


@dataclass(frozen=True)
class Proof:
    """What a check is tried on; a tuple stands for several arguments of the check.

    Attributes:
        right: at least two solutions in different style.
        wrong: at least four wrong ones, each with words that its message must hold (upper or lower case).
    """

    right: Sequence[Any]
    wrong: Sequence[tuple[Any, str]]


def complaints(check: Callable[..., Verdict], proof: Proof) -> list[str]:
    """Return what is wrong with a check, one line each: nothing if the proof holds."""
    found = []
    if len(proof.right) < MIN_RIGHT or len(proof.wrong) < MIN_WRONG:
        found.append(f"{len(proof.right)} right and {len(proof.wrong)} wrong: {MIN_RIGHT} and {MIN_WRONG} are needed")
    for number, answer in enumerate(proof.right):
        verdict = _ask(check, answer)
        if not verdict:
            found.append(f"right solution {number} is refused: {verdict}")
    for number, (answer, words) in enumerate(proof.wrong):
        verdict = _ask(check, answer)
        if verdict.status != "wrong":
            found.append(f"wrong solution {number} ({words!r}) is {verdict.status}")
        elif words.lower() not in verdict.message.lower():
            found.append(f"wrong solution {number} is not told {words!r} but {verdict.message!r}")
    stub = _ask(check, ...)
    if stub.status != "todo":
        found.append(f"a stub is {stub.status}: {stub.message}")
    return found


def checks_of(module: ModuleType) -> list[Callable[..., Verdict]]:
    """Return a module's checks, in the order of its ``__all__``."""
    return [getattr(module, name) for name in module.__all__ if name.startswith("check_")]


def _ask(check: Callable[..., Verdict], answer: Any) -> Verdict:
    return check(*answer) if isinstance(answer, tuple) else check(answer)
