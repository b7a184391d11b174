"""Homework 2: five networks, each sick in another way, and checks that examine the cured ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from course_utils.homework._station import (
    N_CHANNELS,
    N_KINDS,
    PATIENTS,
    leaves,
    linears,
    make_healthy,
    make_patient,
    record_calls,
    relu_outputs,
    train_station,
)
from course_utils.homework.engine.compare import brief
from course_utils.homework.engine.judge import Mistake, judge, not_attempted
from course_utils.homework.engine.running import run
from course_utils.homework.engine.verdict import Verdict
from course_utils.monitoring.diagnosis import Diagnosis, diagnose
from course_utils.reproducibility import make_generator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "EXERCISES",
    "PATIENTS",
    "check_gradient_profile",
    "check_name_sickness",
    "check_quiet_the_shouter",
    "check_raise_the_whisperer",
    "check_shade_the_dazzled",
    "check_tell_the_twins_apart",
    "check_wake_the_sleeper",
    "make_patient",
    "record_calls",
    "train_station",
]

EXERCISES = (
    "2.1 The gradient of every layer",
    "2.2 A name for the sickness",
    "2.3 Raise the whisperer's voice",
    "2.4 Quiet the shouter",
    "2.5 Wake the sleeper",
    "2.6 Shade the dazzled",
    "2.7 Tell the twins apart",
)
# Cured networks reach at least 0.82 in `train_station`'s steps, sick ones at most 0.69, guessing 0.25.
_GOOD_ACCURACY = 0.6
_N_TRAIN = 384  # the first three quarters of 512, as in `train_station`

_Cure = Callable[[nn.Sequential, Tensor, torch.Generator], Any]
_Rules = Callable[[nn.Module, nn.Module, Tensor], str]


def check_gradient_profile(student: Any, *, seed: int = 0) -> Verdict:
    """Judge ``gradient_profile(model, inputs, kinds)``: the gradient norm of every weight matrix, input to output."""
    cases = []
    for number, name in enumerate(("whisperer", "shouter", "sleeper", "twins")):
        cases.append((make_patient(name, seed=seed + number), *record_calls(64, seed=seed + number)))

    def with_leftovers(function: Callable[..., Any], model: nn.Module, inputs: Tensor, kinds: Tensor) -> Any:
        for parameter in model.parameters():  # as after a step of training: whoever forgets to clear them, adds
            parameter.grad = torch.ones_like(parameter)
        found = function(model, inputs, kinds)
        return tuple(found) if isinstance(found, list | np.ndarray) or type(found) is type({}.values()) else found

    def gradients(model: nn.Module, inputs: Tensor, kinds: Tensor, *, reduction: str = "mean") -> list[Tensor]:
        loss = nn.functional.cross_entropy(model(inputs), kinds, reduction=reduction)
        return list(torch.autograd.grad(loss, [layer.weight for layer in linears(model)]))

    def by(measure: Callable[[Tensor], Tensor]) -> Callable[..., list[float]]:
        return lambda *arguments: [measure(gradient).item() for gradient in gradients(*arguments)]

    def all_parameters(model: nn.Module, inputs: Tensor, kinds: Tensor) -> list[float]:
        found = torch.autograd.grad(nn.functional.cross_entropy(model(inputs), kinds), list(model.parameters()))
        return [gradient.norm().item() for gradient in found]

    def summed(*arguments: Any) -> list[float]:
        return [gradient.norm().item() for gradient in gradients(*arguments, reduction="sum")]

    def of_weights(model: nn.Module, *_: Tensor) -> list[float]:
        return [layer.weight.norm().item() for layer in linears(model)]

    norms = by(torch.norm)
    wrong: dict[str, Callable[..., list[float]]] = {
        "old gradients are still in `.grad`, and `backward` adds to them: clear them first": by(
            lambda gradient: (gradient + 1).norm()
        ),
        "the order is reversed: the layer next to the input comes first": lambda *arguments: norms(*arguments)[::-1],
        "these are the *squares* of the norms: the root is missing": by(lambda gradient: (gradient**2).sum()),
        "you averaged absolute values; the norm is the root of the sum of squares": by(lambda g: g.abs().mean()),
        "this is the largest entry of each gradient, not its norm": by(lambda gradient: gradient.abs().max()),
        "there are biases among them: only the weight matrices count": all_parameters,
        "these are the norms of the weights, not of their gradients": of_weights,
        "the loss was summed over the batch; take its mean": summed,
    }
    return judge(
        student,
        exercise=EXERCISES[0],
        reference=norms,
        cases=cases,
        mistakes=[Mistake(says, answer) for says, answer in wrong.items()],
        call=with_leftovers,
        rtol=1e-4,
        atol=1e-12,
        right="right: these are the numbers that `GradientMonitor` records, and nothing of an older step is in them.",
    )


def check_name_sickness(student: Any, *, seed: int = 0) -> Verdict:
    """Judge ``name_sickness(model, inputs, kinds)``: one of the five sicknesses, or ``"healthy"``."""
    exercise, allowed = EXERCISES[1], (*PATIENTS.values(), "healthy")
    if (verdict := _unusable(student, exercise)) is not None:
        return verdict
    for number in range(3):
        for name, truth in _shuffled([*PATIENTS.items(), ("healthy", "healthy")], seed + number):
            model = make_healthy(seed=seed + number) if name == "healthy" else make_patient(name, seed=seed + number)
            data = record_calls(256, raw=name == "dazzled", seed=seed + number)
            state = copy.deepcopy(model.state_dict())
            outcome = run(student, model, *data, quiet=number > 0)
            if outcome.todo:
                return Verdict(exercise, "todo", "not attempted yet")
            if outcome.failure:
                return Verdict(exercise, "wrong", outcome.failure)
            said = outcome.value
            if said is None:
                return Verdict(exercise, "wrong", "it returns None: is the `return` missing, perhaps in one branch?")
            if not isinstance(said, str) or said not in allowed:
                return Verdict(exercise, "wrong", f"it returns one of {', '.join(allowed)}, as text", got=brief(said))
            if any(not torch.equal(state[key], value) for key, value in model.state_dict().items()):
                return Verdict(exercise, "wrong", "it changes the patient's weights: an examination only looks")
            if said != truth:
                return Verdict(exercise, "wrong", f"it calls a network {said!r} that is not: {_EVIDENCE[said]}")
    return Verdict(exercise, "right", "right: eighteen networks, and every sickness has its name.")


_EVIDENCE = {
    "vanishing": "compare the gradient that reaches the first layer with the error at the output; does it get smaller?",
    "exploding": "compare the gradient that reaches the first layer with the error at the output; does it grow?",
    "dead": "a dead unit gives 0 for *every* sample; which activation can do that, and which share of units does?",
    "saturated": "which share of the activations sits at an asymptote, and does the activation have two of them?",
    "symmetric": "are the rows of its weight matrices really alike?",
    "healthy": "a single pass of the monitors may look fine; what do they not compare, one unit with another?",
}


def check_raise_the_whisperer(student: Any, *, seed: int = 0) -> Verdict:
    """Judge ``raise_the_whisperer(model, inputs, generator)``: any weights, but the same layers."""
    right = "right: the gradient now reaches the first layer, and on all three seeds the network learns."
    return _examine(student, EXERCISES[2], "whisperer", _same_layers, right, seed)


def check_quiet_the_shouter(student: Any, *, seed: int = 0) -> Verdict:
    """Judge ``quiet_the_shouter(model, inputs, generator)``: one positive factor for each weight matrix."""

    @torch.no_grad()
    def rules(before: nn.Module, after: nn.Module, inputs: Tensor) -> str:
        if says := _same_layers(before, after, inputs):
            return says
        for old, new in zip(linears(before), linears(after), strict=True):
            factor = float((old.weight * new.weight).sum() / (old.weight**2).sum())
            if not torch.allclose(new.weight, factor * old.weight, rtol=1e-3, atol=1e-6 * float(old.weight.std())):
                return "a weight matrix lost its pattern: multiply each matrix by one number, the same for all entries"
            if factor <= 0:
                return "a weight matrix is multiplied by a number that is not positive, which reverses what it says"
            if not torch.equal(old.bias, new.bias):
                return "a bias changed; only the weight matrices were to be scaled"
        return ""

    right = "right: every pattern is still there, at a volume at which gradients neither explode nor fade."
    return _examine(student, EXERCISES[3], "shouter", rules, right, seed)


def check_wake_the_sleeper(student: Any, *, seed: int = 0) -> Verdict:
    """Judge ``wake_the_sleeper(model, inputs, generator)``: only biases may change, and ReLUs must still switch."""

    def rules(before: nn.Module, after: nn.Module, inputs: Tensor) -> str:
        if says := _same_layers(before, after, inputs) or _same_weights(linears(before), linears(after)):
            return says
        layers = relu_outputs(after, inputs)
        dead = max(float((values <= 0).all(dim=0).float().mean()) for values in layers)
        always_on = max(float((values > 0).all(dim=0).float().mean()) for values in layers)
        if always_on > 0.5:
            return (
                f"in one layer {always_on:.0%} of the units are now positive for *every* call: a ReLU that never "
                "switches is a linear unit"
            )
        if dead > 0.2:
            return f"in one layer {dead:.0%} of the units still give 0 for every call: look at all hidden layers"
        return ""

    right = "right: the units fire for some calls and are silent for others, with the weights they had."
    return _examine(student, EXERCISES[4], "sleeper", rules, right, seed)


def check_shade_the_dazzled(student: Any, *, seed: int = 0) -> Verdict:
    """Judge ``shade_the_dazzled(model, inputs, generator)``: something in front of an untouched network."""

    def rules(before: nn.Module, after: nn.Module, inputs: Tensor) -> str:
        old, new = linears(before), linears(after)[-len(linears(before)) :]
        if says := _same_weights(old, new):
            return says.replace("a weight matrix", "a weight matrix or a layer of the network itself")
        if any(b.bias is None or not torch.equal(a.bias, b.bias) for a, b in zip(old, new, strict=True)):
            return "a bias of the network itself changed; what is to be done happens in front of it"
        entering: list[Tensor] = []
        hook = new[0].register_forward_pre_hook(lambda _, arguments: entering.append(arguments[0].detach()))
        with torch.no_grad():
            output = after.train()(inputs)
        hook.remove()
        if not entering:
            return "the layers of the network itself are there, but nothing passes through them"
        seen = entering[0]
        if not bool(torch.isfinite(seen).all()):
            return "NaN or infinity enters the network: one hydrophone is broken, its standard deviation is 0"
        working = [channel for channel in range(N_CHANNELS) if channel != 7]
        mean, std = seen.mean(dim=0)[working], seen.std(dim=0)[working]
        if float(mean.abs().max()) > 0.1 or float((std - 1).abs().max()) > 0.1:
            if torch.allclose(seen, inputs):
                return "the calls enter the network as they are, in the units of the hydrophones"
            if abs(float(seen.mean())) < 0.1 and abs(float(seen.std()) - 1) < 0.1:
                return (
                    "all channels share one mean and one deviation; each hydrophone has units of its own: mind the axis"
                )
            worst = f"mean {float(mean.abs().max()):.2g} or deviation {float(std.max()):.2g}"
            return f"a channel enters with {worst}, not with 0 and 1"
        if float(seen[:, 7].abs().max()) > 1:
            return "the broken channel 7 enters with a large number, though it says nothing"
        if not torch.allclose(before(seen), output, rtol=1e-3, atol=1e-4):
            return "something stands between the layers, or behind them: change only what is in front of the network"
        return ""

    right = "right: every channel enters in the same units, and the network behind the door is untouched."
    return _examine(student, EXERCISES[5], "dazzled", rules, right, seed, raw=True)


def check_tell_the_twins_apart(student: Any, *, seed: int = 0) -> Verdict:
    """Judge ``tell_the_twins_apart(model, inputs, generator)``: any weights in the same layers, no two units alike."""
    right = "right: no two units start alike, so that each can learn something of its own."
    return _examine(student, EXERCISES[6], "twins", _same_layers, right, seed)


def _examine(
    student: Any, exercise: str, name: str, rules: _Rules, right: str, seed: int, *, raw: bool = False
) -> Verdict:
    """Cure three patients with the student's function, and measure each: rules, likeness, gradients, learning."""
    if (verdict := _unusable(student, exercise)) is not None:
        return verdict
    figure = None
    for number in range(3):
        sick = make_patient(name, seed=seed + number)
        inputs, kinds = record_calls(512, raw=raw, seed=seed + number)
        train = inputs[:_N_TRAIN]
        cured = []
        for _ in range(2):  # twice, to see whether the generator decides all that is random
            handed = train.clone()
            # Not the patient's own seed, with which one would draw its pattern again.
            generator = make_generator(seed + number + 1000)
            outcome = run(student, copy.deepcopy(sick), handed, generator, quiet=number > 0)
            if outcome.todo:
                return Verdict(exercise, "todo", "not attempted yet")
            if outcome.failure:
                return Verdict(exercise, "wrong", outcome.failure)
            if not torch.equal(handed, train):
                return Verdict(exercise, "wrong", "it changes the recorded calls in place: work on a copy")
            cured.append(outcome.value)
        # What the student returned runs here too, whatever it does.
        examined = run(_findings, cured, sick, rules, inputs, kinds, seconds=120.0, quiet=True)
        if examined.failure:
            return Verdict(exercise, "wrong", f"when the returned network is examined, {examined.failure}")
        says, figure = examined.value
        if says:
            return Verdict(exercise, "wrong", says)
    return Verdict(exercise, "right", right, figure=figure)


def _findings(
    cured: Sequence[Any], sick: nn.Module, rules: _Rules, inputs: Tensor, kinds: Tensor
) -> tuple[str, Callable[[], tuple[Figure, str]] | None]:
    train = inputs[:_N_TRAIN], kinds[:_N_TRAIN]
    if says := _complaint(cured, sick, rules, train[0]):
        return says, None
    before, after = (diagnose(model, train, nn.functional.cross_entropy) for model in (sick, cured[0]))
    figure = None if before.healthy else _before_and_after(before, after)  # the twins look healthy: nothing to see
    return _prognosis(cured[0], after, inputs, kinds), figure


def _complaint(cured: Sequence[Any], sick: nn.Module, rules: _Rules, inputs: Tensor) -> str:
    model = cured[0]
    if model is None:
        return "it returns None: return the cured network"
    if not isinstance(model, nn.Module) or not isinstance(cured[1], nn.Module):
        return f"it returns a {type(model).__name__}; a network is expected"
    if not all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters()):
        return "some weights are NaN or infinite"
    if not all(map(torch.equal, model.parameters(), cured[1].parameters())):
        return "two calls with the same generator give different networks: draw every random number from `generator`"
    outcome = run(model.train(), inputs)
    if outcome.failure:
        return f"the returned network does not run: {outcome.failure}"
    if not isinstance(outcome.value, Tensor) or outcome.value.shape != (len(inputs), N_KINDS):
        return f"the returned network must give {N_KINDS} numbers for each call; the shape is wrong"
    if not all(parameter.requires_grad for layer in linears(model) for parameter in layer.parameters()):
        return "some weights are frozen (requires_grad is False): they can never learn"
    if says := rules(sick, model, inputs):
        return says
    for layer in linears(model)[:-1]:
        # Relative spread between the units: about 0.98 for random weights, 0 for copies.
        weight = layer.weight.detach()
        spread = float(weight.std(dim=0).norm() / weight.square().mean(dim=0).sqrt().norm())
        if not spread > 0.3:
            return "the units of a layer are the same, or nearly so: they get the same gradients and stay alike"
    return ""


def _prognosis(model: nn.Module, after: Diagnosis, inputs: Tensor, kinds: Tensor) -> str:
    if not after.healthy:
        return f"it is still sick: {after.worst.verdict} in layer {after.worst.name}; {after.worst.reading}"
    trained = copy.deepcopy(model)
    accuracy = train_station(trained, inputs, kinds)
    with torch.no_grad():
        alone = run(trained, inputs[:1])
        if alone.failure or not torch.allclose(alone.value, trained(inputs)[:1], rtol=1e-3, atol=1e-3):
            return "what it says of a call depends on the other calls in the batch, in evaluation mode too"
    if accuracy < _GOOD_ACCURACY:
        return (
            f"the monitors find nothing, but it hardly learns: {accuracy:.0%} right after 160 steps, where a healthy "
            f"one has over {_GOOD_ACCURACY:.0%}. Are the weights still too small or too large for the activation?"
        )
    return ""


def _same_layers(before: nn.Module, after: nn.Module, _: Tensor) -> str:
    old, new = leaves(before), leaves(after)
    if [type(module) for module in old] != [type(module) for module in new]:
        gone, came = ([type(module).__name__ for module in modules] for modules in (old, new))
        other = [name for name in came if name not in gone]
        if other:
            return f"{other[0]} is new in this network: the layers are to stay what they were"
        return f"it has {len(new)} layers and activations instead of {len(old)}: the layers are to stay what they were"
    shapes = [[tuple(parameter.shape) for parameter in model.parameters()] for model in (before, after)]
    if shapes[0] != shapes[1]:
        return "the shape of a weight or bias changed: the layers are to keep their widths and their biases"
    return ""


def _same_weights(old: Sequence[nn.Linear], new: Sequence[nn.Linear]) -> str:
    same = len(old) == len(new) and all(torch.equal(a.weight, b.weight) for a, b in zip(old, new, strict=True))
    return "" if same else "a weight matrix changed: months of listening are in them, and they are to stay as they are"


def _before_and_after(before: Diagnosis, after: Diagnosis) -> Callable[[], tuple[Figure, str]]:
    def draw() -> tuple[Figure, str]:
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.0), sharey=True)
        before.plot(ax=axes[0]).set(title="sick")
        after.plot(ax=axes[1]).set(title="cured")
        alt = (
            f"The gradient that reaches each layer, on a log scale. Left, sick: {before.summary} Right: {after.summary}"
        )
        return figure, alt

    return draw


def _unusable(student: Any, exercise: str) -> Verdict | None:
    if not_attempted(student):
        return Verdict(exercise, "todo", "not attempted yet")
    if not callable(student) or isinstance(student, nn.Module):
        what = f"a {type(student).__name__}"
        return Verdict(exercise, "wrong", f"the check takes the function itself, without calling it; it got {what}")
    return None


def _shuffled(items: Sequence[tuple[str, str]], seed: int) -> list[tuple[str, str]]:
    return [items[place] for place in torch.randperm(len(items), generator=make_generator(seed)).tolist()]
