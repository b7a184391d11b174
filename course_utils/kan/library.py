"""Named functions for the edges of a network, and their fit to samples of an edge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from course_utils._validation import check_non_negative, check_one_of

__all__ = ["FUNCTIONS", "Function", "SymbolicEdge", "fit_function"]

# The first look goes over a and b between these ends, on as many values each, with inputs of mean 0 and deviation 1.
_REACH = 10.0
_N_VALUES = 41
_N_SHIFTS = 801
_N_SCAN_POINTS = 60
_N_POINTS = 400
_N_STARTS = 3
_N_STEPS = 30


@dataclass(frozen=True)
class Function:
    """A function f that an edge x ↦ c·f(a·x + b) + d may take; the search adds the four constants.

    Everything that takes a ``library=`` takes a list of these, in place of or besides those of `FUNCTIONS`::

        sinc = Function("sinc", torch.special.sinc, slope_of_sinc, lambda z: sympy.sinc(sympy.pi * z), complexity=4)
        auto_symbolic(model, x, y, library=[*FUNCTIONS.values(), sinc])

    To load a saved model that has such edges, put it into the dict first: ``FUNCTIONS["sinc"] = sinc``.

    Attributes:
        name: short, unique in its library.
        value: f, elementwise from a tensor to one of the same shape; torch differentiates through it.
        derivative: f′, elementwise.
        expression: from a sympy expression z to f(z), the same f to the last digit.
        complexity: at least 0; of functions that fit equally well the smallest is taken. The built-in ones count
            the constants that change the curve (x² has three of the four, since a can go into c), then the taste.
        pole: whether f is unbounded around 0: constants that put 0 within the data's range are then out.
        shape: which of a and b change the curve in a way that c and d cannot: ``"ab"``, or ``"b"`` if f(s·z) is
            always a multiple of f(z), or f(z) plus a number; ``"a"`` if f(z + s) is; ``""``. The others are left out of
            the search.

    Raises:
        TypeError, ValueError: the name is no text or empty, the complexity is negative, or the shape none of these.
    """

    name: str
    value: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]
    expression: Callable[[Any], Any]
    complexity: float
    pole: bool = False
    shape: str = "ab"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"name must be text, got {self.name!r}")
        if not self.name:
            raise ValueError("name must not be empty")
        check_non_negative(self.complexity, "complexity")
        check_one_of(self.shape, "shape", ("ab", "a", "b", ""))


def load_sympy() -> Any:
    """Return the module sympy, which takes a while to import and comes with torch."""
    import sympy

    return sympy


def _sqrt_slope(z: Tensor) -> Tensor:
    return z.sign() / (2 * z.abs().sqrt())


def _leading(z: Any) -> tuple[Any, Any]:
    """Split z into its largest number and the rest: 0.5·x² + 2·y into 2 and 0.25·x² + y."""
    numbers = [term.as_coeff_Mul()[0] for term in z.as_ordered_terms()]
    number = max(numbers, key=abs)
    return (number, z / number) if number != 0 else (number, z)


def _power(exponent: int) -> Callable[[Any], Any]:
    def expression(z: Any) -> Any:
        number, rest = _leading(z)
        return number**exponent * rest**exponent

    return expression


def _absolute_expression(z: Any) -> Any:
    number, rest = _leading(z)
    return abs(number) * load_sympy().Abs(rest)


def _sqrt_expression(z: Any) -> Any:
    sympy = load_sympy()
    number, rest = _leading(z)
    return sympy.sqrt(abs(number)) * sympy.sqrt(sympy.Abs(rest))


def _exp_expression(z: Any) -> Any:
    return load_sympy().exp(z)  # which takes the exp of numbers out of it by itself


def _log_expression(z: Any) -> Any:
    sympy = load_sympy()
    number, rest = _leading(z)
    return sympy.log(sympy.Abs(z)) if number == 0 else sympy.log(abs(number)) + sympy.log(sympy.Abs(rest))


def _sin_expression(z: Any) -> Any:
    """Return sin z with the half turns taken out of the phase."""
    sympy = load_sympy()
    number, rest = z.as_coeff_Add()
    turns = int((number / sympy.pi.n(17)).round())
    return (-1) ** turns * sympy.sin(rest + (number - turns * sympy.pi).n(17)) if turns else sympy.sin(z)


def _tanh_expression(z: Any) -> Any:
    return load_sympy().tanh(z)


def _gaussian_expression(z: Any) -> Any:
    return load_sympy().exp(-(z**2))


# In this order they are tried; to add one for good, put it in.
FUNCTIONS: dict[str, Function] = {
    function.name: function
    for function in (
        # A product, so that the edge stays in the graph of derivatives.
        Function("0", lambda z: 0 * z, torch.zeros_like, lambda z: 0 * z, 0, shape=""),
        Function("x", lambda z: z, torch.ones_like, lambda z: z, 1, shape=""),
        Function("x^2", torch.square, lambda z: 2 * z, _power(2), 2, shape="b"),
        Function("exp", torch.exp, torch.exp, _exp_expression, 2, shape="a"),
        Function("x^3", lambda z: z**3, lambda z: 3 * z**2, _power(3), 3, shape="b"),
        Function("1/x", torch.reciprocal, lambda z: -(z**-2), _power(-1), 3, pole=True, shape="b"),
        Function("sqrt", lambda z: z.abs().sqrt(), _sqrt_slope, _sqrt_expression, 3, shape="b"),
        Function("log", lambda z: z.abs().log(), torch.reciprocal, _log_expression, 3, pole=True, shape="b"),
        Function("abs", torch.abs, torch.sign, _absolute_expression, 3, shape="b"),
        Function("sin", torch.sin, torch.cos, _sin_expression, 3),
        Function("x^4", lambda z: z**4, lambda z: 4 * z**3, _power(4), 4, shape="b"),
        Function("tanh", torch.tanh, lambda z: 1 - torch.tanh(z) ** 2, _tanh_expression, 4),
        Function("gaussian", lambda z: (-z * z).exp(), lambda z: -2 * z * (-z * z).exp(), _gaussian_expression, 4),
    )
}


class SymbolicEdge(nn.Module):
    """An edge with a known function: x ↦ c·f(a·x + b) + d. Input and output have any one shape.

    Args:
        function: a name in `FUNCTIONS`, or a `Function` of your own.
        affine: a, b, c, d, finite.
        dtype: of the constants; by default torch's.

    Attributes:
        affine: parameter (4,), the constants a, b, c, d.

    Raises:
        ValueError: there is no function of that name, or the constants are not four finite numbers.

    Example:
        >>> SymbolicEdge("x^2", (1.0, 0.0, 3.0, 1.0))(torch.tensor([2.0]))
        tensor([13.], grad_fn=<AddBackward0>)
    """

    def __init__(
        self,
        function: str | Function,
        affine: Sequence[float] | Tensor = (1.0, 0.0, 1.0, 0.0),
        *,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self._own: Function | None = None
        if isinstance(function, str):
            self.name = str(check_one_of(function, "name", FUNCTIONS))
        else:
            self.name = function.name
            # Of a built-in function the name is enough, and lambdas cannot be sent to other processes.
            self._own = None if FUNCTIONS.get(function.name) is function else function
        constants = torch.as_tensor(affine, dtype=torch.get_default_dtype() if dtype is None else dtype)
        if constants.shape != (4,) or not bool(constants.isfinite().all()):
            raise ValueError(f"affine must be four finite numbers a, b, c, d, got {affine}")
        self.affine = nn.Parameter(constants.detach().clone())

    @property
    def function(self) -> Function:
        """What is applied between the two affine maps."""
        return FUNCTIONS[self.name] if self._own is None else self._own

    def forward(self, x: Tensor) -> Tensor:
        """Return c·f(a·x + b) + d, elementwise."""
        a, b, c, d = self.affine
        value: Tensor = c * self.function.value(a * x + b) + d
        return value

    def jacobian(self, x: Tensor) -> Tensor:
        """Return the derivatives by a, b, c and d at ``x`` of shape (batch,): (batch, 4), detached."""
        a, b, c, _ = self.affine.detach()
        inner = a * x.detach() + b
        slope = c * self.function.derivative(inner)
        return torch.stack([slope * x.detach(), slope, self.function.value(inner), torch.ones_like(inner)], dim=1)

    def expression(self, variable: Any) -> Any:
        """Return the sympy expression of the edge at ``variable``, with the constants as they are."""
        sympy = load_sympy()
        a, b, c, d = (sympy.Float(value, 17) for value in self.affine.detach().double().tolist())
        return c * self.function.expression(a * variable + b) + d

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        constants = ", ".join(f"{value:.4g}" for value in self.affine.tolist())
        return f"{self.name!r}, affine=({constants})"


def fit_function(function: Function, x: Tensor, y: Tensor) -> tuple[tuple[float, float, float, float], float]:
    """Fit c·f(a·x + b) + d to samples of an edge by least squares.

    For given a and b the best c and d are known in closed form. So a and b alone are searched: at first on a grid of
    41 × 41 (801 values of b, or 41 of a, where the other does not matter) with 60 of the samples, then from its three
    best peaks with damped Gauss-Newton steps on 400 samples. The samples are spread evenly over the ranks of x.

    Args:
        function: f.
        x: (batch,), what came into the edge.
        y: (batch,), what it returned.

    Returns:
        The constants a, b, c, d, and the share R² of the variance of y that is explained: 1 is all of it. Where no
        constants avoid a pole, R² is minus infinity.

    Source: Golub & Pereyra 1973 (variable projection); Kaufman 1975 (the simpler Jacobian).
    """
    order = x.double().cpu().argsort()
    x, y = x.double().cpu()[order], y.double().cpu()[order]
    mean, scale, y_mean, y_scale = x.mean(), x.std(correction=0), y.mean(), y.std(correction=0)
    scale = scale if scale > 0 else torch.ones_like(scale)
    y_scale = y_scale if y_scale > 0 else torch.ones_like(y_scale)
    t, target = (x - mean) / scale, (y - y_mean) / y_scale

    coarse, fine = (torch.linspace(0, len(t) - 1, min(n, len(t))).round().long() for n in (_N_SCAN_POINTS, _N_POINTS))
    starts = _scan(function, t[coarse], target[coarse])
    ab = _refine(function, starts, t[fine], target[fine])
    _, c, d, r2 = _project(function, ab, t[fine], target[fine])
    best = int(r2.argmax())
    if not bool(r2[best].isfinite()):
        return (1.0, 0.0, 0.0, float(y_mean)), -float("inf")
    a, b = ab[best, 0] / scale, ab[best, 1] - ab[best, 0] * mean / scale
    affine = (float(a), float(b), float(c[best] * y_scale), float(d[best] * y_scale + y_mean))
    return affine, float(r2[best])


def _project(function: Function, ab: Tensor, t: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return f(a·t + b) minus its mean, (n, batch), the best c and d, and R², (n,) each, for every row of ``ab``."""
    inner = ab[:, :1] * t + ab[:, 1:]
    values = function.value(inner)
    # Numbers whose squares overflow are as bad as infinite ones.
    bad = ~(values.abs().amax(dim=1) < 1e150)
    if function.pole:
        bad |= inner.amin(dim=1) * inner.amax(dim=1) <= 0
    values = torch.where(bad[:, None], 0.0, values)
    mean = values.mean(dim=1)
    centred = values - mean[:, None]
    square = centred.square().sum(dim=1)
    # What is constant but for rounding explains nothing.
    flat = square <= 1e-24 * values.square().sum(dim=1)
    c = torch.where(flat, 0.0, centred @ target / torch.where(flat, 1.0, square))
    d = target.mean() - c * mean
    residual = target - target.mean() - c[:, None] * centred
    total = (target - target.mean()).square().sum()
    r2 = 1 - residual.square().sum(dim=1) / total if total > 0 else torch.ones_like(c)
    return centred, c, d, torch.where(bad, -float("inf"), r2)


def _scan(function: Function, t: Tensor, target: Tensor) -> Tensor:
    """Return the a and b of the best peaks on the grid, at most 3, (n, 2)."""
    axis = torch.linspace(-_REACH, _REACH, _N_VALUES, dtype=t.dtype)
    one, zero = torch.ones(1, dtype=t.dtype), torch.zeros(1, dtype=t.dtype)
    # Where only b/a matters, poles and kinks near the data need a closer look than those far away.
    shifts = torch.linspace(-5, 5, _N_SHIFTS, dtype=t.dtype).sinh()
    a = axis if "a" in function.shape else one
    b = zero if "b" not in function.shape else axis if "a" in function.shape else shifts
    ab = torch.cartesian_prod(a, b)
    r2 = _project(function, ab, t, target)[3].reshape(1, 1, len(a), len(b))
    # Three neighbours would lead to one and the same optimum.
    peaks = torch.where(r2 >= nn.functional.max_pool2d(r2, 3, stride=1, padding=1), r2, -float("inf")).flatten()
    return ab[peaks.topk(min(_N_STARTS, len(ab))).indices]


def _refine(function: Function, ab: Tensor, t: Tensor, target: Tensor) -> Tensor:
    """Improve each row of ``ab`` by Levenberg-Marquardt steps on the residual that the best c and d leave."""
    damping = torch.full((len(ab),), 1e-3, dtype=t.dtype)
    centred, c, _, r2 = _project(function, ab, t, target)
    free = torch.tensor([name in function.shape for name in "ab"], dtype=t.dtype)
    identity = torch.eye(2, dtype=t.dtype)
    settled = torch.zeros(len(ab), dtype=torch.bool)
    for _ in range(_N_STEPS if function.shape else 0):
        residual = target - target.mean() - c[:, None] * centred
        slope = c[:, None] * function.derivative(ab[:, :1] * t + ab[:, 1:]).nan_to_num(0.0, 0.0, 0.0)
        jacobian = torch.stack([slope * t, slope], dim=2) * free
        jacobian = jacobian - jacobian.mean(dim=1, keepdim=True)
        unit = (centred / centred.norm(dim=1, keepdim=True).clamp(min=1e-300))[:, :, None]
        jacobian = jacobian - unit @ (unit.mT @ jacobian)  # what c can do as well
        gram = jacobian.mT @ jacobian
        size = gram.diagonal(dim1=1, dim2=2).sum(dim=1)
        ridge = (damping * size + 1e-300)[:, None, None] * identity
        step = torch.linalg.solve(gram + ridge, jacobian.mT @ residual[:, :, None])[:, :, 0]
        moved = ab + step.nan_to_num(0.0, 0.0, 0.0)
        new = _project(function, moved, t, target)
        better = new[3] > r2
        gain = torch.where(better, new[3] - r2, 0.0).nan_to_num(0.0, 0.0, 0.0)
        damping = torch.where(better, damping / 10, damping * 10).clamp(1e-12, 1e12)
        ab = torch.where(better[:, None], moved, ab)
        centred, c, r2 = (
            torch.where(better[:, None], new[0], centred),
            torch.where(better, new[1], c),
            torch.where(better, new[3], r2),
        )
        settled |= (better & (gain < 1e-13)) | (damping >= 1e6)
        if bool(settled.all()) or bool((r2 > 1 - 1e-15).any()):
            break
    return ab
