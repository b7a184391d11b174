"""scikit-learn estimators that train the course's networks on tables, one class an architecture.

Import from here; the modules inside build on each other from left to right: ``_data, _members`` ← ``_base`` ←
``kan, networks``.
"""

from course_utils.estimators.kan import KANClassifier, KANRegressor
from course_utils.estimators.networks import (
    FTTransformerClassifier,
    FTTransformerRegressor,
    MLPClassifier,
    MLPEnsembleClassifier,
    MLPEnsembleRegressor,
    MLPRegressor,
    TabularResNetClassifier,
    TabularResNetRegressor,
)

__all__ = [
    "FTTransformerClassifier",
    "FTTransformerRegressor",
    "KANClassifier",
    "KANRegressor",
    "MLPClassifier",
    "MLPEnsembleClassifier",
    "MLPEnsembleRegressor",
    "MLPRegressor",
    "TabularResNetClassifier",
    "TabularResNetRegressor",
]
