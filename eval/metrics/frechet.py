"""The Fréchet distance between two sets of features, without forming a covariance or a matrix square root.

d² = |m1 - m2|² + Tr(S1 + S2 - 2 (S1 S2)^½). With centred features X (n, d), S = XᵀX / (n - 1), and the trace of (S1
S2)^½ is the sum of the singular values of X1 X2ᵀ over √((n1 - 1)(n2 - 1)). That is exact for fewer samples than
dimensions too, where S is singular and matrix square roots go wrong, and two equal sets give 0 to rounding.
"""

from __future__ import annotations

import numpy as np


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Squared Fréchet distance of features (n1, d) and (n2, d), as FID and FVD are defined.

    Raises:
        ValueError: fewer than two samples on one side, different widths, or numbers that are not finite.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"features (n, d) of one width are needed, got {a.shape} and {b.shape}")
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a Fréchet distance needs at least two samples on each side, got {len(a)} and {len(b)}")
    a, b = a.astype(np.float64), b.astype(np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("the features contain numbers that are not finite")
    mean_a, mean_b = a.mean(0), b.mean(0)
    factor_a, factor_b = _factor(a - mean_a), _factor(b - mean_b)
    spread = np.square(factor_a).sum() + np.square(factor_b).sum()
    shared = np.linalg.svd(factor_a @ factor_b.T, compute_uv=False).sum()
    return float(max(np.square(mean_a - mean_b).sum() + spread - 2 * shared, 0.0))


def _factor(centred: np.ndarray) -> np.ndarray:
    """F with FᵀF = the covariance and at most d rows."""
    scaled = centred / np.sqrt(len(centred) - 1)
    return np.asarray(np.linalg.qr(scaled, mode="r")) if len(scaled) > scaled.shape[1] else scaled
