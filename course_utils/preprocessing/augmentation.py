"""Augmentation: batches of images shifted, rotated, made noisy and mixed."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from course_utils._validation import check_one_of

__all__ = ["add_noise", "mixup", "random_rotate", "random_shift", "rotate", "shift"]


def shift(images: Tensor, offsets: Tensor, *, shape: tuple[int, int] | None = None, padding: str = "zeros") -> Tensor:
    """Move every image by its own whole number of pixels.

    Args:
        images: (n, height, width), (n, channels, height, width), or with ``shape`` flattened: (n, height·width).
        offsets: (n, 2), integers: how many rows down and how many columns to the right.
        shape: height and width of flattened images.
        padding: what comes in from outside: ``"zeros"``, or ``"edge"``, the outermost pixel repeated.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: a shape, a dtype or the padding is none of these.
    """
    stack = _as_stack(images, shape, padding)
    if offsets.shape != (len(stack), 2) or offsets.is_floating_point():
        raise ValueError(
            f"offsets must be integers of shape ({len(stack)}, 2), got {offsets.dtype} of shape {tuple(offsets.shape)}"
        )
    _, channels, height, width = stack.shape
    rows = torch.arange(height, device=stack.device) - offsets[:, :1]  # (n, height): from where each row is taken
    columns = torch.arange(width, device=stack.device) - offsets[:, 1:]
    source = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    source = source.flatten(1)[:, None].expand(-1, channels, -1)
    moved = stack.flatten(2).gather(2, source).reshape(stack.shape)
    if padding == "zeros":
        inside_rows, inside_columns = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
        moved = moved * (inside_rows[:, None, :, None] & inside_columns[:, None, None, :])
    return moved.reshape(images.shape)


def rotate(images: Tensor, degrees: Tensor, *, shape: tuple[int, int] | None = None, padding: str = "zeros") -> Tensor:
    """Turn every image by its own angle about its centre, bilinearly interpolated.

    Args:
        images: floating-point, shapes as in `shift`.
        degrees: (n,), counter-clockwise as the image is shown, row 0 on top.
        shape: height and width of flattened images.
        padding: as in `shift`.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: a shape, a dtype or the padding is none of these.
    """
    stack = _as_stack(images, shape, padding)
    height, width = stack.shape[2:]
    angle = torch.deg2rad(degrees.to(stack))
    sin, cos, zero = angle.sin(), angle.cos(), torch.zeros_like(angle)
    # The matrix maps a place in the result to its source, both axes scaled to [-1, 1]: hence the aspect ratio.
    to_x = torch.stack([cos, -sin * height / width, zero], dim=1)
    to_y = torch.stack([sin * width / height, cos, zero], dim=1)
    matrices = torch.stack([to_x, to_y], dim=1)
    grid = torch.nn.functional.affine_grid(matrices, list(stack.shape), align_corners=False)
    outside = "zeros" if padding == "zeros" else "border"
    turned = torch.nn.functional.grid_sample(stack, grid, padding_mode=outside, align_corners=False)
    return turned.reshape(images.shape)


def random_shift(
    images: Tensor,
    max_pixels: int,
    *,
    generator: torch.Generator | None = None,
    shape: tuple[int, int] | None = None,
    padding: str = "zeros",
) -> Tensor:
    """`shift` every image by whole pixels drawn evenly from −max_pixels to max_pixels, per axis.

    Args:
        images: see `shift`.
        max_pixels: at least 0.
        generator: draws the offsets; by default torch's global one.
        shape: see `shift`.
        padding: see `shift`.

    Raises:
        ValueError: as `shift`.
    """
    device = _drawing_device(images, generator)
    size = (len(images), 2)
    offsets = torch.randint(-max_pixels, max_pixels + 1, size, generator=generator, device=device)
    return shift(images, offsets.to(images.device), shape=shape, padding=padding)


def random_rotate(
    images: Tensor,
    max_degrees: float,
    *,
    generator: torch.Generator | None = None,
    shape: tuple[int, int] | None = None,
    padding: str = "zeros",
) -> Tensor:
    """`rotate` every image by an angle drawn evenly from −max_degrees to max_degrees.

    Args:
        images: see `rotate`.
        max_degrees: in [0, 180].
        generator: draws the angles; by default torch's global one.
        shape: see `shift`.
        padding: see `shift`.

    Raises:
        ValueError: as `rotate`.
    """
    share = torch.rand(len(images), generator=generator, device=_drawing_device(images, generator))
    return rotate(images, (2 * share.to(images.device) - 1) * max_degrees, shape=shape, padding=padding)


def add_noise(inputs: Tensor, std: float, *, generator: torch.Generator | None = None) -> Tensor:
    """Return the inputs plus independent normal noise; nothing is clipped.

    Args:
        inputs: floating-point, any shape.
        std: standard deviation of the noise, in the inputs' unit, at least 0.
        generator: draws the noise; by default torch's global one.
    """
    device = _drawing_device(inputs, generator)
    noise = torch.randn(inputs.shape, generator=generator, device=device, dtype=inputs.dtype)
    return inputs + std * noise.to(inputs.device)


def mixup(
    inputs: Tensor, targets_onehot: Tensor, alpha: float, *, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Blend every sample and its target with those of a random partner: λ·own + (1 − λ)·partner's.

    Each sample has its own λ, drawn from Beta(alpha, alpha): near 0 or 1 if alpha is small, near ½ if it is large.

    Args:
        inputs: (n, ...), floating-point.
        targets_onehot: (n, n_classes), floating-point: one-hot or soft targets.
        alpha: above 0.
        generator: draws partners and λ; by default torch's global one.

    Returns:
        Mixed inputs and targets, shapes as given; ``F.cross_entropy`` takes the targets as probabilities.

    Raises:
        ValueError: ``alpha`` is not above 0, or the targets are not as said above.

    Source: Zhang et al. 2018. Differs: λ per sample, not per batch.
    """
    expected = (len(inputs), targets_onehot.shape[-1])
    if targets_onehot.shape != expected or not targets_onehot.is_floating_point():
        raise ValueError(
            f"targets_onehot must be floating-point of shape ({len(inputs)}, n_classes), got {targets_onehot.dtype} of "
            f"shape {tuple(targets_onehot.shape)}"
        )
    device = _drawing_device(inputs, generator)
    partner = torch.randperm(len(inputs), generator=generator, device=device).to(inputs.device)
    # Torch's beta distribution takes no generator; NumPy's gets a seed from it.
    seed = int(torch.randint(2**62, (), generator=generator, device=device))
    lam = torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, len(inputs)))
    lam_inputs = lam.to(inputs).reshape(-1, *[1] * (inputs.ndim - 1))
    lam_targets = lam.to(targets_onehot)[:, None]
    mixed_inputs = lam_inputs * inputs + (1 - lam_inputs) * inputs[partner]
    return mixed_inputs, lam_targets * targets_onehot + (1 - lam_targets) * targets_onehot[partner]


def _as_stack(images: Tensor, shape: tuple[int, int] | None, padding: str) -> Tensor:
    """View the images as (n, channels, height, width)."""
    check_one_of(padding, "padding", ("zeros", "edge"))
    if shape is not None:
        if images.ndim != 2 or images.shape[1] != math.prod(shape):
            raise ValueError(f"images of shape={shape} must be (n, {math.prod(shape)}), got {tuple(images.shape)}")
        return images.reshape(len(images), 1, *shape)
    if images.ndim not in (3, 4):
        expected = "(n, height, width) or (n, channels, height, width); flattened ones need shape=(height, width)"
        raise ValueError(f"images must be {expected}, got {tuple(images.shape)}")
    return images if images.ndim == 4 else images[:, None]


def _drawing_device(like: Tensor, generator: torch.Generator | None) -> torch.device:
    return like.device if generator is None else generator.device
