"""Clustering as an estimator of scikit-learn: fit, fit_predict and predict, for pipelines and whatever takes such."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from fastcomus.backends.choose import select
from fastcomus.clusters.assignment import assign_embeddings
from fastcomus.clusters.checks import check_count
from fastcomus.clusters.cluster import Clustered, cluster_embeddings
from fastcomus.clusters.labels import build_clusters
from fastcomus.clusters.sample_size import choose_sample_size
from fastcomus.clusters.sampled import cluster_sample
from fastcomus.config import AssignConfig, ClusterConfig, Config
from fastcomus.settings import with_settings
from fastcomus.store.embeddings import check_embeddings
from fastcomus.store.row_blocks import ArrayRows

_MOST_SEED = 2**31 - 1


class SpectralClusterer(ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """Cluster rows as `fastcomus.cluster` does: graph, eigenmaps, labels, filter (steps 4 to 7 of the method).

    Its parameters but for three are the fields of `config.ClusterConfig`, with their defaults. New rows are labelled by
    their neighbours among those of `fit` (Nystroem's extension).

    Args:
        n_clusters: Number of clusters; 0 or "auto" estimates it, 1 puts all rows into one without looking at them.
        choose_k: See `ClusterConfig`, as for all that are not explained here.
        max_k: See `ClusterConfig`.
        method: See `ClusterConfig`.
        metric: See `ClusterConfig`.
        n_neighbors: See `ClusterConfig`.
        recall: See `ClusterConfig`.
        n_components: See `ClusterConfig`.
        assign: See `ClusterConfig`.
        n_init: See `ClusterConfig`.
        fit_on: See `ClusterConfig`.
        filter: See `ClusterConfig`.
        random_state: Seed of everything random; a generator of NumPy's that gives one; or None: another one for each
            `fit`, from NumPy's global generator.
        device: auto, cpu, cuda or cuda:N.

    Attributes:
        labels_: (N,) int32, the clusters of the rows of `fit`, numbered from 0 in descending order of size.
        n_clusters_: Number of clusters.
        clusters_: The `Clusters`: labels, cosine distances to the centres, core members, centres and sizes.
        n_features_in_: Numbers in a row.
        feature_names_in_: Their names, where `fit` got a data frame whose columns are named by texts.
    """

    def __init__(
        self,
        n_clusters: int | str = ClusterConfig.k,
        *,
        choose_k: str = ClusterConfig.choose_k,
        max_k: int = ClusterConfig.max_k,
        method: str = ClusterConfig.method,
        metric: str = ClusterConfig.metric,
        n_neighbors: int = ClusterConfig.n_neighbors,
        recall: float = ClusterConfig.recall,
        n_components: int = ClusterConfig.n_components,
        assign: str = ClusterConfig.assign,
        n_init: int = ClusterConfig.n_init,
        fit_on: int | str = ClusterConfig.fit_on,
        filter: float = ClusterConfig.filter,
        random_state: Any = Config.seed,
        device: str = "auto",
    ) -> None:
        self.n_clusters = n_clusters
        self.choose_k = choose_k
        self.max_k = max_k
        self.method = method
        self.metric = metric
        self.n_neighbors = n_neighbors
        self.recall = recall
        self.n_components = n_components
        self.assign = assign
        self.n_init = n_init
        self.fit_on = fit_on
        self.filter = filter
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any = None) -> SpectralClusterer:  # noqa: N803 - scikit-learn's name
        """Cluster rows.

        Args:
            X: (N, D) finite numbers, N at least 2.
            y: Not used; pipelines pass it.

        Returns:
            This estimator.

        Raises:
            ValueError: If the rows or a parameter cannot be used; an `InputError` where the library says it.
        """
        rows = check_embeddings(validate_data(self, X, dtype=np.float32, ensure_min_samples=2, order="C"))
        config, backend = self._read_config(), select(self.device)
        self._seed = self._draw_seed()
        sample = choose_sample_size(config, len(rows))
        if self.n_clusters == 1:
            found = Clustered(build_clusters(rows, np.zeros(len(rows), np.int32), 1, config.filter))
        elif sample < len(rows):
            found = cluster_sample(ArrayRows(rows), sample, config, self._seed, backend)
        else:
            check_count(config, rows)
            found = cluster_embeddings(rows, config, self._seed, backend)
        fitted = np.flatnonzero(found.clusters.is_fitted)
        self._rows, self._fitted = rows[fitted], found.clusters.take(fitted)
        self._maps = found.maps and replace(found.maps, placed=found.maps.rows)
        self._neighbors = config.n_neighbors if found.graph is None else found.graph.n_neighbors
        self.clusters_ = found.clusters
        self.labels_ = found.clusters.labels
        self.n_clusters_ = len(found.clusters.sizes)
        return self

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803 - scikit-learn's name
        """Put rows into the clusters that `fit` found, each by its neighbours among the rows of `fit`.

        Rows of `fit` itself do not count as new: nearly all, but not all of them come into their own cluster.

        Args:
            X: (M, D) finite numbers.

        Returns:
            Labels (M,) int32.

        Raises:
            ValueError: If the rows cannot be used; `NotFittedError` before `fit`.
        """
        check_is_fitted(self)
        rows = check_embeddings(validate_data(self, X, dtype=np.float32, reset=False, order="C"))
        if self.n_clusters_ == 1:
            return np.zeros(len(rows), np.int32)
        config = replace(self._read_config(), n_neighbors=self._neighbors)
        backend, outliers = select(self.device), AssignConfig.outliers
        return assign_embeddings(
            rows, self._rows, self._fitted, self._maps, config, outliers, self._seed, backend
        ).labels

    def _read_config(self) -> ClusterConfig:
        """Return the parameters as settings; raise InputError where one cannot be used."""
        k = 0 if self.n_clusters == 1 else self.n_clusters
        given = {one.name: getattr(self, one.name) for one in fields(ClusterConfig) if one.name != "k"}
        return with_settings(Config(), {"cluster": {"k": k, **given}}).cluster

    def _draw_seed(self) -> int:
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(_MOST_SEED))
