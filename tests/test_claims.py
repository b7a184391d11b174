"""A claim shows its measurement and refuses a false one."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_utils.claims import MIME_TYPE, Claim, ClaimError, claim


def test_a_true_claim_shows_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    claim("Clipping keeps the loss finite", [0.52, 0.58], ">=", 0.4, source="deck 001", unit="accuracy")
    assert capsys.readouterr().out == (
        "✔ Clipping keeps the loss finite: 0.52 … 0.58 accuracy over 2 seeds (asserted: ≥ 0.4 accuracy; deck 001)\n"
    )


def test_numbers_may_run_over_something_else_than_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    claim("Every fold agrees", [1.0, 2.0], ">", 0.5, source="this lesson", over="folds")

    assert "1 … 2 over 2 folds (asserted" in capsys.readouterr().out


def test_a_false_claim_shows_its_line_and_raises(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ClaimError, match="✘ Zero is large: 0 "):
        claim("Zero is large", 0, ">", 1, source="this lesson")
    assert "✘" in capsys.readouterr().out


def test_one_bad_seed_is_enough_to_fail() -> None:
    with pytest.raises(ClaimError):
        claim("All seeds", [1.0, 1.0, 0.4], ">", 0.5, source="this lesson")


@pytest.mark.parametrize("op", ["<", "<=", ">", ">=", "=="])
def test_nan_satisfies_nothing(op: str) -> None:
    with pytest.raises(ClaimError):
        claim("NaN", math.nan, op, 0.0, source="this lesson")


@given(value=st.floats(allow_nan=False), bound=st.floats(allow_nan=False))
def test_each_comparison_means_what_it_says(value: float, bound: float) -> None:
    holds = {op: Claim("x", (value,), op, bound, "y").holds for op in ("<", "<=", ">", ">=", "==")}
    assert holds == {
        "<": value < bound,
        "<=": value <= bound,
        ">": value > bound,
        ">=": value >= bound,
        "==": value == bound,
    }


def test_tensors_and_scalars_are_taken() -> None:
    claim("a tensor", torch.tensor([0.9, 0.8]), ">", 0.5, source="this lesson")
    claim("a scalar tensor", torch.tensor(0.9), ">", 0.5, source="this lesson")


def test_the_bundle_is_valid_json_and_escapes_html() -> None:
    made = Claim("0.25ⁿ < 1 & falling", (math.inf, 2.0), ">", 1.0, "deck <001>")
    bundle = made._repr_mimebundle_()
    assert "&lt; 1 &amp; falling" in bundle["text/html"]
    assert "<001>" not in bundle["text/html"]
    data = json.loads(json.dumps(bundle[MIME_TYPE], allow_nan=False))
    assert data["measured"] == ["inf", 2.0]
    assert data["holds"] is True
    assert data["seeds"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("x", 1.0, "=>", 0.0), r"op must be one of .* got '=>'"),
        (("x", [], ">", 0.0), "at least one number"),
    ],
)
def test_errors_show_the_value(arguments: tuple[str, float, str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        claim(*arguments, source="this lesson")
