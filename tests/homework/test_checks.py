"""Every check refuses each of its mistakes with its sentence, accepts what is right, and names what else is wrong."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import torch
from proofs import Proof

from course_utils import homework
from course_utils.homework import Verdict
from course_utils.homework.engine.checks import Check

HERE = Path(__file__).parent
# A module whose checks are functions still has a test of its own.
MODULES = [
    path.stem
    for path in sorted(Path(homework.__file__).parent.glob("[a-z]*.py"))
    if not (HERE / f"test_{path.stem}.py").exists()
]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Matrices this small are slower on two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def proofs_of(module: str) -> dict[str, Proof]:
    found: dict[str, Proof] = importlib.import_module(f"proofs.{module}").PROOFS
    return found


def checks_of(module: str) -> dict[str, Any]:
    """The checks of a module by name, in the notebook's order."""
    checks = importlib.import_module(f"course_utils.homework.{module}")
    found = {name: getattr(checks, name) for name in checks.__all__ if name.startswith("check_")}
    return dict(sorted(found.items(), key=lambda item: checks.EXERCISES.index(item[1](...).exercise)))


def stub(*arguments: Any, **options: Any) -> Any:
    raise NotImplementedError  # your code here


def complaints(check: Any, proof: Proof) -> list[str]:
    """What is wrong with a check, one line each."""

    def ask(answer: Any, seed: int = 0) -> Verdict:
        verdict: Verdict = check(answer, seed=seed, **proof.options)
        return verdict

    found = []
    if len(proof.right) < 2 or len(proof.wrong) < 4:
        found.append(f"{len(proof.right)} right and {len(proof.wrong)} wrong: 2 and 4 are needed")
    for number, answer in enumerate(proof.right):
        found += [
            f"right {number}, seed {seed}: {ask(answer, seed)}" for seed in (0, *proof.seeds) if not ask(answer, seed)
        ]
    mistakes = [(answer, says) for says, answer in check.known_mistakes()] if isinstance(check, Check) else []
    for answer, says in mistakes:
        verdict = ask(answer)
        if (verdict.status, verdict.message) != ("wrong", says):
            found.append(f"mistake {says!r} is {verdict.status}: {verdict.message!r}")
    for answer, words in proof.wrong:
        verdict = ask(answer)
        if verdict.status != "wrong" or words.lower() not in verdict.message.lower():
            found.append(f"wrong {words!r} is {verdict.status}: {verdict.message!r}")
    for answer, words in [*mistakes, *proof.wrong]:
        found += [
            f"{words!r} is not wrong for seed {seed}" for seed in proof.seeds if ask(answer, seed).status != "wrong"
        ]
    if callable(proof.right[0]) and ask(lambda *_, **__: None):
        found.append("a function that returns nothing is right")
    stubs = [..., *proof.stubs, *([stub] if callable(proof.right[0]) else [])]
    found += [f"a stub is {ask(answer).status}: {answer}" for answer in stubs if ask(answer).status != "todo"]
    return found


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module in MODULES for name in proofs_of(module)], ids=lambda value: value
)
def test_check(module: str, name: str) -> None:
    check, proof = checks_of(module)[name], proofs_of(module)[name]

    assert complaints(check, proof) == []
    draw = check(proof.right[0], **proof.options).figure
    if draw is not None:
        figure, alt = draw()
        plt.close(figure)
        assert len(alt) > 60


@pytest.mark.parametrize("module", MODULES)
def test_every_check_is_proven_and_every_exercise_has_one(module: str) -> None:
    checks = checks_of(module)

    assert set(proofs_of(module)) == set(checks)
    assert (
        tuple(check(...).exercise for check in checks.values())
        == importlib.import_module(f"course_utils.homework.{module}").EXERCISES
    )


def test_a_lenient_and_a_strict_check_are_found() -> None:
    def lenient(answer: Any, *, seed: int) -> Verdict:
        return Verdict("0.2", "right", "well done")

    def strict(answer: Any, *, seed: int) -> Verdict:
        return Verdict("0.2", "wrong", "no")

    proof = Proof(right=[1, 2], wrong=[(0, "no")] * 4, seeds=())
    assert len(complaints(lenient, proof)) == 5  # and a stub is right
    assert len(complaints(strict, proof)) == 3
    assert len(complaints(strict, Proof(right=[1], wrong=[(0, "yes")], seeds=()))) == 4
