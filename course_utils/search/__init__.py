"""Hyperparameter search on Optuna: spaces, resumable and shared studies, pictures, a comparison of samplers."""

from course_utils.search.importance import importances
from course_utils.search.samplers import SamplerComparison, compare_samplers
from course_utils.search.spaces import Choice, Float, Int, default_space
from course_utils.search.tuning import TuningResult, tune

__all__ = [
    "Choice",
    "Float",
    "Int",
    "SamplerComparison",
    "TuningResult",
    "compare_samplers",
    "default_space",
    "importances",
    "tune",
]
