"""What each check is tried on besides its own mistakes: one module of data for each module of checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Proof:
    """Answers that nobody wrote a sentence for.

    Attributes:
        right: at least two right answers in different styles.
        wrong: at least four wrong ones, none a copy of a mistake, each with words that its message must hold.
        seeds: of other inputs, as hidden tests draw them; the right stay right there, and the wrong wrong.
        stubs: more that nobody has filled in.
        options: more arguments of the check.
    """

    right: Sequence[Any]
    wrong: Sequence[tuple[Any, str]]
    seeds: Sequence[int] = (1, 1234)
    stubs: Sequence[Any] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
