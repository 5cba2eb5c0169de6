"""Planted embeddings that behave like DINO features: unbalanced, overlapping, anisotropic classes on the unit sphere.

`planted(n, k, separation)` -> embeddings (n, 384) float32 with unit rows, classes (n,) int. The separation below makes
the purity of the 30 nearest neighbours about 0.85, so that clustering is neither trivial nor hopeless.
"""

import numpy as np

SEPARATION = {(1_500, 20): 0.605, (11_000, 20): 0.43, (30_000, 80): 0.495, (118_000, 80): 0.408}


def planted(n, k, separation, seed=0, dim=384):
    rng = np.random.default_rng(seed)
    weights = np.arange(1, k + 1) ** -0.7 * np.exp(0.3 * rng.standard_normal(k))
    classes = rng.choice(k, n, p=weights / weights.sum())
    classes[:k] = np.arange(k)
    spectrum = np.arange(1, dim + 1) ** -0.5
    spectrum = (spectrum / np.linalg.norm(spectrum)).astype(np.float32)
    noise = np.arange(1, dim + 1) ** -0.3
    noise = (0.8 * noise / np.linalg.norm(noise)).astype(np.float32)
    means = (separation * rng.standard_normal((k, dim)) * spectrum).astype(np.float32)
    common = (rng.standard_normal(dim) * spectrum).astype(np.float32)  # DINO features have a large common mean
    rank = 16
    axes = (
        0.3 * rng.standard_normal((k, rank, dim)) * spectrum * (np.arange(1, rank + 1) ** -0.5)[None, :, None]
    ).astype(np.float32)
    embeddings = np.empty((n, dim), np.float32)
    for c in range(k):
        members = np.flatnonzero(classes == c)
        scale = np.exp(0.12 * rng.standard_normal((len(members), 1))).astype(np.float32)
        spread = rng.standard_normal((len(members), dim), dtype=np.float32) * noise
        spread += rng.standard_normal((len(members), rank), dtype=np.float32) @ axes[c]
        embeddings[members] = means[c] + common + scale * spread
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    order = rng.permutation(n)
    return embeddings[order], classes[order]
