"""Watch gradients, activations and weights through hooks, and judge each layer of a network."""

from course_utils.monitoring.diagnosis import Diagnosis, LayerVerdict, diagnose
from course_utils.monitoring.monitors import (
    ActivationMonitor,
    GradientMonitor,
    WeightMonitor,
    dead_fraction,
    saturated_fraction,
)
from course_utils.monitoring.nonfinite import NonFinite, find_nonfinite

__all__ = [
    "ActivationMonitor",
    "Diagnosis",
    "GradientMonitor",
    "LayerVerdict",
    "NonFinite",
    "WeightMonitor",
    "dead_fraction",
    "diagnose",
    "find_nonfinite",
    "saturated_fraction",
]
