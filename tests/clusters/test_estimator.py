"""`SpectralClusterer`: scikit-learn's own checks, pipelines and data frames, parity with `cluster`, new rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import planted
import pytest
from sklearn.base import clone
from sklearn.metrics import adjusted_rand_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from fastcomus import InputError, SpectralClusterer, cluster

# It sets n_components=1 for two clusters, of which qr, a direction for each, makes nothing; see the test below it.
REFUSED = "check_methods_sample_order_invariance"


@pytest.fixture(scope="module")
def blobs() -> tuple[np.ndarray, np.ndarray]:
    return planted.gaussian(600)


def list_checks(estimator: SpectralClusterer) -> list[Any]:
    return [pytest.param(one, check, id=check.func.__name__) for one, check in estimator_checks_generator(estimator)]


@pytest.mark.parametrize(("estimator", "check"), list_checks(SpectralClusterer(2, device="cpu")))
@pytest.mark.filterwarnings("ignore")
def test_checks_of_scikit_learn(estimator: SpectralClusterer, check: Any) -> None:
    if check.func.__name__ == REFUSED:
        with pytest.raises(InputError, match="as many eigenvectors as clusters"):
            check(estimator)
        estimator = estimator.set_params(assign="kmeans")
    check(estimator)


def test_it_clusters_as_the_function_does(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    rows, truth = blobs
    found = cluster(rows, 5, filter=0.3, device="cpu")
    made = SpectralClusterer(5, filter=0.3, device="cpu").fit(rows)
    assert np.array_equal(made.labels_, found.labels) and np.array_equal(made.clusters_.is_core, found.is_core)
    assert adjusted_rand_score(truth, made.labels_) > 0.99
    assert made.n_clusters_ == 5


@pytest.mark.parametrize("settings", [{}, {"method": "kmeans"}, {"metric": "cosine", "assign": "normalized"}], ids=str)
def test_new_rows_go_to_their_clusters(blobs: tuple[np.ndarray, np.ndarray], settings: dict[str, Any]) -> None:
    rows, truth = blobs
    made = SpectralClusterer(5, device="cpu", **settings).fit(rows[:450])
    assert adjusted_rand_score(truth[450:], made.predict(rows[450:])) > 0.99


def test_in_a_pipeline_with_data_frames_and_an_unknown_number(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    rows, truth = blobs
    frame = pd.DataFrame(rows, columns=[f"c{i}" for i in range(rows.shape[1])])
    pipeline = make_pipeline(StandardScaler(), SpectralClusterer(device="cpu")).set_output(transform="pandas")
    labels = clone(pipeline).fit_predict(frame)
    assert adjusted_rand_score(truth, labels) > 0.99
    made = pipeline.fit(frame)[-1]
    assert list(made.feature_names_in_) == list(frame) and made.n_clusters_ == labels.max() + 1
    assert np.array_equal(pipeline.predict(frame.head(9)), labels[:9])


def test_bad_parameters_are_told(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    for settings, told in (({"n_clusters": 601}, "k=601 with N=600"), ({"metric": "l1"}, "metric must be one of")):
        with pytest.raises(InputError, match=told):
            SpectralClusterer(device="cpu", **settings).fit(blobs[0])


@pytest.mark.parametrize("settings", [{}, {"method": "kmeans"}], ids=str)
def test_a_sample_is_fitted_as_the_function_fits_it(
    blobs: tuple[np.ndarray, np.ndarray], settings: dict[str, Any]
) -> None:
    rows, truth = blobs
    made = SpectralClusterer(5, fit_on=200, device="cpu", **settings).fit(rows)
    found = cluster(rows, 5, fit_on=200, device="cpu", **settings)
    assert np.array_equal(made.labels_, found.labels) and made.clusters_.is_fitted.sum() == 200
    assert adjusted_rand_score(truth, made.predict(rows)) > 0.98
    with pytest.raises(InputError, match="at most the number of objects"):
        SpectralClusterer(5, fit_on=5_000, device="cpu").fit(rows)
