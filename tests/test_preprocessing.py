"""Augmentation against torch.roll and scipy, and what it must keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from course_utils.preprocessing import add_noise, mixup, random_rotate, random_shift, rotate, shift
from course_utils.reproducibility import make_generator

RANDOM: dict[str, Callable[..., Tensor]] = {
    "shift": lambda images, generator, **options: random_shift(images, 2, generator=generator, **options),
    "rotate": lambda images, generator, **options: random_rotate(images, 20, generator=generator, **options),
}


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=make_generator(seed), dtype=torch.float64)


@given(down=st.integers(-7, 7), right=st.integers(-6, 6), padding=st.sampled_from(["zeros", "edge"]))
@settings(max_examples=40, deadline=None)
def test_shift_equals_scipy(down: int, right: int, padding: str) -> None:
    batch = images(2, 6, 5)
    moved = shift(batch, torch.tensor([[down, right], [0, 0]]), padding=padding)
    mode = "constant" if padding == "zeros" else "nearest"
    expected = ndimage.shift(batch[0].numpy(), (down, right), order=0, mode=mode)
    torch.testing.assert_close(moved[0], torch.from_numpy(expected))
    assert torch.equal(moved[1], batch[1])


def test_shift_equals_roll_when_the_border_is_empty() -> None:
    batch = images(4, 1, 8, 8)
    batch[..., :2], batch[..., -2:], batch[..., :2, :], batch[..., -2:, :] = 0, 0, 0, 0
    offsets = torch.tensor([[0, 1], [-2, 0], [2, -1], [1, 2]])
    for moved, image, offset in zip(shift(batch, offsets), batch, offsets.tolist(), strict=True):
        assert torch.equal(moved, torch.roll(image, offset, dims=(1, 2)))


@pytest.mark.parametrize("size", [(9, 9), (8, 8), (7, 12)])
@pytest.mark.parametrize("degrees", [-35.0, 10.0, 90.0])
def test_rotate_equals_scipy_where_the_source_lies_inside(size: tuple[int, int], degrees: float) -> None:
    batch = images(1, *size)
    actual = rotate(batch, torch.tensor([degrees]))[0]
    expected = ndimage.rotate(batch[0].numpy(), degrees, reshape=False, order=1, mode="constant", cval=np.nan)
    inside = torch.from_numpy(~np.isnan(expected))
    assert inside.sum() > 30
    torch.testing.assert_close(actual[inside], torch.from_numpy(expected)[inside], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("padding", "mode"), [("zeros", "grid-constant"), ("edge", "nearest")])
@pytest.mark.parametrize("size", [(8, 8), (7, 12)])
def test_rotate_takes_from_outside_what_scipy_takes(size: tuple[int, int], padding: str, mode: str) -> None:
    batch = images(1, *size)
    actual = rotate(batch, torch.tensor([40.0]), padding=padding)[0]
    expected = ndimage.rotate(batch[0].numpy(), 40.0, reshape=False, order=1, mode=mode)
    torch.testing.assert_close(actual, torch.from_numpy(expected), rtol=1e-6, atol=1e-6)


def test_quarter_turn_is_counter_clockwise() -> None:
    batch = images(1, 5, 5)
    torch.testing.assert_close(rotate(batch, torch.tensor([90.0])), torch.rot90(batch, dims=(1, 2)))


def test_edge_padding_keeps_a_constant_image_under_rotation() -> None:
    batch = torch.full((1, 6, 6), 0.7)
    torch.testing.assert_close(rotate(batch, torch.tensor([45.0]), padding="edge"), batch)


@pytest.mark.parametrize("name", RANDOM)
def test_random_draws_hand_the_padding_on(name: str) -> None:
    batch = torch.full((5, 6, 6), 0.7)
    torch.testing.assert_close(RANDOM[name](batch, make_generator(0), padding="edge"), batch)
    assert RANDOM[name](batch, make_generator(0)).min() < 0.6


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layouts_agree_and_keep_shape_and_dtype(name: str, dtype: torch.dtype) -> None:
    batch = images(3, 6, 5).to(dtype)
    plain = RANDOM[name](batch, make_generator(1))
    channelled = RANDOM[name](batch[:, None], make_generator(1))
    flat = RANDOM[name](batch.flatten(1), make_generator(1), shape=(6, 5))
    assert plain.dtype == dtype
    assert torch.equal(plain, channelled.squeeze(1))
    assert torch.equal(plain.flatten(1), flat)
    assert not torch.equal(plain, batch)


def test_strength_zero_changes_nothing() -> None:
    batch = images(3, 6, 5)
    assert torch.equal(random_shift(batch, 0), batch)
    torch.testing.assert_close(random_rotate(batch, 0), batch)
    assert torch.equal(add_noise(batch, 0), batch)


def test_random_shift_reaches_every_offset_alike_and_integers_stay_integers() -> None:
    batch = torch.zeros(2500, 5, 5, dtype=torch.uint8)
    batch[:, 2, 2] = 1
    moved = random_shift(batch, 2, generator=make_generator(0))
    assert moved.dtype == torch.uint8
    counts = moved.long().sum(dim=0)
    assert counts.sum() == 2500
    assert counts.min() > 60
    assert counts.max() < 140


def test_random_rotation_stays_within_its_limit_on_both_sides() -> None:
    batch = torch.zeros(400, 41, 41)
    batch[:, 20, 38] = 1  # 18 pixels right of the centre
    turned = random_rotate(batch, 30, generator=make_generator(0))
    rows = torch.arange(41.0) - 20
    heights = (turned.sum(dim=2) * rows).sum(dim=1) / turned.sum(dim=(1, 2))
    assert heights.max() == pytest.approx(9, abs=0.7)  # 18·sin 30°
    assert heights.min() == pytest.approx(-9, abs=0.7)


def test_noise_has_the_standard_deviation_asked_for() -> None:
    noise = add_noise(torch.ones(100, 100), 0.3, generator=make_generator(0)) - 1
    assert noise.std().item() == pytest.approx(0.3, rel=0.02)
    assert noise.mean().item() == pytest.approx(0, abs=0.01)
    # Normal, not merely of that spread: 4.55 % lie beyond two standard deviations (of a uniform noise, none).
    assert (noise.abs() > 0.6).double().mean().item() == pytest.approx(0.0455, abs=0.01)


@given(seed=st.integers(0, 10_000), alpha=st.floats(0.05, 10))
@settings(max_examples=40, deadline=None)
def test_mixup_blends_inputs_and_targets_with_the_same_shares(seed: int, alpha: float) -> None:
    n = 6
    one_hot = torch.eye(n, dtype=torch.float64)
    mixed, targets = mixup(one_hot.reshape(n, 2, 3), one_hot, alpha, generator=make_generator(seed))
    assert torch.equal(mixed.flatten(1), targets)
    assert ((targets >= 0) & (targets <= 1)).all()
    assert (targets > 0).sum(dim=1).max() <= 2
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(n).double())


def test_mixup_partners_are_drawn_anew_and_evenly() -> None:
    generator, n, n_draws = make_generator(0), 4, 400
    drawn = torch.zeros(n, n)
    for _ in range(n_draws):
        drawn += mixup(torch.zeros(n, 1), torch.eye(n), 5.0, generator=generator)[1] > 0
    partners = drawn[~torch.eye(n, dtype=torch.bool)]  # each of the three others in a quarter of the draws
    assert partners.min() > 60
    assert partners.max() < 140


def test_mixup_shares_follow_the_beta_distribution() -> None:
    own = mixup(torch.zeros(4000, 1), torch.eye(4000), 0.4, generator=make_generator(0))[1].diagonal()
    assert own.mean().item() == pytest.approx(0.5, abs=0.02)
    assert own.var().item() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), rel=0.05)


@pytest.mark.parametrize(
    "draw",
    [
        *RANDOM.values(),
        lambda batch, generator: add_noise(batch, 1.0, generator=generator),
        lambda batch, generator: mixup(batch, torch.eye(3), 1.0, generator=generator)[0],
    ],
)
def test_generator_decides_and_the_global_stream_stays(draw: Callable[..., Tensor]) -> None:
    batch, state = images(3, 6, 5), torch.get_rng_state()
    first, again, other = (draw(batch, make_generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


BATCH = torch.zeros(2, 4, 4)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, r"shape=\(height, width\), got \(2, 16\)", lambda: random_shift(BATCH.flatten(1), 1)),
        (ValueError, r"must be \(n, 15\), got \(2, 16\)", lambda: random_shift(BATCH.flatten(1), 1, shape=(3, 5))),
        (
            ValueError,
            "padding must be one of 'zeros', 'edge', got 'wrap'",
            lambda: random_shift(BATCH, 1, padding="wrap"),
        ),
        (
            ValueError,
            r"integers of shape \(2, 2\), got torch.float32 of shape \(2, 2\)",
            lambda: shift(BATCH, torch.zeros(2, 2)),
        ),
        (ValueError, r"\(2, n_classes\), got torch.int64 of", lambda: mixup(BATCH, torch.eye(2).long(), 1)),
        (ValueError, r"\(2, n_classes\), got torch.int64 of", lambda: mixup(BATCH, torch.tensor([0, 1]), 1)),
        (ValueError, r"\(2, n_classes\), got .*\(3, 3\)", lambda: mixup(BATCH, torch.eye(3), 1)),
    ],
)
def test_bad_argument_is_shown_with_what_is_allowed(error: type[Exception], message: str, call: Any) -> None:
    with pytest.raises(error, match=message):
        call()
