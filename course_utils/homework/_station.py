"""The listening station of homework 2: its recordings, its sick networks, and how a network is trained there."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from course_utils._validation import check_int, check_one_of
from course_utils.init import init_weights
from course_utils.models import MLP
from course_utils.reproducibility import make_generator

__all__ = [
    "N_CHANNELS",
    "N_KINDS",
    "PATIENTS",
    "leaves",
    "linears",
    "make_healthy",
    "make_patient",
    "record_calls",
    "relu_outputs",
    "train_station",
]

N_CHANNELS, N_KINDS, WIDTH = 20, 4, 32
# What each of them suffers from.
PATIENTS = {
    "whisperer": "vanishing",
    "shouter": "exploding",
    "sleeper": "dead",
    "dazzled": "saturated",
    "twins": "symmetric",
}
_SHAPES = {"whisperer": (5, "tanh"), "shouter": (5, "relu"), "sleeper": (3, "relu"), "dazzled": (3, "tanh")}


def record_calls(n_samples: int = 512, *, raw: bool = False, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Record calls of four kinds of whales on 20 hydrophones.

    Each kind has a pattern over the channels, which arrives in either phase (times +1 or −1) with noise on top, so that
    no linear model can tell the kinds apart. The seed fixes the patterns as well.

    Args:
        n_samples: at least 1.
        raw: in the units of the hydrophones, each with an offset and a scale of its own, and channel 7 broken: it
            gives the same number always. Otherwise every channel has mean 0 and a standard deviation near 1.
        seed: draws patterns, calls and units.

    Returns:
        Inputs (n_samples, 20), float32, and kinds (n_samples,), int64 from 0 to 3.
    """
    check_int(n_samples, "n_samples", minimum=1)
    generator = make_generator(seed)
    patterns = torch.linalg.qr(torch.randn(N_CHANNELS, N_CHANNELS, generator=generator))[0][:N_KINDS]
    offset = 500 + 2500 * torch.rand(N_CHANNELS, generator=generator)
    scale = 10 + 40 * torch.rand(N_CHANNELS, generator=generator)
    kinds = torch.randint(N_KINDS, (n_samples,), generator=generator)
    phase = 2.0 * torch.randint(2, (n_samples, 1), generator=generator) - 1
    inputs = 4 * phase * patterns[kinds] + 0.7 * torch.randn(n_samples, N_CHANNELS, generator=generator)
    if raw:
        inputs = offset + scale * inputs
        inputs[:, 7] = offset[7]
    return inputs, kinds


def make_patient(name: str, *, seed: int = 0) -> MLP:
    """Return one of the sick networks: 20 channels in, hidden layers of 32 units, 4 kinds out.

    Args:
        name: one of `PATIENTS`.
        seed: draws the weights; the sickness is the same for every seed, the numbers are not.

    Raises:
        ValueError: no such patient.
    """
    check_one_of(name, "name", tuple(PATIENTS))
    depth, activation = _SHAPES.get(name, (2, "relu"))
    scheme = "kaiming_normal" if activation == "relu" else "xavier_normal"
    generator = make_generator(seed)
    model = _make_mlp(depth, activation, scheme, generator)
    layers = linears(model)
    with torch.no_grad():
        if name == "whisperer":
            init_weights(model, "normal", std=0.02, generator=generator)
        if name == "shouter":
            for layer in layers:
                layer.weight.mul_(1.5 + 3.5 * torch.rand((), generator=generator))
        if name == "sleeper":
            for layer in layers[:-1]:
                layer.bias.copy_(-4 - 4 * torch.rand(WIDTH, generator=generator))
        if name == "twins":
            for layer in layers[:-1]:
                row = (layer.weight.sum(dim=1) - 1.5).abs().argmin()  # one that layer 1 cannot silence for all calls
                layer.weight.copy_(layer.weight[row].clone().expand_as(layer.weight))
    return model


def make_healthy(*, seed: int = 0) -> MLP:
    """Return a network that is not sick, with three hidden layers of 32 ReLUs."""
    return _make_mlp(3, "relu", "kaiming_normal", make_generator(seed))


def train_station(model: nn.Module, inputs: Tensor, kinds: Tensor, *, n_steps: int = 160, lr: float = 0.1) -> float:
    """Train in place by plain SGD on the first three quarters, in their order; return the accuracy on the last quarter.

    Args:
        model: maps (batch, 20) to (batch, 4).
        inputs: (n_samples, 20).
        kinds: (n_samples,).
        n_steps: of 64 samples each.
        lr: learning rate.
    """
    n_train = 3 * len(inputs) // 4
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=lr)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # layers this narrow are slower on two, and many times so when the cores are busy
    try:
        model.train()
        for step in range(n_steps):
            rows = torch.arange(64 * step, 64 * step + 64) % n_train
            loss = nn.functional.cross_entropy(model(inputs[rows]), kinds[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    finally:
        torch.set_num_threads(n_threads)
    model.eval()
    with torch.no_grad():
        return float((model(inputs[n_train:]).argmax(dim=1) == kinds[n_train:]).float().mean())


def linears(model: nn.Module) -> list[nn.Linear]:
    """Return the ``nn.Linear`` layers of a model, from the input to the output."""
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


def leaves(model: nn.Module) -> list[nn.Module]:
    """Return the modules of a model that hold no others, in their order."""
    return [module for module in model.modules() if not list(module.children())]


@torch.no_grad()
def relu_outputs(model: nn.Module, inputs: Tensor) -> list[Tensor]:
    """Return what each ReLU gives for the inputs, from the input to the output."""
    kept: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda *call: kept.append(call[2]))
        for module in leaves(model)
        if isinstance(module, nn.ReLU)
    ]
    model(inputs)
    for hook in hooks:
        hook.remove()
    return kept


def _make_mlp(depth: int, activation: str, scheme: str, generator: torch.Generator) -> MLP:
    with torch.random.fork_rng(devices=[]):  # torch's own initialization, overwritten here, would draw from it
        widths = [WIDTH] * depth
        return MLP(N_CHANNELS, widths, N_KINDS, activation=activation, init=scheme, generator=generator)
