"""Networks for tables: MLP, ResNet, FT-Transformer, many MLPs in one model; the encoding of numeric columns.

Every model maps one floating-point tensor, (batch, n_numeric + n_categorical), the numeric columns first, then
categories as integer codes from 0, to its output, so that `training.fit` feeds them all alike.
"""

from course_utils.tabular._inputs import PiecewiseLinearEncoding, compute_bins
from course_utils.tabular.networks import EnsembleLinear, EnsembleMLP, TabularMLP, TabularResNet
from course_utils.tabular.transformer import FeatureTokenizer, FTTransformer, MultiheadSelfAttention

__all__ = [
    "EnsembleLinear",
    "EnsembleMLP",
    "FTTransformer",
    "FeatureTokenizer",
    "MultiheadSelfAttention",
    "PiecewiseLinearEncoding",
    "TabularMLP",
    "TabularResNet",
    "compute_bins",
]
