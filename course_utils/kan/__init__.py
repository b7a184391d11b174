"""Kolmogorov-Arnold networks.

Import from here. The modules build on each other: ``bsplines`` and ``library`` (functions with a name) ← ``layer`` ←
``network`` ← ``grid``, ``levenberg_marquardt``, ``pruning``, ``formula`` ← ``fitting``, ``plots`` ← ``symbolic`` ←
``discovery`` ← ``model``, whose `KAN` has all of it as methods.
"""

from course_utils.kan.bsplines import b_spline_basis, b_spline_derivative
from course_utils.kan.fitting import KANHistory
from course_utils.kan.grid import GridReport
from course_utils.kan.layer import KANLayer
from course_utils.kan.library import FUNCTIONS, Function, SymbolicEdge
from course_utils.kan.model import KAN
from course_utils.kan.plots import explore_spline
from course_utils.kan.pruning import PruneReport
from course_utils.kan.symbolic import Suggestion, SymbolicReport

__all__ = [
    "FUNCTIONS",
    "KAN",
    "Function",
    "GridReport",
    "KANHistory",
    "KANLayer",
    "PruneReport",
    "Suggestion",
    "SymbolicEdge",
    "SymbolicReport",
    "b_spline_basis",
    "b_spline_derivative",
    "explore_spline",
]
