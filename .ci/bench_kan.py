"""The cost of a Kolmogorov-Arnold network: a forward and backward pass against an MLP and other implementations.

Cross-entropy, float32, one CPU thread, cubic splines on 5 intervals unless said. The MLP has ReLU and the same number
of layers and, to within a unit, of parameters.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import math
import statistics
from collections.abc import Callable

import torch
from benchlib import Row, median_ratio, time_in_turn
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from course_utils.kan import KAN
from course_utils.kan.pruning import output_and_penalty, sparsity_penalty
from course_utils.models import MLP, count_parameters

DEGREE = 3
COMPILER = "max-autotune-no-cudagraphs"  # what `KAN` recommends


class _CoxDeBoor(nn.Module):
    """Knots stored, the recursion by the definition, basis last, plain autograd: as efficient-kan is built."""

    def __init__(self, in_features: int, out_features: int, grid_size: int) -> None:
        super().__init__()
        knots = torch.arange(-DEGREE, grid_size + DEGREE + 1) * (2 / grid_size) - 1
        self.register_buffer("knots", knots.expand(in_features, -1).contiguous())
        n_basis = grid_size + DEGREE
        self.coefficients = nn.Parameter(torch.randn(out_features, in_features, n_basis) * 0.1 / in_features**0.5)
        self.scale = nn.Parameter(torch.ones(out_features, in_features))
        self.base_weight = nn.Parameter(torch.randn(out_features, in_features) / in_features**0.5)

    def basis(self, x: Tensor) -> Tensor:
        """Return (batch, in, basis)."""
        knots, x = self.knots, x[:, :, None]
        basis = ((x >= knots[:, :-1]) & (x < knots[:, 1:])).to(x.dtype)
        for k in range(1, DEGREE + 1):
            left = (x - knots[:, : -(k + 1)]) / (knots[:, k:-1] - knots[:, : -(k + 1)])
            right = (knots[:, k + 1 :] - x) / (knots[:, k + 1 :] - knots[:, 1:-k])
            basis = left * basis[:, :, :-1] + right * basis[:, :, 1:]
        return basis

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, out)."""
        splines = F.linear(self.basis(x).flatten(1), (self.coefficients * self.scale[:, :, None]).flatten(1))
        return F.linear(F.silu(x), self.base_weight) + splines


class _Dense(_CoxDeBoor):
    """Every edge's value is made, (batch, out, in), then summed: as pykan is built."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, out)."""
        splines = torch.einsum("njb,ijb->nij", self.basis(x), self.coefficients)
        edges = self.base_weight * F.silu(x)[:, None, :] + self.scale * splines
        return edges.sum(dim=2)


def _stack(layer: Callable[[int, int, int], nn.Module], widths: list[int], grid_size: int) -> nn.Module:
    return nn.Sequential(*(layer(a, b, grid_size) for a, b in itertools.pairwise(widths)))


def _mlp(widths: list[int], n_parameters: int) -> MLP:
    """Return the smallest with as many parameters."""
    depth = len(widths) - 2
    hidden = 1
    while count_parameters(MLP(widths[0], [hidden] * depth, widths[-1])) < n_parameters:
        hidden += 1
    return MLP(widths[0], [hidden] * depth, widths[-1])


def _released(widths: list[int]) -> dict[str, nn.Module]:
    """Return the networks of the packages that are installed; ``kan`` is the import name of pykan."""
    networks: dict[str, nn.Module] = {}
    for package in ("kan", "efficient_kan"):
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                module = importlib.import_module(package)
        except ImportError:
            print(f"{package} is not installed: pip install -e .[bench]")
        else:
            if package == "kan":  # without the files that it would write, and the copies of all that it would keep
                for name in ("pykan", "pykan.speed()"):  # a list of their own, since the constructor changes it
                    networks[name] = module.KAN(width=list(widths), grid=5, k=DEGREE, auto_save=False)
                networks["pykan.speed()"].speed()  # type: ignore[operator]
            else:
                networks["efficient_kan"] = module.KAN(widths, grid_size=5, spline_order=DEGREE)
    return networks


def _step(model: nn.Module, inputs: Tensor, targets: Tensor) -> Callable[[], None]:
    def run() -> None:
        model.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()

    return run


def _times(networks: dict[str, nn.Module], widths: list[int], batch: int, rounds: int) -> dict[str, list[float]]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(batch, widths[0], generator=generator) * 2 - 1
    targets = torch.randint(widths[-1], (batch,), generator=generator)
    steps = {name: _step(network, inputs, targets) for name, network in networks.items()}
    for step in steps.values():  # compiles what is to be compiled
        step()
        step()
    return time_in_turn(steps, rounds=rounds)


def _against_the_mlp(
    widths: list[int], batch: int, *, grid_size: int = 5, bounds: tuple[float, float] = (math.inf, math.inf)
) -> list[Row]:
    torch.manual_seed(0)
    ours = KAN(widths, grid_size=grid_size)
    networks: dict[str, nn.Module] = {"MLP": _mlp(widths, count_parameters(ours)), "eager": ours}
    networks["compiled"] = torch.compile(ours, mode=COMPILER)  # type: ignore[assignment]
    seconds = _times(networks, widths, batch, rounds=200)
    ms = {name: statistics.median(times) * 1000 for name, times in seconds.items()}
    return [
        Row(
            f"KAN {name} / MLP, {widths}, batch {batch}, grid {grid_size}",
            median_ratio(seconds, name, "MLP"),
            bound,
            f"{ms[name]:.2f} and {ms['MLP']:.2f} ms",
        )
        for name, bound in zip(("eager", "compiled"), bounds, strict=True)
    ]


def _against_others(widths: list[int], batch: int) -> list[Row]:
    torch.manual_seed(0)
    ours = KAN(widths)
    networks: dict[str, nn.Module] = {"eager": ours}
    networks["compiled"] = torch.compile(ours, mode=COMPILER)  # type: ignore[assignment]
    networks |= {"Cox-de Boor": _stack(_CoxDeBoor, widths, 5), "dense": _stack(_Dense, widths, 5)}
    networks |= _released(widths)
    seconds = _times(networks, widths, batch, rounds=7)
    ms = {name: statistics.median(times) * 1000 for name, times in seconds.items()}
    bounds = {("eager", "Cox-de Boor"): 1 / 4, ("compiled", "Cox-de Boor"): 1 / 7}
    bounds |= {("eager", "efficient_kan"): 1 / 4, ("compiled", "efficient_kan"): 1 / 7}
    return [
        Row(
            f"KAN {mode} / {name}",
            median_ratio(seconds, mode, name),
            bounds.get((mode, name), math.inf),
            f"{ms[mode]:.2f} and {ms[name]:.1f} ms",
        )
        for name in networks
        if name not in ("eager", "compiled")
        for mode in ("eager", "compiled")
    ]


def _regularized(widths: list[int], batch: int) -> list[Row]:
    generator = torch.Generator().manual_seed(0)
    model = KAN(widths, generator=generator)
    inputs = torch.rand(batch, widths[0], generator=generator) * 2 - 1
    targets = torch.randint(widths[-1], (batch,), generator=generator)

    def apart() -> None:
        model.zero_grad()
        (F.cross_entropy(model(inputs), targets) + sparsity_penalty(model, inputs)).backward()

    def together() -> None:
        model.zero_grad()
        output, penalty = output_and_penalty(model, inputs)
        (F.cross_entropy(output, targets) + penalty).backward()

    steps = {"plain": _step(model, inputs, targets), "together": together, "apart": apart}
    seconds = time_in_turn(steps, rounds=100)
    return [
        Row("step with output_and_penalty / plain", median_ratio(seconds, "together", "plain"), 2),
        Row("step with sparsity_penalty / plain", median_ratio(seconds, "apart", "plain"), math.inf),
    ]


def run() -> list[Row]:
    """Time a pass of all in turn, on one thread; packages that are not installed are left out."""
    torch.set_num_threads(1)
    return [
        *_against_the_mlp([64, 64, 64, 10], 256, bounds=(2.2, 1.3)),
        *_against_the_mlp([64, 64, 64, 10], 256, grid_size=20),
        *_against_the_mlp([256, 256, 10], 256),
        *_against_the_mlp([2, 5, 1], 1000),
        *_against_others([64, 64, 64, 10], 256),
        *_regularized([64, 64, 64, 10], 256),
    ]
