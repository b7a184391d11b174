"""The checks of the small homework that the tests of the grading use."""

from __future__ import annotations

from typing import Any

import numpy as np

from course_utils.homework import Verdict
from course_utils.homework.engine.judge import Mistake, judge

EXERCISES = ("1 ReLU", "2 Softmax", "3 Variance")


def draw(seed: int, scale: float = 1.0) -> list[tuple[np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [(scale * rng.normal(size=size),) for size in ((4, 3), (1, 5), (6, 2))]


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def check_relu(student: Any, *, seed: int = 0) -> Verdict:
    mistakes = [
        Mistake("you take the absolute value: negative inputs become 0", np.abs),
        Mistake("you keep the negative half", lambda x: np.minimum(x, 0)),
    ]
    return judge(
        student,
        exercise="1 ReLU",
        reference=lambda x: np.maximum(x, 0),
        cases=draw(seed),
        right="Right.",
        mistakes=mistakes,
        seconds=1,
    )


def check_softmax(student: Any, *, seed: int = 0) -> Verdict:
    mistakes = [Mistake("you normalize over the rows: each row must sum to 1", lambda x: softmax(x.T).T)]
    scale = 1000.0 if seed else 1.0  # the hidden inputs overflow exp
    return judge(
        student,
        exercise="2 Softmax",
        reference=softmax,
        cases=draw(seed, scale),
        right="Right.",
        mistakes=mistakes,
        seconds=1,
    )


def check_variance(student: Any, *, seed: int = 0) -> Verdict:
    mistakes = [
        Mistake(
            "you divided by n − 1: the batch variance divides by n", lambda x: x.var(axis=0, ddof=min(1, len(x) - 1))
        )
    ]
    return judge(
        student,
        exercise="3 Variance",
        reference=lambda x: x.var(axis=0),
        cases=draw(seed),
        right="Right.",
        mistakes=mistakes,
        seconds=1,
    )
