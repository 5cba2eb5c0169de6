"""The GPU backend, driven whole on the CPU: kernels built by g++, and stand-ins where a library needs a GPU.

A stand-in has the library's signature (`tests/gpu_api` looks at the calls) and computes the same by a CPU library; what
only a GPU can show is in docs/gpu.md.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest
import sklearn.cluster
import sklearn.manifold
import torch
from conftest import TINY, Photographs, tree_bytes
from cuda_on_cpu.cpu_kernels import CpuKernels
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from seen_images import assert_same_objects, seen_images
from skimage import data
from sklearn.metrics import adjusted_rand_score

from fastcomus.backends import choose, gpu, gpu_neighbors, torch_eigenvectors
from fastcomus.backends.block_krylov import find_largest_eigenpairs
from fastcomus.backends.centred_rows import CentredRows
from fastcomus.backends.device_graph import put_graph
from fastcomus.backends.eigenpair_check import EigenpairError, refine_eigenpairs
from fastcomus.backends.gpu import GpuBackend
from fastcomus.backends.interface import LabelledMasks
from fastcomus.backends.machine import has_gpu_driver
from fastcomus.backends.operations import list_operations
from fastcomus.clusters.cluster import cluster_embeddings
from fastcomus.clusters.eigenmaps import compute_eigenmaps
from fastcomus.clusters.graph import build_knn_graph, drop_loops
from fastcomus.errors import InputError
from fastcomus.objects.saliency.network_map import SaliencyNetwork, save_network
from fastcomus.run.run import Run
from fastcomus.settings import get_preset_config

HOST = torch.device("cpu")
CPU = choose.select("cpu")
MANY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def on_cpu(kernels: CpuKernels) -> GpuBackend:
    return GpuBackend(HOST, kernels=kernels)


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> dict[str, list]:
    """Stand-ins for FAISS GPU and cuML; what they were asked for."""
    asked: dict[str, list] = {"lists": [], "spectral_embedding": [], "KMeans": []}

    class Resources:
        pass

    def index_cpu_to_gpu(provider, device, index):  # type: ignore[no-untyped-def]
        assert isinstance(provider, Resources) and device == 0
        asked["lists"].append(index.nlist)
        return index

    monkeypatch.setattr(faiss, "StandardGpuResources", Resources, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", index_cpu_to_gpu, raising=False)

    def spectral_embedding(  # type: ignore[no-untyped-def]
        A,  # noqa: N803
        *,
        n_components=8,
        affinity="nearest_neighbors",
        random_state=None,
        n_neighbors=None,
        norm_laplacian=True,
        drop_first=True,
    ):
        assert affinity == "precomputed" and A.format == "coo" and A.dtype == np.float32 and A.row.dtype == np.int32
        asked["spectral_embedding"].append(A.shape)
        rows = sklearn.manifold.spectral_embedding(
            A.tocsr(),
            n_components=n_components,
            random_state=random_state,
            norm_laplacian=norm_laplacian,
            drop_first=drop_first,
            eigen_solver="arpack",
        )
        return torch.from_numpy(np.asfortranarray(rows, np.float32))

    class KMeans:
        def __init__(
            self,
            *,
            n_clusters=8,
            max_iter=300,
            tol=1e-4,
            verbose=False,
            random_state=None,  # type: ignore[no-untyped-def]
            init="scalable-k-means++",
            n_init="auto",
            oversampling_factor=2.0,
            max_samples_per_batch=32768,
            device_buffer_samples=0,
            init_size=0,
            output_type=None,
        ):
            assert output_type == "numpy"
            asked["KMeans"].append(n_init)
            self.model = sklearn.cluster.KMeans(n_clusters, n_init=n_init, init=init, random_state=random_state)

        def fit(self, X, y=None, sample_weight=None):  # type: ignore[no-untyped-def]  # noqa: N803
            own = np.asarray(X)  # or a tensor on the device
            assert own.dtype == np.float32 and own.flags.c_contiguous
            self.model.fit(own)
            self.labels_, self.cluster_centers_ = self.model.labels_, self.model.cluster_centers_
            return self

    for name, content in (("manifold", {"spectral_embedding": spectral_embedding}), ("cluster", {"KMeans": KMeans})):
        module = ModuleType(f"cuml.{name}")
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, f"cuml.{name}", module)
    monkeypatch.setitem(sys.modules, "cuml", ModuleType("cuml"))
    return asked


# -- pixels -------------------------------------------------------------------------------------------------------


@MANY
@given(seen_images(), st.sampled_from(["otsu", "0.5"]), st.integers(1, 200))
def test_objects_are_those_of_the_cpu_backend(on_cpu: GpuBackend, seen: tuple, theta: str, min_area: int) -> None:
    images, maps = seen
    for given_maps in (maps, [one > 0.4 for one in maps]):
        expected = CPU.find_objects(images, given_maps, theta, min_area, 9)
        assert_same_objects(on_cpu.find_objects(images, given_maps, theta, min_area, 9), expected)
    planar = [torch.from_numpy(one).permute(2, 0, 1).contiguous().permute(1, 2, 0) for one in images]
    as_tensors = [torch.from_numpy(one) for one in maps]
    expected = CPU.find_objects(images, maps, theta, min_area, 9)
    assert_same_objects(on_cpu.find_objects(planar, as_tensors, theta, min_area, 9), expected)


@pytest.mark.parametrize("theta", ["otsu", "0.5"])
def test_objects_of_coarse_maps_are_those_of_the_cpu_backend(on_cpu: GpuBackend, theta: str) -> None:
    """As a network gives them: smooth maps of one size for photographs of several, and masks of patches."""
    pictures = [data.astronaut(), data.coffee(), data.chelsea()[:201]]
    grid = torch.stack(torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij"))
    maps = [(1 - (grid - shift).norm(dim=0)).clamp(0, 1)[None] for shift in (0.1, 0.4, -0.3)]
    maps[1] = torch.cat([maps[1], maps[0]])
    for given_maps in (maps, [one > 0.6 for one in maps]):
        expected = CPU.find_objects(pictures, given_maps, theta, 50, 64)
        assert [len(one.boxes) for one in expected] == [1, 2, 1]
        assert_same_objects(on_cpu.find_objects(pictures, given_maps, theta, 50, 64), expected)
    nothing = [torch.zeros((0, 32, 32), dtype=torch.bool)] * 3
    assert [len(one.boxes) for one in on_cpu.find_objects(pictures, nothing, theta, 50, 64)] == [0, 0, 0]


def test_class_maps_of_many_images_are_those_of_the_cpu_backend(on_cpu: GpuBackend, kernels: CpuKernels) -> None:
    rng = np.random.default_rng(0)
    images = [
        LabelledMasks(list(rng.random((count, *shape)) < 0.3), labels, shape)
        for count, labels, shape in [(5, [7, 0, 65_534, 300, 2], (33, 21)), (0, [], (4, 5)), (2, [1, 0], (8, 90))]
    ]
    kernels.launched.clear()
    found, expected = on_cpu.assemble_masks(images), CPU.assemble_masks(images)
    assert len(found) == 3 and kernels.launched == ["assemble_masks_uint16"]
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == np.uint16 and (one == other).all()
    assert on_cpu.assemble_masks([]) == []


def test_confusion_is_counted_on_the_device(on_cpu: GpuBackend) -> None:
    rng = np.random.default_rng(0)
    predicted, truth = rng.integers(0, 300, (40, 50), np.uint16), rng.integers(0, 256, (40, 50), np.uint8)
    assert (on_cpu.count_confusion(predicted, truth, 300) == CPU.count_confusion(predicted, truth, 300)).all()


# -- neighbours ---------------------------------------------------------------------------------------------------


def test_many_rows_go_through_inverted_lists_to_the_recall_asked_for(
    kernels: CpuKernels, libraries: dict[str, list], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_neighbors, "_ROWS_PER_LIST", 100)
    rows = np.random.default_rng(0).normal(0, 1, (3000, 12)).astype(np.float32)
    backend = GpuBackend(HOST, kernels=kernels, all_pairs_rows=1000)
    found = backend.find_neighbors(rows, 10, 0.9, 0)
    exact = CPU.find_neighbors(rows, 10, 1.0, 0)
    hits = [len(set(a) & set(b)) for a, b in zip(found.indices.tolist(), exact.indices.tolist(), strict=True)]
    assert found.recall >= 0.9 and abs(np.mean(hits) / 10 - found.recall) < 0.04
    assert (found.indices[:, 0] == np.arange(3000)).all()
    assert libraries["lists"] == [30]


def test_places_left_empty_are_no_neighbours() -> None:
    rows = CentredRows(np.arange(20, dtype=np.float32)[:, None] ** 2)
    found, farthest = np.array([[0, 1, -1, -1], [9, 8, 10, -1]]), np.array([1e9, 1e9], np.float32)
    assert gpu_neighbors.measure_search_recall(rows, np.array([0, 9]), found, farthest) == 3 / 6


@pytest.fixture
def cagra(monkeypatch: pytest.MonkeyPatch) -> dict[str, list]:
    """A stand-in for cuVS's CAGRA, exact but for what its width is too small for; what it was asked for."""
    asked: dict[str, list] = {"build": [], "search": []}

    class IndexParams:
        def __init__(self, *, metric="sqeuclidean", intermediate_graph_degree=128, graph_degree=64, **_):  # type: ignore[no-untyped-def]
            self.metric = metric

    class SearchParams:
        def __init__(self, *, max_queries=0, itopk_size=64, **_):  # type: ignore[no-untyped-def]
            self.itopk_size = itopk_size

    class OnDevice:
        def __init__(self, values: np.ndarray) -> None:
            self.values = values

        def copy_to_host(self) -> np.ndarray:
            return self.values

    def build(index_params, dataset, resources=None):  # type: ignore[no-untyped-def]
        assert index_params.metric == "sqeuclidean" and dataset.dtype == torch.float32
        asked["build"].append(tuple(dataset.shape))
        return dataset.numpy()

    def search(search_params, index, queries, k, neighbors=None, distances=None, resources=None, filter=None):  # type: ignore[no-untyped-def]
        assert search_params.itopk_size >= k
        asked["search"].append((len(queries), search_params.itopk_size))
        near, found = faiss.knn(queries.numpy(), index, k)
        if search_params.itopk_size < 256:
            found[:, k // 2 :] = 2**32 - 1
        return OnDevice(near), OnDevice(found.astype(np.uint32))

    module = ModuleType("cuvs.neighbors.cagra")
    vars(module).update(IndexParams=IndexParams, SearchParams=SearchParams, build=build, search=search)
    neighbors = ModuleType("cuvs.neighbors")
    vars(neighbors)["cagra"] = module
    exceptions = ModuleType("cuvs.common.exceptions")
    vars(exceptions)["CuvsException"] = type("CuvsException", (Exception,), {})
    for one in (ModuleType("cuvs"), ModuleType("cuvs.common"), exceptions, neighbors, module):
        monkeypatch.setitem(sys.modules, one.__name__, one)
    return asked


def test_many_rows_go_through_cagra_where_cuvs_is_installed(
    kernels: CpuKernels, libraries: dict[str, list], cagra: dict[str, list]
) -> None:
    rows = np.random.default_rng(0).normal(4, 1, (3000, 12)).astype(np.float32)
    found = GpuBackend(HOST, kernels=kernels, all_pairs_rows=1000).find_neighbors(rows, 10, 0.9, 0)
    exact = CPU.find_neighbors(rows, 10, 1.0, 0)
    assert found.recall == 1 and found.indices.dtype == np.int32 and (found.indices[:, 0] == np.arange(3000)).all()
    assert (np.sort(found.indices) == np.sort(exact.indices)).mean() > 0.999
    assert cagra["build"] == [(3000, 12)]
    assert cagra["search"] == [(300, 64), (300, 128), (300, 256), (3000, 256)]  # wider until the recall is reached


@pytest.mark.parametrize("failure", ["raises", "falls short"])
def test_inverted_lists_stand_behind_cagra(
    kernels: CpuKernels,
    libraries: dict[str, list],
    cagra: dict[str, list],
    failure: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def bad(index_params, dataset, resources=None):  # type: ignore[no-untyped-def]
        raise sys.modules["cuvs.common.exceptions"].CuvsException("cluttered")

    if failure == "raises":
        monkeypatch.setattr(sys.modules["cuvs.neighbors.cagra"], "build", bad)
    else:
        monkeypatch.setattr(gpu_neighbors, "_CAGRA_WIDTHS", (64, 128))
    rows = np.random.default_rng(0).normal(0, 1, (3000, 12)).astype(np.float32)
    with caplog.at_level(logging.WARNING, "fastcomus"):
        found = GpuBackend(HOST, kernels=kernels, all_pairs_rows=1000).find_neighbors(rows, 10, 0.9, 0)
    assert "cuvs is not used for neighbours by cuvs" in caplog.text and found.recall >= 0.9
    assert ("cluttered" in caplog.text) == (failure == "raises") and libraries["lists"]


@pytest.mark.parametrize("most", [1, 2_048])
def test_torch_compares_all_pairs_where_the_lists_fail(
    most: int,
    kernels: CpuKernels,
    libraries: dict[str, list],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Too few lists that may be searched, or an error of FAISS: both are told once."""
    monkeypatch.setattr(gpu_neighbors, "_ROWS_PER_LIST", 10)
    if most > 1:
        monkeypatch.setattr(faiss, "StandardGpuResources", lambda: faiss.read_index("nowhere"))
    else:
        monkeypatch.setattr(gpu_neighbors, "_MOST_FOUND", 10)
    rows = np.random.default_rng(0).normal(0, 1, (1500, 24)).astype(np.float32)
    backend = GpuBackend(HOST, kernels=kernels, all_pairs_rows=1000)
    for _ in range(2):
        found = backend.find_neighbors(rows, 10, 0.95, 0)
        assert found.recall >= 0.999
    assert caplog.text.count("faiss is not used for neighbours by faiss") == 1


# -- eigenvectors and clusters ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def graph() -> Any:
    """A connected part's W and D^-1/2 W D^-1/2."""
    rng = np.random.default_rng(0)
    rows = (rng.normal(0, 1, (1200, 8)) + rng.normal(0, 2.0, (6, 8))[np.arange(1200) % 6]).astype(np.float32)
    affinity = drop_loops(build_knn_graph(rows, 15, "euclidean", 1.0, 0, CPU).affinity)
    scale = 1 / np.sqrt(affinity.sum(axis=1))
    return affinity, (affinity * scale[:, None] * scale[None, :]).tocsr(), scale


def as_operator(matrix: Any) -> torch.Tensor:
    return put_graph(matrix, HOST).build_operator(torch.float64)


def test_right_eigenvectors_pass_the_check_in_any_basis(graph: Any) -> None:
    _, matrix, _ = graph
    values, vectors = np.linalg.eigh(matrix.toarray())
    mixed = vectors[:, -6:] @ np.random.default_rng(0).normal(size=(6, 6))
    found_values, there = refine_eigenpairs(as_operator(matrix), torch.from_numpy(mixed).float(), 0)
    found = there.numpy()
    assert np.allclose(found_values, values[::-1][:6], atol=1e-5) and found.dtype == np.float32
    assert np.abs(found.T @ found - np.eye(6)).max() < 1e-5
    assert np.linalg.norm(matrix @ found - found * found_values, axis=0).max() < 1e-4


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda v: np.where(v == v[5, -1], np.nan, v)[:, -6:], "not finite"),
        (lambda v: v[:, [-1, -2, -3, -3, -4, -5]], "depend on one another"),
        (lambda v: np.random.default_rng(0).normal(size=(len(v), 6)), "a residual of"),
        (lambda v: v[:, -7:-1], "instead of 1"),
        (lambda v: v[:, [-1, -2, -3, -5, -6, -7]], "left out, above the last one"),
    ],
)
def test_wrong_eigenvectors_are_refused(graph: Any, spoil: Any, reason: str) -> None:
    _, matrix, _ = graph
    vectors = spoil(np.linalg.eigh(matrix.toarray())[1])
    with pytest.raises(EigenpairError, match=reason):
        refine_eigenpairs(as_operator(matrix), torch.from_numpy(np.ascontiguousarray(vectors)).float(), 0)


@pytest.fixture
def block_solver(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let graphs of 1,200 rows go to the block solver, which claims the residual that is put into the list."""
    claimed: list[float] = []

    def solve(*arguments: Any) -> Any:
        found = find_largest_eigenpairs(*arguments)
        return replace(found, residual=claimed[0]) if claimed else found

    monkeypatch.setattr(torch_eigenvectors, "find_largest_eigenpairs", solve)
    monkeypatch.setattr(torch_eigenvectors, "SMALL_GRAPH_ROWS", 100)
    return claimed


def test_cumls_eigenvectors_stand_behind_the_block_solver(
    on_cpu: GpuBackend, libraries: dict[str, list], graph: Any, block_solver: list[float]
) -> None:
    affinity = graph[0]
    expected = compute_eigenmaps(affinity, 6, 0, CPU)
    for residual in (None, 1e-2):
        block_solver[:] = [residual] if residual else []
        found = compute_eigenmaps(affinity, 6, 0, on_cpu)
        assert libraries["spectral_embedding"] == ([(1200, 1200)] if residual else [])
        assert np.allclose(found.eigenvalues, expected.eigenvalues, atol=1e-5)
        assert planted_subspace_distance(found.rows, expected.rows) < 1e-3


def planted_subspace_distance(one: np.ndarray, other: np.ndarray) -> float:
    """The sine of the largest angle between the spans of columns."""
    a, b = np.linalg.qr(one.astype(float))[0], np.linalg.qr(other.astype(float))[0]
    return float(np.linalg.norm(a - b @ (b.T @ a), 2))


@pytest.mark.parametrize("failure", ["raises", "is wrong"])
def test_bad_eigenvectors_of_cuml_are_refused(
    on_cpu: GpuBackend,
    libraries: dict[str, list],
    graph: Any,
    failure: str,
    block_solver: list[float],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def bad(A, *, n_components=8, **_):  # type: ignore[no-untyped-def]  # noqa: N803
        if failure == "raises":
            raise RuntimeError("lanczos did not converge")
        return torch.ones((A.shape[0], n_components))

    monkeypatch.setattr(sys.modules["cuml.manifold"], "spectral_embedding", bad)
    block_solver[:] = [1e-2]
    with caplog.at_level(logging.WARNING, "fastcomus"):
        found = compute_eigenmaps(graph[0], 6, 0, on_cpu)
    assert "cuml is not used for eigenvectors" in caplog.text
    assert np.allclose(found.eigenvalues, compute_eigenmaps(graph[0], 6, 0, CPU).eigenvalues, atol=1e-4)


def test_kmeans_by_cuml_is_checked(
    on_cpu: GpuBackend, libraries: dict[str, list], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    truth = np.arange(300) % 3
    rows = (rng.normal(0, 0.1, (300, 2)) + np.array([[0, 0], [3, 0], [0, 3]])[truth]).astype(np.float32)
    labels, centres = on_cpu.run_kmeans(rows, 3, 10, 0)
    assert adjusted_rand_score(labels, truth) == 1 and labels.dtype == np.int32 and centres.dtype == np.float32
    again, _ = on_cpu.run_kmeans(rows, 3, 10, 0, centres)
    assert (again == labels).all() and libraries["KMeans"] == [10, 1]

    def in_one_cluster(self, X, y=None, sample_weight=None):  # type: ignore[no-untyped-def]  # noqa: N803
        self.labels_, self.cluster_centers_ = np.zeros(len(X), int), X[:3]
        return self

    monkeypatch.setattr(sys.modules["cuml.cluster"].KMeans, "fit", in_one_cluster)
    with caplog.at_level(logging.WARNING, "fastcomus"):
        labels, _ = on_cpu.run_kmeans(rows, 3, 10, 0)
    assert "cuml is not used for k-means" in caplog.text and "1 clusters instead of 3" in caplog.text
    assert adjusted_rand_score(labels, truth) == 1


def test_a_clustering_on_the_device_is_that_of_the_cpu(
    on_cpu: GpuBackend, libraries: dict[str, list], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_eigenvectors, "SMALL_GRAPH_ROWS", 100)
    rng = np.random.default_rng(0)
    rows = (rng.normal(0, 1, (900, 8)) + rng.normal(0, 3, (5, 8))[np.arange(900) % 5]).astype(np.float32)
    config = get_preset_config("voc").cluster
    config = type(config)(**{**vars(config), "k": 5})
    found = cluster_embeddings(rows, config, 0, on_cpu).clusters
    expected = cluster_embeddings(rows, config, 0, CPU).clusters
    assert adjusted_rand_score(found.labels, expected.labels) > 0.99
    assert libraries["KMeans"]


def test_a_run_on_the_device_finds_what_one_on_the_cpu_finds(
    on_cpu: GpuBackend, libraries: dict[str, list], few: Photographs, tmp_path: Path, kernels: CpuKernels
) -> None:
    kernels.launched.clear()
    runs = []
    for name in ("cpu", "device"):
        run = Run(
            tmp_path / name, preset="offline", device="cpu", settings={**TINY, "cluster": {"k": 3, "assign": "kmeans"}}
        )
        if name == "device":
            run.workplace.backend = on_cpu
        run.embed(few.images)
        runs.append((run, run.cluster()))
    (by_cpu, clusters_by_cpu), (by_device, clusters_by_device) = runs
    one, other = by_cpu.objects(), by_device.objects()
    found = [name for name in one.column_names if name not in ("embedding", "score")]
    assert one.select(found).equals(other.select(found)) and one.num_rows >= 12
    assert np.allclose(one["score"], other["score"], atol=1e-6)
    embeddings = [np.stack(table["embedding"].to_pylist()) for table in (one, other)]
    cosines = (embeddings[0] * embeddings[1]).sum(axis=1)
    assert cosines.min() > 0.99, cosines  # crops may differ by 1 of 255, which counts at 32 px
    assert adjusted_rand_score(clusters_by_cpu.labels, clusters_by_device.labels) == 1
    launched = {"crop_resize_uint8", "histograms", "otsu_thresholds", "threshold_maps", "assemble_masks_uint16"}
    launched |= {"count_changes", "write_changes"}
    # A launch for every shard of 8 images.
    assert kernels.launched.count("crop_resize_uint8") == kernels.launched.count("assemble_masks_uint16") == 2
    assert set(kernels.launched) == launched and libraries["KMeans"]
    for mask in sorted((tmp_path / "cpu/iteration-0/masks").iterdir()):
        on_device = np.array(Image.open(tmp_path / "device/iteration-0/masks" / mask.name))
        assert ((np.array(Image.open(mask)) > 0) == (on_device > 0)).all()


def photographs_as_files(folder: Path) -> Path:
    """Six colour JPEG files, a grey one, a PNG, and a file that is no image."""
    folder.mkdir()
    pictures = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    for number, picture in enumerate([*pictures, pictures[0][::-1], pictures[1][:, ::-1]]):
        Image.fromarray(picture).resize((150 + number, 120)).save(folder / f"{number}.jpg", quality=90)
    Image.fromarray(pictures[2]).resize((90, 70)).convert("L").save(folder / "grey.jpg")
    Image.fromarray(pictures[3]).resize((90, 70)).save(folder / "other.png")
    (folder / "broken.jpg").write_bytes(b"no image")
    return folder


def saliency_network(folder: Path) -> str:
    torch.manual_seed(0)
    file = folder / "own.safetensors"
    save_network(SaliencyNetwork("efficientnet-lite0", 97), ["background-prior"], "", file)
    return str(file)


@pytest.mark.parametrize("saliency", ["tokencut", "maskcut", "own"])
def test_a_network_on_the_device_finds_what_one_on_the_cpu_finds(
    saliency: str, on_cpu: GpuBackend, tmp_path: Path, kernels: CpuKernels, caplog: pytest.LogCaptureFixture
) -> None:
    """From JPEG files of several kinds, decoded where the network is."""
    images = photographs_as_files(tmp_path / "images")
    if saliency == "own":
        saliency = saliency_network(tmp_path)
    settings = {"saliency": saliency, "saliency_size": 96, "prior_weight": 0.0, "saliency_precision": "float32"}
    runs = [Run(tmp_path / name, preset="offline", device="cpu", settings=TINY) for name in ("cpu", "device")]
    runs[1].workplace.backend = on_cpu
    kernels.launched.clear()
    with caplog.at_level(logging.INFO, "fastcomus"):
        for run in runs:
            run.embed(images, **settings)
    assert "embed: images decoded: 6 cpu, 1 grey, 1 no JPEG" in caplog.text
    assert kernels.launched.count("enlarge_maps") == kernels.launched.count("crop_resize_uint8") == 2
    one, other = (run.objects() for run in runs)
    found = [name for name in one.column_names if name not in ("embedding", "score")]
    assert one.select(found).equals(other.select(found)) and one.num_rows >= 6
    assert np.allclose(one["score"], other["score"], atol=1e-6)
    left_out = [pq.read_table(run.folder.resolve_file("objects/skipped.parquet")) for run in runs]
    assert left_out[0].equals(left_out[1]) and left_out[0].num_rows >= 1


def test_a_trained_network_on_the_device_labels_as_one_on_the_cpu_does(
    on_cpu: GpuBackend, finished_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = photographs_as_files(tmp_path / "images")
    for name in ("cpu", "device"):
        run = Run(finished_run, device="cpu")
        if name == "device":
            run.workplace.backend = on_cpu
        with caplog.at_level(logging.INFO, "fastcomus"):
            run.predict(images, tmp_path / name)
    assert "predict: images decoded: 6 cpu, 1 grey, 1 no JPEG" in caplog.text
    assert caplog.text.count("images decoded") == 1
    one, other = (tree_bytes(tmp_path / name) for name in ("cpu", "device"))
    assert one == other and len(one) == 9


# -- the choice of a backend --------------------------------------------------------------------------------------


def test_cuda_takes_the_gpu_backend_whatever_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "has_gpu_driver", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90a", "compute_90"])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "GeForce 1080")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    for device, expected, sharing in (("cuda", "cuda:1", 1), ("cuda:0", "cuda:0", 0), ("auto", "cuda:1", 1)):
        backend = choose.select(device)
        assert isinstance(backend, GpuBackend) and backend.device == torch.device(expected)
        assert len(backend.sharing) == sharing
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    with pytest.raises(InputError, match=r"GeForce 1080 \(sm_61\) is too old .* begins at sm_75"):
        choose.select("cuda")


def test_torch_sees_no_gpu_without_a_driver() -> None:
    assert has_gpu_driver() or not torch.cuda.is_available()


def test_torch_alone_does_every_operation(monkeypatch: pytest.MonkeyPatch, few: Photographs, tmp_path: Path) -> None:
    """A run without any of the libraries, nor FAISS for CPUs, finds the same."""
    monkeypatch.setattr(gpu, "is_installed", lambda library: False)
    backend = GpuBackend(HOST)
    runs = []
    for name in ("cpu", "device"):
        run = Run(tmp_path / name, preset="offline", device="cpu", settings={**TINY, "cluster": {"k": 3}})
        if name == "device":
            run.workplace.backend = backend
            monkeypatch.setitem(sys.modules, "faiss", None)
        run.embed(few.images)
        runs.append((run, run.cluster()))
    (by_cpu, clusters_by_cpu), (by_device, clusters_by_device) = runs
    one, other = by_cpu.objects(), by_device.objects()
    found = [name for name in one.column_names if name not in ("embedding", "score")]
    assert one.select(found).equals(other.select(found)) and one.num_rows >= 12
    assert adjusted_rand_score(clusters_by_cpu.labels, clusters_by_device.labels) == 1
    assert not backend.refused


def test_doctor_says_what_each_library_would_do() -> None:
    def describe(*installed: str) -> dict[str, str]:
        return {one.name: one.by for one in list_operations(True, lambda library: library in installed)}

    alone = describe()
    assert all("torch" in by for name, by in alone.items() if not name.startswith("QR"))
    for library, operation, by in (
        ("cupy", "masks, boxes, run lengths, crops", "CuPy"),
        ("cuml", "k-means", "cuML"),
        ("faiss", "neighbours, beyond a million rows", "FAISS"),
        ("cuvs", "neighbours, beyond a million rows", "cuVS"),
    ):
        assert by in describe(library)[operation] and by not in alone[operation]


def test_libraries_are_found_without_importing_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not gpu.is_installed("faiss")  # this one is for CPUs
    monkeypatch.delitem(sys.modules, "faiss")
    assert not gpu.is_installed("faiss") and not gpu.is_installed("cuvs")
    monkeypatch.setattr("importlib.metadata.packages_distributions", lambda: {"faiss": ["faiss-gpu"]})
    assert gpu.is_installed("faiss") and "faiss" not in sys.modules


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_real_thing_on_a_device() -> None:
    backend = choose.select("cuda")
    assert isinstance(backend, GpuBackend)
    pictures = [data.astronaut(), data.coffee()]
    maps = [np.random.default_rng(0).random((3, *one.shape[:2]), np.float32) for one in pictures]
    found = backend.find_objects(pictures, maps, "otsu", 1, 224)
    assert all(one.crops.is_cuda for one in found)
    on_host = [replace(one, crops=one.crops.cpu()) for one in found]
    assert_same_objects(on_host, CPU.find_objects(pictures, maps, "otsu", 1, 224))
    masks = [LabelledMasks(list(own > 0.5), [4, 1, 300], own.shape[1:]) for own in maps]
    for one, other in zip(backend.assemble_masks(masks), CPU.assemble_masks(masks), strict=True):
        assert (one == other).all()
    rng = np.random.default_rng(0)
    rows = (rng.normal(0, 1, (12_000, 32)) + rng.normal(0, 2, (8, 32))[np.arange(12_000) % 8]).astype(np.float32)
    config = get_preset_config("voc").cluster
    config = type(config)(**{**vars(config), "k": 8})
    on_device, on_host = (cluster_embeddings(rows, config, 0, one).clusters.labels for one in (backend, CPU))
    assert adjusted_rand_score(on_device, on_host) > 0.98


@pytest.mark.gpu
@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_embed_from_files_to_embeddings_on_a_device(
    compile: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """nvJPEG's pixels are not quite libjpeg-turbo's, so masks and embeddings are alike, not equal."""
    images = photographs_as_files(tmp_path / "images")
    settings = {"saliency": saliency_network(tmp_path), "prior_weight": 0.0, "saliency_precision": "float32"}
    runs = [Run(tmp_path / name, preset="offline", device=name, settings=TINY) for name in ("cpu", "cuda")]
    with caplog.at_level(logging.INFO, "fastcomus"):
        runs[0].embed(images, **settings)
        runs[1].embed(images, **settings, compile=compile)
    assert "embed: images decoded: 6 cuda:0, 1 grey, 1 no JPEG" in caplog.text
    one, other = (run.objects() for run in runs)
    assert one["image"].equals(other["image"]) and one.num_rows >= 6
    assert np.allclose(one["area"], other["area"], rtol=0.05)
    embeddings = [np.stack(table["embedding"].to_pylist()) for table in (one, other)]
    assert (embeddings[0] * embeddings[1]).sum(axis=1).min() > 0.9
