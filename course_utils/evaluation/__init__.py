"""Judge models: cross-validation, intervals and paired tests, deep ensembles, calibration, `compare_models`.

Import from here; the modules inside build on each other from left to right: ``statistics, ranks`` ←
``validation, execution, results`` ← ``comparison``.
"""

from course_utils.evaluation.comparison import Comparison, compare_models
from course_utils.evaluation.ranks import (
    CriticalDifference,
    FriedmanResult,
    critical_difference,
    friedman_test,
    plot_critical_difference,
)
from course_utils.evaluation.statistics import (
    BootstrapInterval,
    TestResult,
    bootstrap_ci,
    corrected_resampled_ttest,
    holm,
)
from course_utils.evaluation.validation import (
    CrossValidation,
    DeepEnsemble,
    cross_validate,
    expected_calibration_error,
)

__all__ = [
    "BootstrapInterval",
    "Comparison",
    "CriticalDifference",
    "CrossValidation",
    "DeepEnsemble",
    "FriedmanResult",
    "TestResult",
    "bootstrap_ci",
    "compare_models",
    "corrected_resampled_ttest",
    "critical_difference",
    "cross_validate",
    "expected_calibration_error",
    "friedman_test",
    "holm",
    "plot_critical_difference",
]
