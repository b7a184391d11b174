"""Kolmogorov-Arnold networks.

Import from here; the modules inside build on each other from left to right: ``bsplines`` ←
``layer`` ← ``network`` ← what one does with a network ← ``model``.
"""

from course_utils.kan.bsplines import b_spline_basis, b_spline_derivative
from course_utils.kan.layer import KANLayer
from course_utils.kan.model import KAN

__all__ = ["KAN", "KANLayer", "b_spline_basis", "b_spline_derivative"]
