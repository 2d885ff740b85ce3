"""Fuzzy sets as pure functions: t-norms and t-conorms, membership functions, entropy, and fuzzy masks.

A fuzzy set gives each pixel a membership in [0, 1] where a crisp set gives 0 or 1. Everything here is `keras.ops` without
state, differentiable, and works elementwise on tensors that broadcast; only `fuzzify_mask`, the exact transform for data
pipelines, is NumPy and SciPy.
"""

from dermaseg.fuzzy.masks import fuzzify_mask, soften_mask
from dermaseg.fuzzy.memberships import (
    bell_membership,
    fuzzy_entropy,
    gaussian_membership,
    sigmoid_membership,
    trapezoid_membership,
    triangular_membership,
)
from dermaseg.fuzzy.t_norms import (
    T_NORMS,
    frank_t_norm,
    godel_t_norm,
    hamacher_t_norm,
    lukasiewicz_t_norm,
    product_t_norm,
    t_conorm,
    t_norm,
)

__all__ = [
    "T_NORMS",
    "bell_membership",
    "frank_t_norm",
    "fuzzify_mask",
    "fuzzy_entropy",
    "gaussian_membership",
    "godel_t_norm",
    "hamacher_t_norm",
    "lukasiewicz_t_norm",
    "product_t_norm",
    "sigmoid_membership",
    "soften_mask",
    "t_conorm",
    "t_norm",
    "trapezoid_membership",
    "triangular_membership",
]
