"""Seeds, set-up and the environment report."""

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from course_utils import reproducibility as rp


@pytest.fixture(autouse=True)
def restore_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


def test_the_same_seed_gives_the_same_draws_everywhere() -> None:
    rp.seed_everything(7)
    first = draws()
    rp.seed_everything(7)
    assert draws() == first
    rp.seed_everything(8)
    assert all(a != b for a, b in zip(draws(), first, strict=True))


def test_a_generator_is_a_stream_of_its_own() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    torch.rand(5, generator=rp.make_generator(1))
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_set_up_fixes_the_threads() -> None:
    rp.set_up(0)
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(("seed", "error"), [(-1, ValueError), (2**32, ValueError), ("1", TypeError), (1.0, TypeError)])
def test_what_is_no_seed_is_refused_before_anything_is_seeded(seed: int, error: type[Exception]) -> None:
    before = random.getstate()
    with pytest.raises(error):
        rp.seed_everything(seed)
    assert random.getstate() == before
    if seed == -1:
        with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
            rp.make_generator(seed)


def test_the_report_names_versions_and_device_and_no_path() -> None:
    report = rp.environment_report()
    assert f"torch {torch.__version__.split('+')[0]}" in report
    assert "CPU threads" in report
    assert "/" not in report.replace("course_utils", "")


def test_device_is_usable() -> None:
    assert torch.ones(1, device=rp.get_device()).item() == 1.0
