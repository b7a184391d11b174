"""scikit-learn estimators that train the course's networks on tables.

Import from here; the modules inside build on each other from left to right: ``_data, _members`` ← ``_base`` ←
``kan, mlp``.
"""

from course_utils.estimators.kan import KANClassifier, KANRegressor
from course_utils.estimators.mlp import MLPClassifier, MLPRegressor

__all__ = ["KANClassifier", "KANRegressor", "MLPClassifier", "MLPRegressor"]
