"""The checks of homework 4 accept what is right, and name the mistake in what is not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from scipy import stats

from course_utils.homework import Verdict, hw4
from course_utils.homework.engine.proving import Proof, checks_of, complaints

pytestmark = pytest.mark.slow  # the checks train networks

# ------------------------------------------------------------------------------------------------------- Nesterov


def nesterov(theta: Any, g: Any, state: Any, *, lr: Any, momentum: Any) -> Any:
    state["b"] = momentum * state.get("b", torch.zeros_like(g)) + g
    return theta - lr * (g + momentum * state["b"])


def nesterov_by_velocity(theta: Any, g: Any, state: Any, *, lr: Any, momentum: Any) -> Any:
    """Sutskever's form, with lr inside: equal while lr is."""
    if "velocity" not in state:
        state["velocity"] = torch.zeros_like(theta)
    state["velocity"].mul_(momentum).sub_(g, alpha=lr)
    return theta + momentum * state["velocity"] - lr * g


def twisted_nesterov(line: str) -> Any:
    """A student's step with this as the update."""
    program = f"""
memory = {{}}
def step(theta, g, state, *, lr, momentum):
    b_old = state.get("b", 0.0)
    b = state["b"] = momentum * b_old + g
    {line}
"""
    space: dict[str, Any] = {"torch": torch}
    exec(program, space)
    return space["step"]


NESTEROV = Proof(
    [nesterov, nesterov_by_velocity],
    [
        (twisted_nesterov("return theta - lr * b"), "plain momentum"),
        (twisted_nesterov("return theta - lr * g"), "values differ"),
        (twisted_nesterov("return theta - lr * (g + b)"), "once too often"),
        (twisted_nesterov("return theta - lr * (g + momentum * b_old)"), "plain momentum"),
        (twisted_nesterov("state['b'] = g + momentum * b; return theta - lr * state['b']"), "this step alone"),
        (twisted_nesterov("return theta + lr * (g + momentum * b)"), "sign"),
        (twisted_nesterov("return theta - (g + momentum * b)"), "does not depend on `lr`"),
        (twisted_nesterov("return lr * (g + momentum * b)"), "returns the step"),
        (twisted_nesterov("state.clear(); return theta - lr * (g + momentum * g)"), "nothing is remembered"),
        (
            twisted_nesterov(
                "b = state['b'] = momentum * b_old + (1 - momentum) * g; return theta - lr * (g + momentum * b)"
            ),
            "you dampen it",
        ),
        (
            twisted_nesterov(
                "b = state['b'] = momentum * b_old + (1 - momentum) * g if torch.is_tensor(b_old) else g; "
                "return theta - lr * (g + momentum * b)"
            ),
            "after its first step",
        ),
        (
            twisted_nesterov(
                "b = memory['b'] = momentum * memory.get('b', 0.0) + g; return theta - lr * (g + momentum * b)"
            ),
            "share one buffer",
        ),
        (twisted_nesterov("theta -= lr * (g + momentum * b); return theta"), "`theta` in place"),
        (twisted_nesterov("g += momentum * b; return theta - lr * g"), "`gradient` in place"),
        (twisted_nesterov("theta - lr * (g + momentum * b)"), "None"),
        (twisted_nesterov("return (theta - lr * (g + momentum * b)).float()"), "float32"),
        (twisted_nesterov("return theta - lr * (g + momentum * state['buffer'])"), "KeyError"),
    ],
)

# ----------------------------------------------------------------------------------------------------------- Adam

ADAM = """
shared = {{}}
def step(theta, g, state, *, lr, betas, eps):
    b1, b2 = betas
    t = state["t"] = state.get("t", 0) + 1
    m = state["m"] = b1 * state.get("m", 0.0) + (1 - b1) * g
    v = state["v"] = b2 * state.get("v", 0.0) + (1 - b2) * g**2
    m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
    return theta - lr * m_hat / (v_hat.sqrt() + eps)
"""


def twisted_adam(old: str = "", new: str = "") -> Any:
    """A student's step with one line or term replaced."""
    text = ADAM.replace("{{}}", "{}")
    assert old in text
    space: dict[str, Any] = {"torch": torch}
    exec(text.replace(old, new) if old else text, space)
    return space["step"]


def adam_in_one_factor(theta: Any, gradient: Any, state: Any, lr: Any, betas: Any, eps: Any) -> Any:
    """As the paper suggests for speed: one step size, and eps scaled with it."""
    state.setdefault("moments", [torch.zeros_like(theta), torch.zeros_like(theta), 0])
    m, v, t = state["moments"]
    t += 1
    m = torch.lerp(m, gradient, 1 - betas[0])
    v = torch.lerp(v, gradient * gradient, 1 - betas[1])
    state["moments"] = [m, v, t]
    root = math.sqrt(1 - betas[1] ** t)
    return theta - lr * root / (1 - betas[0] ** t) * m / (torch.sqrt(v) + eps * root)


ADAM_PROOF = Proof(
    [twisted_adam(), adam_in_one_factor],
    [
        (twisted_adam("m / (1 - b1**t), v / (1 - b2**t)", "m, v"), "neither mean is corrected"),
        (twisted_adam("v / (1 - b2**t)", "v"), "mean of the squares is not corrected"),
        (twisted_adam("m / (1 - b1**t)", "m"), "mean of the gradients is not corrected"),
        (twisted_adam("(v_hat.sqrt() + eps)", "(v_hat + eps).sqrt()"), "ε stands under the root"),
        (twisted_adam(" + eps)", ")"), "no ε"),
        (twisted_adam("v_hat.sqrt()", "v_hat"), "square root is missing"),
        (twisted_adam('state.get("t", 0) + 1', 'state.get("t", -1) + 1'), "t starts at 0"),
        (twisted_adam('state.get("t", 0) + 1', 'state.get("t", 1) + 1'), "t runs ahead"),
        (twisted_adam('t = state["t"]', "t"), "t stays at 1"),
        (twisted_adam("b1, b2 = betas", "b2, b1 = betas"), "swapped"),
        (twisted_adam("g**2", "g.abs()"), "second mean is one of |g|"),
        (twisted_adam("(1 - b2) * g**2", "g**2"), "added up whole"),
        (twisted_adam("m_hat, v_hat =", 'm_hat, v_hat = state["m"], state["v"] ='), "store the corrected"),
        (twisted_adam("theta - lr", "theta + lr"), "climbs"),
        (twisted_adam("lr * m_hat", "m_hat"), "`lr`"),
        (twisted_adam("    b1, b2", "    state = shared; b1, b2"), "share one state"),
        (twisted_adam("return ", ""), "return"),
        (
            twisted_adam(
                "    b1, b2", "    theta *= 0.5; theta *= 2; theta += lr; theta -= 2 * lr; theta += lr; b1, b2"
            ),
            "`theta` in place",
        ),
    ],
)

# ---------------------------------------------------------------------------------------------------------- AdamW

ADAMW = """
class AdamW:
    def __init__(self, params, lr, betas, eps, weight_decay):
        self.params = list(params)
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self.state = [(torch.zeros_like(p), torch.zeros_like(p)) for p in self.params]
        self.t = 0

    def zero_grad(self):
        for p in self.params:
            p.grad = None

    @torch.no_grad()
    def step(self):
        self.t += 1
        b1, b2 = self.betas
        for p, (m, v) in zip(self.params, self.state):
            if p.grad is None:
                continue
            g = p.grad
            p.mul_(1 - self.lr * self.weight_decay)
            m.mul_(b1).add_(g, alpha=1 - b1)
            v.mul_(b2).add_(g**2, alpha=1 - b2)
            t = self.t
            p.sub_(self.lr * (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + self.eps))
"""


def twisted_adamw(old: str = "", new: str = "") -> Any:
    """A student's class with one line or term replaced."""
    assert old in ADAMW
    space: dict[str, Any] = {"torch": torch}
    exec(ADAMW.replace(old, new) if old else ADAMW, space)
    return space["AdamW"]


class AdamWByDictionary:
    """State by parameter, data in place of no_grad, decay from the old weights."""

    def __init__(self, params: Any, lr: Any, betas: Any, eps: Any, weight_decay: Any) -> None:
        self.params, self.state = tuple(params), {}  # type: ignore[var-annotated]
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay

    def zero_grad(self) -> None:
        for p in self.params:
            if p.grad is not None:
                p.grad.zero_()

    def step(self) -> None:
        for p in self.params:
            if p.grad is not None:
                t, m, v = self.state.get(p, (0, 0, 0))
                t, m = t + 1, self.betas[0] * m + (1 - self.betas[0]) * p.grad
                v = self.betas[1] * v + (1 - self.betas[1]) * p.grad**2
                self.state[p] = t, m, v
                step = m / (1 - self.betas[0] ** t) / (torch.sqrt(v / (1 - self.betas[1] ** t)) + self.eps)
                p.data = p.data - self.lr * (step + self.weight_decay * p.data)


def from_text(text: str) -> Any:
    space: dict[str, Any] = {"torch": torch}
    exec(text, space)
    return space["AdamW"]


def fixed_lr() -> Any:
    return from_text(ADAMW.replace("self.lr", "self.rate"))


def late_decay() -> Any:
    return from_text(ADAMW.replace(DECAY, "") + DECAY)


def one_state() -> Any:
    """With one t for each parameter's turn, as a shared dictionary has it."""
    text = ADAMW.replace("for p, (m, v) in zip(self.params, self.state)", "for p in self.params")
    return from_text(
        text.replace("g = p.grad", "g = p.grad; m, v = self.state[0]; self.n = getattr(self, 'n', 0) + 1").replace(
            "t = self.t\n", "t = self.n\n"
        )
    )


DECAY = "            p.mul_(1 - self.lr * self.weight_decay)\n"
ADAMW_PROOF = Proof(
    [twisted_adamw(), AdamWByDictionary],
    [
        (twisted_adamw(DECAY, "            g = g + self.weight_decay * p\n"), "through the gradient"),
        (twisted_adamw(DECAY, ""), "do not decay"),
        (twisted_adamw("self.lr * self.weight_decay", "self.weight_decay"), "not multiplied by `lr`"),
        (twisted_adamw("1 - self.lr * self.weight_decay", "1 + self.lr * self.weight_decay"), "grow"),
        (twisted_adamw("            t = self.t\n", "            self.t += 1; t = self.t\n"), "counts parameters"),
        (twisted_adamw("            p.grad = None", "            pass"), "add up"),
        (
            twisted_adamw("((v / (1 - b2**t)).sqrt() + self.eps)", "(v / (1 - b2**t) + self.eps).sqrt()"),
            "under the root",
        ),
        (twisted_adamw("(m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt()", "m / (v.sqrt()"), "neither mean is corrected"),
        (
            twisted_adamw(
                "                continue\n            g = p.grad",
                "                p.grad = torch.zeros_like(p)\n            g = p.grad",
            ),
            "without gradient moves",
        ),
        (twisted_adamw(DECAY, "            p = p * (1 - self.lr * self.weight_decay)\n"), "never move"),
        (fixed_lr(), "later change of `self.lr`"),
        (late_decay(), "decay after the step"),
        (one_state(), "share one state"),
        (twisted_adamw("            p.sub_(", "            self.params[0].sub_("), "values differ"),
        (twisted_adamw("    @torch.no_grad()\n", ""), "leaf Variable"),
        (twisted_adamw("list(params)", "params"), "never move"),
        (twisted_adamw("            if p.grad is None:\n                continue\n", ""), "NoneType"),
        (twisted_adamw(", weight_decay):", "):"), "weight_decay"),
    ],
)

# ------------------------------------------------------------------------------------------------------- schedule


def schedule(step: int, *, n_steps: int, warmup: int, start: float, final: float) -> float:
    if step < warmup:
        return start + (1 - start) * step / warmup
    progress = min((step - warmup) / (n_steps - warmup), 1.0)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


def schedule_by_interpolation(step: Any, n_steps: Any, warmup: Any, start: Any, final: Any) -> Any:
    if step >= warmup:
        angle = np.interp(step, [warmup, n_steps], [0, np.pi])
        return np.cos(angle / 2) ** 2 * (1 - final) + final
    return np.interp(step, [0, warmup], [start, 1])


def twisted_schedule(
    rise: str = "start + (1 - start) * step / warmup", fall: str = "final + (1 - final) * half", **names: str
) -> Any:
    """A student's schedule with the named expressions replaced."""
    progress = names.get("progress", "min((step - warmup) / (n_steps - warmup), 1)")
    half = names.get("half", "0.5 * (1 + math.cos(math.pi * progress))")
    test = names.get("test", "step < warmup")
    program = f"""
def schedule(step, *, n_steps, warmup, start, final):
    if {test}:
        return {rise}
    progress = {progress}
    half = {half}
    return {fall}
"""
    space: dict[str, Any] = {"math": math, "np": np, "torch": torch}
    exec(program, space)
    return space["schedule"]


SCHEDULE = Proof(
    [schedule, schedule_by_interpolation],
    [
        (twisted_schedule(half="0.5 * (1 + math.cos(progress))"), "lacks π"),
        (twisted_schedule(half="0.5 * (1 + math.cos(2 * math.pi * progress))"), "not half a wave"),
        (twisted_schedule(half="0.5 * (1 + math.cos(math.pi * progress / 2))"), "not half a wave"),
        (twisted_schedule(half="0.5 * (1 - math.cos(math.pi * progress))"), "upside down"),
        (twisted_schedule(half="1 - progress"), "straight line"),
        (twisted_schedule(progress="min((step - warmup) / n_steps, 1)"), "yours is longer"),
        (twisted_schedule(progress="min(step / (n_steps - warmup), 1)"), "ran during the warm-up"),
        (twisted_schedule(progress="(step - warmup) / (n_steps - warmup)"), "rises again"),
        (twisted_schedule(test="False", progress="min(max(step - warmup, 0) / (n_steps - warmup), 1)"), "differ"),
        (twisted_schedule(test="False"), "no warm-up"),
        (twisted_schedule(rise="step / warmup"), "begins at 0"),
        (twisted_schedule(rise="start + (1 - start) * (step + 1) / warmup"), "one step ahead"),
        (twisted_schedule(fall="half"), "falls to 0"),
        (twisted_schedule(fall="final + half"), "on top"),
        (twisted_schedule(test="step <= warmup"), "ZeroDivisionError"),
        (twisted_schedule(fall="print(end='')"), "None"),
        (twisted_schedule(half="0.5 * (1 + np.cos(np.pi * np.array([progress])))"), "the shape is"),
    ],
)

# ----------------------------------------------------------------------------------------------------------- race

RACE = """
def race(entrants, seeds, *, make_model, make_batches, loss_fn, val):
    losses = np.empty((len(entrants), len(seeds)))
    for i, make_optimizer in enumerate(entrants.values()):
        for j, seed in enumerate(seeds):
            model = make_model(seed)
            optimizer = make_optimizer(model.parameters())
            for x, y in make_batches(seed):
                optimizer.zero_grad()
                loss = loss_fn(model(x), y)
                loss.backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                losses[i, j] = loss_fn(model(val[0]), val[1])
    return losses
"""


def twisted_race(*swaps: tuple[str, str]) -> Any:
    """A student's race with some pieces replaced."""
    text = RACE
    for old, new in swaps:
        assert old in text
        text = text.replace(old, new)
    space: dict[str, Any] = {"np": np, "torch": torch}
    exec(text, space)
    return space["race"]


def swapped_loops(model: str, batches: str) -> Any:
    """Seeds outside, and what belongs to each entrant made too early."""
    text = f"""
def race(entrants, seeds, *, make_model, make_batches, loss_fn, val):
    losses = np.empty((len(entrants), len(seeds)))
    for j, seed in enumerate(seeds):
        {model or "pass"}
        {batches or "pass"}
        for i, make_optimizer in enumerate(entrants.values()):
            {"pass" if model else "model = make_model(seed)"}
            {"pass" if batches else "batches = make_batches(seed)"}
            model.train()
            optimizer = make_optimizer(model.parameters())
            for x, y in batches:
                optimizer.zero_grad()
                loss_fn(model(x), y).backward()
                optimizer.step()
            model.eval()
            losses[i, j] = loss_fn(model(val[0]), val[1]).item()
    return losses
"""
    space: dict[str, Any] = {"np": np, "torch": torch}
    exec(text, space)
    return space["race"]


def best_on_the_way() -> Any:
    measured = "model.eval(); losses[i, j] = min(losses[i, j], loss_fn(model(val[0]), val[1]).item()); model.train()"
    return twisted_race(
        ("np.empty((len(entrants), len(seeds)))", "np.full((len(entrants), len(seeds)), np.inf)"),
        ("            for x, y", f"            {measured}\n            for x, y"),
        ("                optimizer.step()\n", f"                optimizer.step()\n                {measured}\n"),
        ("            with torch", "            continue\n            with torch"),
    )


def race_by_functions(entrants: Any, seeds: Any, make_model: Any, make_batches: Any, loss_fn: Any, val: Any) -> Any:
    def run(make_optimizer: Any, seed: int) -> float:
        model, batches = make_model(seed), list(make_batches(seed))
        optimizer = make_optimizer(list(model.parameters()))
        for x, y in batches:
            model.train()
            loss = loss_fn(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        model.eval()
        return float(loss_fn(model(val[0]), val[1]).item())

    return np.array([[run(make, seed) for seed in seeds] for make in entrants.values()])


RACE_PROOF = Proof(
    [twisted_race(), race_by_functions],
    [
        (twisted_race(("                optimizer.zero_grad()\n", "")), "zero_grad"),
        (twisted_race(("model = make_model(seed)", "model = make_model(seeds[0])")), "begin with the same weights"),
        (twisted_race(("in make_batches(seed)", "in make_batches(seeds[0])")), "same order"),
        (twisted_race(("in make_batches(seed)", "in make_batches(seed + i)")), "different batches"),
        (twisted_race(("            model.eval()\n", "")), "training mode"),
        (
            twisted_race(
                ("            with torch", "            losses[i, j] = loss.item(); continue\n            with torch")
            ),
            "training loss",
        ),
        (
            twisted_race(
                (
                    "                optimizer.zero_grad()",
                    "                optimizer = make_optimizer(model.parameters()); optimizer.zero_grad()",
                )
            ),
            "anew for each batch",
        ),
        (
            twisted_race(
                ("                optimizer.step()\n", "                optimizer.step()\n                break\n")
            ),
            "only the first batch",
        ),
        (
            twisted_race(
                ("(len(entrants), len(seeds))", "(len(seeds), len(entrants))"), ("losses[i, j]", "losses[j, i]")
            ),
            "transpose",
        ),
        (twisted_race(("return losses", "return losses.mean(axis=1)")), "An axis was lost"),
        (twisted_race(("                optimizer.step()\n", "")), "before the training"),
        (swapped_loops("model = make_model(seed)", ""), "goes on where the last one stopped"),
        (swapped_loops("", "batches = make_batches(seed)"), "uses the batches up"),
        (best_on_the_way(), "best loss on the way"),
    ],
)

# ------------------------------------------------------------------------------------------------------- interval


def interval(a: Any, b: Any, level: float) -> tuple[float, float, float]:
    d = a - b
    half = stats.t.ppf((1 + level) / 2, len(d) - 1) * d.std(ddof=1) / np.sqrt(len(d))
    return d.mean(), d.mean() - half, d.mean() + half


def interval_by_scipy(a: Any, b: Any, level: float) -> Any:
    d = [x - y for x, y in zip(a, b, strict=True)]
    mean = sum(d) / len(d)
    return mean, *stats.t.interval(level, df=len(d) - 1, loc=mean, scale=stats.sem(d))


def twisted_interval(half: str, returns: str = "mean, mean - half, mean + half") -> Callable[..., Any]:
    program = f"""
def interval(a, b, level):
    d, n = a - b, len(a)
    mean = d.mean()
    q = stats.t.ppf((1 + level) / 2, n - 1)
    half = {half}
    return {returns}
"""
    space: dict[str, Any] = {"np": np, "stats": stats}
    exec(program, space)
    chosen: Callable[..., Any] = space["interval"]
    return chosen


RIGHT_HALF = "q * d.std(ddof=1) / np.sqrt(n)"
INTERVAL = Proof(
    [interval, interval_by_scipy],
    [
        (twisted_interval("q * np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / n)"), "pairs are lost"),
        (twisted_interval("q * d.std() / np.sqrt(n)"), "divides by n − 1"),
        (twisted_interval("stats.norm.ppf((1 + level) / 2) * d.std(ddof=1) / np.sqrt(n)"), "normal quantile"),
        (twisted_interval("stats.t.ppf(level, n - 1) * d.std(ddof=1) / np.sqrt(n)"), "two ends"),
        (twisted_interval("d.std(ddof=1) / np.sqrt(n)"), "quantile is missing"),
        (twisted_interval("q * d.std(ddof=1)"), "by √n"),
        (twisted_interval("stats.t.ppf((1 + level) / 2, n) * d.std(ddof=1) / np.sqrt(n)"), "degrees of freedom"),
        (twisted_interval(RIGHT_HALF, "-mean, -mean - half, -mean + half"), "b − a"),
        (twisted_interval(RIGHT_HALF, "mean, half"), "2 values; 3 are expected"),
        (twisted_interval(RIGHT_HALF, "mean, mean + half, mean - half"), "`low`"),
        (twisted_interval(RIGHT_HALF, "None"), "return"),
        (twisted_interval("q * d.var(ddof=1) / np.sqrt(n)"), "`low`"),
        (twisted_interval(RIGHT_HALF, "abs(d).mean(), mean - half, mean + half"), "`mean`"),
    ],
)

PROOFS: dict[Callable[..., Verdict], Proof] = {
    hw4.check_nesterov_step: NESTEROV,
    hw4.check_adam_step: ADAM_PROOF,
    hw4.check_adamw: ADAMW_PROOF,
    hw4.check_warmup_cosine: SCHEDULE,
    hw4.check_race: RACE_PROOF,
    hw4.check_paired_interval: INTERVAL,
}


@pytest.mark.parametrize("check", PROOFS, ids=lambda check: check.__name__)
def test_check_accepts_and_names_each_fault(check: Callable[..., Verdict]) -> None:
    assert complaints(check, PROOFS[check]) == []


def test_every_check_is_proven() -> None:
    assert set(PROOFS) == set(checks_of(hw4))


@pytest.mark.parametrize("check", PROOFS, ids=lambda check: check.__name__)
def test_another_seed_tells_the_same(check: Callable[..., Verdict]) -> None:
    """The hidden tests draw other cases, and must neither refuse what is right nor lose a mistake."""
    proof = PROOFS[check]
    assert all(check(answer, seed=20261121) for answer in proof.right)
    for answer, words in proof.wrong[:3]:
        assert words.lower() in check(answer, seed=7).message.lower()


def test_every_exercise_is_checked() -> None:
    told = [check(...).exercise for check in PROOFS]
    assert told == list(hw4.EXERCISES)


def test_figures_are_drawn_and_described() -> None:
    for verdict in (hw4.check_nesterov_step(nesterov), hw4.check_warmup_cosine(schedule)):
        assert verdict.figure is not None
        figure, alt = verdict.figure()
        assert len(alt) > 40
        plt.close(figure)


def test_stepper_makes_an_optimizer_of_a_step_function() -> None:
    start = torch.tensor([1.0, -2.0])
    ours, theirs, frozen = (torch.nn.Parameter(start.clone()) for _ in range(3))
    stepper = hw4.Stepper(iter([ours, frozen]), nesterov, lr=0.1, momentum=0.9)
    sgd = torch.optim.SGD([theirs], lr=0.1, momentum=0.9, nesterov=True)
    for _ in range(3):
        for parameter, optimizer in ((ours, stepper), (theirs, sgd)):
            optimizer.zero_grad()
            (parameter**2).sum().backward()
            optimizer.step()

    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(frozen.detach(), start)
