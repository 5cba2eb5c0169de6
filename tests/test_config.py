"""Every setting has an effect; settings are checked, and survive run.json and TOML."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from conftest import ENCODER, SALIENCY, TINY, Photographs, make_photographs, tree_bytes
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from tiny_segmenter import make_segmenter

from fastcomus import InputError, Run, cluster
from fastcomus.backends.choose import select
from fastcomus.clusters.cluster import suggest_counts
from fastcomus.config import STAGES, ClusterConfig, Config
from fastcomus.networks.schedules import choose_epochs
from fastcomus.run.labelling_settings import choose_quality
from fastcomus.segmentation import samples
from fastcomus.segmentation.class_scores import Prediction
from fastcomus.segmentation.prediction import label_images
from fastcomus.settings import (
    PRESETS,
    from_dict,
    get_preset_config,
    parse_scales,
    read_toml,
    resolve,
    to_dict,
    to_toml,
    with_settings,
)
from fastcomus.store.masks import read_class_map
from fastcomus.store.run_folder import RunFolder

# A value for every setting that a run with TINY does not have. None: made by the test.
CHANGES: dict[str, dict[str, Any]] = {
    "saliency": {
        "priors": "minimum-barrier",
        "max_images": 5,
        "least_images": 6,  # with saliency = "auto"
        "refine_backbone": "mobilenetv3_small_050",
        "confident_share": 0.4,
        "refine_epochs": 2,
        "moving_average": 0.9,  # with refine_epochs = 3
        "frozen_stride": 2,
        "common_features": False,
        "network": "mobilenetv3_small_050",
        "epochs": 2,
        "size": 97,
        "train_size": 65,  # with size = 97
        "scale_min": 0.7,
        "scale_max": 0.6,
        "learning_rate": 1e-4,
        "batch_size": 3,
        "precision": "bf16",  # against float32
    },
    "embed": {
        "saliency": "minimum-barrier",
        "every_seconds": None,  # tests/images/test_videos.py
        "saliency_size": 96,  # with saliency = "tokencut"
        "saliency_precision": "bf16",  # the same
        "prior_weight": 0.0,  # with a network of train-saliency
        "map_power": 3.0,  # the same
        "map_edges": False,  # the same
        "objects": "several",
        "masks": None,
        "theta": "0.9",
        "min_area": 2000,
        "encoder": "mobilenetv3_small_050",  # with encoder_weights
        "encoder_weights": None,
        "crop_size": 48,
        "normalize": False,
        "precision": "bf16",
        "embed_batch": 3,
        "compile": True,
        "shard_images": 4,
        "max_pixels": 1000,
    },
    "cluster": {
        "k": 5,
        "choose_k": "eigengap",  # with k = 0
        "max_k": 3,  # with k = 0
        "method": "kmeans",
        "metric": "cosine",
        "n_neighbors": 12,
        "recall": None,  # tests/test_graph.py: the approximate search takes half a minute to compile
        "n_components": 6,
        "assign": "normalized",
        "n_init": 1,
        "fit_on": 100,
        "filter": 0.4,
    },
    "train": {
        "backbone": "mobilenetv3_small_050",  # with backbone_weights
        "backbone_weights": None,
        "output_stride": 8,
        "frozen_stride": 2,
        "iterations": 2,
        "epochs": 2,
        "next_epochs": 2,
        "extend": None,  # a test of its own
        "train_size": 49,
        "start_size": 33,
        "scale_min": 0.7,
        "scale_max": 0.6,
        "learning_rate": 1e-4,
        "schedule": "constant",
        "head_learning_rate": 1e-2,
        "batch_size": 6,
        "images_at_once": 3,
        "precision": "bf16",
        "compile": True,
        "cache_gb": 0.0,
        "weight_average": 0.5,
        "min_confidence": 0.9,  # on the second iteration
        "mask_weight": 0.9,
        "cluster_weight": 0.9,
        "stop_agreement": 0.01,  # no third iteration
    },
    "predict": {
        "predict_size": 97,
        "scales": "0.5, 1",
        "flip": True,
        "follow_edges": False,
        "region_weight": 1.0,
        "least_part": 0.01,
        "predict_batch": 2,
    },
    "assign": {"outliers": 0.5},
    "report": {"map_objects": 8, "shown_images": 4, "gallery_objects": 4, "samples": 2},
}


def test_few_images_are_passed_over_more_often() -> None:
    assert choose_epochs(0, 400, 8, 60) == 3 and choose_epochs(0, 120, 8, 60) == 4
    assert choose_epochs(0, 16, 8, 60) == 30 == choose_epochs(0, 15, 8, 60) == choose_epochs(0, 17, 8, 60)
    assert choose_epochs(0, 3, 8, 25) == 25 and choose_epochs(2, 3, 8, 25) == 2


@pytest.mark.parametrize("stage", STAGES)
def test_a_change_is_tried_for_every_setting(stage: str) -> None:
    assert set(CHANGES[stage]) == {field.name for field in fields(STAGES[stage])}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Photographs:
    return make_photographs(tmp_path_factory.mktemp("small"), 6)


@pytest.fixture(scope="module")
def usual_objects(small: Photographs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return embedded(small, tmp_path_factory.mktemp("usual") / "run", {})


@pytest.fixture(scope="module")
def found_by_own_network(
    small: Photographs, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The setting of a network of train-saliency, and what `embed` makes with it."""
    folder = tmp_path_factory.mktemp("own")
    short = {**SALIENCY, "priors": "background-prior", "refine_epochs": 0, "epochs": 1, "size": 65, "batch_size": 5}
    network = Run(folder / "saliency", preset="offline", device="cpu").train_saliency(small.images, **short)
    return {"saliency": str(network)}, embedded(small, folder / "run", {"saliency": str(network)})


@pytest.mark.parametrize("name", sorted(CHANGES["embed"].keys() - {"every_seconds"}))
def test_every_setting_of_embed_has_an_effect(
    name: str,
    small: Photographs,
    usual_objects: dict[str, Any],
    mobilenet: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    changed = {name: CHANGES["embed"][name]}
    if name == "masks":
        changed[name] = str(small.truth)
    if name == "encoder":
        changed["encoder_weights"] = mobilenet
    if name == "encoder_weights":
        changed[name] = random_checkpoint("test_efficientnet", tmp_path)
    if name in ("prior_weight", "map_power", "map_edges"):
        network, found = request.getfixturevalue("found_by_own_network")
        assert embedded(small, tmp_path / "run", network | changed) != found
        return
    if name in ("saliency_size", "saliency_precision"):
        patches = {"saliency": "tokencut", "saliency_size": 256, "saliency_precision": "float32"}
        before, after = (embedded(small, tmp_path / str(len(c)), {**patches, **c}) for c in ({}, changed))
        assert before != after
        return
    if name == "compile":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "compile", stopped)  # it takes minutes
            with pytest.raises(InterruptedError):
                embedded(small, tmp_path / "run", changed)
        return
    assert embedded(small, tmp_path / "run", changed) != usual_objects


def saliency_network(photographs: Photographs, folder: Path, settings: dict[str, Any]) -> bytes:
    usual = {**SALIENCY, "priors": "background-prior, minimum-barrier", "refine_epochs": 1, "epochs": 1, "size": 33}
    usual |= {"batch_size": 5, "scale_max": 0.8, "precision": "float32", "confident_share": 1.0}
    run = Run(folder, preset="offline", device="cpu")
    return run.train_saliency(photographs.images, **{**usual, **settings}).read_bytes()


@pytest.fixture(scope="module")
def usual_saliency(small: Photographs, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return saliency_network(small, tmp_path_factory.mktemp("usual-saliency"), {})


RESTLESS = {"refine_epochs": 3, "learning_rate": 5e-3}  # maps that differ from epoch to epoch


@pytest.fixture(scope="module")
def restless_saliency(small: Photographs, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return saliency_network(small, tmp_path_factory.mktemp("restless-saliency"), RESTLESS)


@pytest.mark.parametrize("name", CHANGES["saliency"])
def test_every_setting_of_train_saliency_has_an_effect(
    name: str, small: Photographs, usual_saliency: bytes, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    changed = {name: CHANGES["saliency"][name]}
    if changed[name] == "mobilenetv3_small_050":
        with pytest.raises(InputError, match=changed[name]):  # it is asked for its weights, which are not here
            saliency_network(small, tmp_path, changed)
        return
    if name == "least_images":
        short = {
            **TINY["saliency"],
            **SALIENCY,
            "priors": "background-prior",
            "refine_epochs": 0,
            "epochs": 1,
            "size": 65,
            "batch_size": 5,
        }
        settings = {**TINY, "saliency": short | changed}
        auto = Run(tmp_path / "auto", preset="offline", device="cpu", settings=settings)
        auto.embed(small.images)
        assert list(tmp_path.glob("auto/saliency/network-*"))  # by default there is none of so few
        return
    if name in ("moving_average", "refine_epochs"):
        usual_saliency, changed = request.getfixturevalue("restless_saliency"), {**RESTLESS, **changed}
    if name == "train_size":
        usual_saliency, changed = saliency_network(small, tmp_path / "usual", {"size": 97}), {"size": 97, **changed}
    assert saliency_network(small, tmp_path / "changed", changed) != usual_saliency


@pytest.mark.parametrize("name", CHANGES["assign"])
def test_every_setting_of_assign_has_an_effect(name: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.npy"
    np.save(file, np.random.default_rng(0).standard_normal((200, 8)))
    run = Run(tmp_path / "run", preset="offline", settings={"cluster": {"k": 4}})
    run.cluster(file)
    usual = run.assign(embeddings=file).read_bytes()
    assert run.assign(embeddings=file, **{name: CHANGES["assign"][name]}).read_bytes() != usual


@pytest.fixture(scope="module")
def reported(reported_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, bytes]]:
    """The files of a report with some settings, each made once."""
    folder = Path(shutil.copytree(reported_run, tmp_path_factory.mktemp("reported") / "run"))

    @cache
    def write(**settings: Any) -> dict[str, bytes]:
        return tree_bytes(Run(folder).report(**settings).parent)

    return write


@pytest.mark.parametrize("name", CHANGES["report"])
def test_every_setting_of_report_has_an_effect(name: str, reported: Callable[..., dict[str, bytes]]) -> None:
    kinds = {"map_objects": "data/map.js", "shown_images": "data/images-000.js", "samples": "index.html"}
    kind = kinds.get(name, "data/objects.js")
    usual = {"samples": 2} if name == "gallery_objects" else {}  # those on cards always have a picture
    assert reported(**usual)[kind] != reported(**usual, **{name: CHANGES["report"][name]})[kind]


@pytest.mark.parametrize("name", sorted(CHANGES["cluster"].keys() - {"recall"}))
def test_every_setting_of_cluster_has_an_effect(name: str) -> None:
    rows = np.random.default_rng(0).standard_normal((200, 8)).astype(np.float32)
    usual: dict[str, Any] = {"k": 4, "n_neighbors": 6, "n_init": 10}
    if name == "n_init":
        usual["assign"] = "kmeans"
    if name == "choose_k":
        usual["k"] = 0
    if name == "max_k":  # the number found is the same, since the search goes on while it gains
        tried = [suggest_counts(rows, ClusterConfig(max_k=most), 0, select("cpu")).tried for most in (8, 3)]
        assert tried[0] != tried[1]
        return
    before, after = cluster(rows, **usual), cluster(rows, **{**usual, name: CHANGES["cluster"][name]})
    same = [np.array_equal(getattr(before, field.name), getattr(after, field.name)) for field in fields(before)]
    assert not all(same)


@pytest.fixture(scope="module")
def clustered(small: Photographs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is ready to train, two short iterations at most."""
    folder = tmp_path_factory.mktemp("clustered") / "run"
    short = {"iterations": 1, "epochs": 1, "next_epochs": 1, "scale_max": 0.8, "batch_size": 5}
    settings = {**TINY, "cluster": {**TINY["cluster"], "n_neighbors": 4}, "train": {**TINY["train"], **short}}
    run = Run(folder, preset="offline", settings=settings, device="cpu")
    run.embed(small.images)
    run.cluster()
    return folder


@pytest.fixture(scope="module")
def usual_networks(clustered: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, bytes]]:
    """Files of a training of one and of two iterations."""
    folder = tmp_path_factory.mktemp("usual-networks")
    return {
        iterations: trained(clustered, folder / str(iterations), {"iterations": iterations}) for iterations in (1, 2)
    }


def test_setting_extend_has_an_effect(clustered: Path, tmp_path: Path) -> None:
    """On the second iteration; the first is trained long enough to see the objects of the added images."""
    images = make_photographs(tmp_path / "more", 3).images
    settings = {"iterations": 2, "epochs": 6, "next_epochs": 1}
    without = trained(clustered, tmp_path / "without", settings)
    files = trained(tmp_path / "without", tmp_path / "run", {**settings, "extend": str(images)})
    assert files["iteration-1/segmenter.safetensors"] == without["iteration-1/segmenter.safetensors"]
    assert files["iteration-2/segmenter.safetensors"] != without["iteration-2/segmenter.safetensors"]


@pytest.mark.parametrize("name", sorted(CHANGES["train"].keys() - {"extend"}))
def test_every_setting_of_train_has_an_effect(
    name: str, clustered: Path, usual_networks: dict[int, dict[str, bytes]], mobilenet: str, tmp_path: Path
) -> None:
    changed = {name: CHANGES["train"][name]}
    if name == "backbone":
        changed["backbone_weights"] = mobilenet
    if name == "backbone_weights":
        changed[name] = random_checkpoint("test_efficientnet", tmp_path)
    if name == "scale_max":
        changed["scale_min"] = 0.4
    iterations = 2 if name in ("next_epochs", "min_confidence", "mask_weight", "cluster_weight") else 1
    if name == "cache_gb":
        every_epoch = reads(clustered, tmp_path / "run", {"epochs": 2, **changed})
        assert len(every_epoch) == (1 + 2) * len(reads(clustered, tmp_path / "kept", {"epochs": 2}))
        return
    if name == "compile":
        assert compiled(clustered, tmp_path / "run", changed) and not compiled(clustered, tmp_path / "plain", {})
        return
    if name == "stop_agreement":
        iterations = 3
        changed["iterations"] = iterations
    files = trained(clustered, tmp_path / "run", {"iterations": iterations, **changed})
    if name == "stop_agreement":
        assert any(file.startswith("iteration-2/masks") for file in files)
        assert not any(file.startswith("iteration-3") for file in files)
        return
    usual = usual_networks[iterations]
    if name == "iterations":
        assert set(files) > set(usual)
    else:
        weights = f"iteration-{iterations}/segmenter.safetensors"
        assert files[weights] != usual[weights]


@pytest.fixture(scope="module")
def labelled(small: Photographs) -> Callable[..., tuple[set[tuple[str, bytes]], set[int]]]:
    """Class maps with some settings, and the sizes of the batches; each made once."""
    segmenter = make_segmenter(3)  # many labels in every image

    @cache
    def label(**settings: Any) -> tuple[set[tuple[str, bytes]], set[int]]:
        config = with_settings(get_preset_config("offline"), {**TINY, "predict": {**TINY["predict"], **settings}})
        names = [path.name for path in sorted(small.images.iterdir())]

        def write(prediction: Prediction) -> tuple[str, bytes]:
            return prediction.image, prediction.compute_labels().tobytes()

        with batch_sizes() as sizes:
            made = set(label_images(segmenter, small.images, names, (), write, config, select("cpu"), 1, "predict"))
        return made, sizes

    return label


@pytest.mark.parametrize("name", CHANGES["predict"])
def test_every_setting_of_predict_has_an_effect(
    name: str, labelled: Callable[..., tuple[set[tuple[str, bytes]], set[int]]]
) -> None:
    (maps, sizes), (usual_maps, usual_sizes) = labelled(**{name: CHANGES["predict"][name]}), labelled()
    assert sizes != usual_sizes if name == "predict_batch" else maps != usual_maps


def test_auto_stands_for_no_number_of_clusters(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('[cluster]\nk = "auto"\n')
    assert with_settings(get_preset_config("voc"), read_toml(file)).cluster.k == 0
    with pytest.raises(InputError, match=r"cluster\.k must be of type int"):
        with_settings(Config(), {"cluster": {"k": "many"}})


@pytest.mark.parametrize("preset", PRESETS)
def test_settings_survive_run_json_and_toml(preset: str, tmp_path: Path) -> None:
    config = with_settings(get_preset_config(preset), {"seed": 7, "embed": {"masks": 'a "quoted" näme'}})
    assert from_dict(to_dict(config)) == config
    file = tmp_path / "settings.toml"
    file.write_text(to_toml(config), encoding="utf-8")
    assert resolve(None, None, None, read_toml(file), lambda: get_preset_config("offline")) == config


@given(
    st.sampled_from([(stage, field.name) for stage, kind in STAGES.items() for field in fields(kind)]), st.booleans()
)
def test_a_value_of_another_type_is_refused_by_name(setting: tuple[str, str], as_list: bool) -> None:
    stage, name = setting
    with pytest.raises(InputError, match=name):
        with_settings(Config(), {stage: {name: [1] if as_list else None}})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cluster": {"k": 1}}, "k must be at least 2; got 1"),
        ({"cluster": {"filter": 1.0}}, r"filter must lie in \[0, 1\)"),
        ({"cluster": {"neighbors": 3}}, "did you mean n_neighbors"),
        ({"clusters": {}}, "did you mean cluster"),
        ({"embed": {"theta": "1.5"}}, "theta must be 'otsu' or a number"),
        ({"train": {"scale_min": 2.5}}, "scale_min must be above 0 and at most scale_max"),
        ({"train": {"learning_rate": float("nan")}}, "learning_rate must be a finite number"),
        ({"predict": {"scales": "1, half"}}, "scales must be numbers"),
        ({"predict": {"scales": "1, 0"}}, "scales must be numbers"),
        ({"seed": -1}, "seed must lie in"),
        ({"embed": 3}, r"\[embed\] must be a table"),
    ],
)
def test_values_out_of_range_and_unknown_names(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        with_settings(Config(), settings)


def test_what_a_run_folder_holds_stays_unless_another_preset_is_asked_for() -> None:
    stored = to_dict(with_settings(get_preset_config("offline"), {"seed": 5, "cluster": {"k": 9}}))

    def unasked() -> Config:
        raise AssertionError("the preset is known")

    assert resolve(stored, None, None, {}, unasked).cluster.k == 9
    assert resolve(stored, "offline", 6, {"cluster": {"n_init": 2}}, unasked) == with_settings(
        from_dict(stored), {"seed": 6, "cluster": {"n_init": 2}}
    )
    assert resolve(stored, "voc", None, {}, unasked) == get_preset_config("voc")
    assert resolve(None, "auto", None, {}, lambda: get_preset_config("offline")) == get_preset_config("offline")


def embedded(photographs: Photographs, folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What `embed` makes: its rows, what it left out, its files, and the sizes of its encoder's batches."""
    run = Run(folder, preset="offline", settings={"embed": {**TINY["embed"], **ENCODER, "embed_batch": 4}})
    with batch_sizes() as sizes:
        run.embed(photographs.images, **settings)
    return {
        "objects": run.objects().to_pylist(),
        "skipped": pq.read_table(folder / "objects/skipped.parquet").to_pylist(),
        "parts": sorted(path.name for path in folder.glob("objects/part-*")),
        "batches": sizes,
    }


def random_checkpoint(name: str, folder: Path) -> str:
    """A checkpoint of a network of timm with other weights than it usually has."""
    torch.manual_seed(1)
    file = folder / "checkpoint.safetensors"
    save_file(timm.create_model(name).state_dict(), file)
    return str(file)


@contextmanager
def batch_sizes() -> Iterator[set[int]]:
    """Collects the batch sizes that reach any torch convolution."""
    sizes: set[int] = set()

    def note(module: torch.nn.Module, given: tuple[Any, ...]) -> None:
        if isinstance(module, torch.nn.Conv2d):
            sizes.add(len(given[0]))

    hook = torch.nn.modules.module.register_module_forward_pre_hook(note)
    try:
        yield sizes
    finally:
        hook.remove()


def reads(clustered: Path, folder: Path, settings: dict[str, Any]) -> list[str]:
    """Class maps that a training of one iteration reads, in order; each is read once beforehand as well."""
    names: list[str] = []

    def noted(at: RunFolder, name: str) -> np.ndarray:
        if name.startswith("iteration-0"):
            names.append(name)
        return read_class_map(at, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "read_class_map", noted)
        trained(clustered, folder, {"iterations": 1, "mask_weight": 0.0, "cluster_weight": 0.0, **settings})
    return names


def compiled(clustered: Path, folder: Path, settings: dict[str, Any]) -> bool:
    """Whether a training hands its network to torch's compiler, which takes minutes: it is stopped there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Module, "compile", stopped)
        try:
            trained(clustered, folder, {"iterations": 1, **settings})
        except InterruptedError:
            return True
    return False


def stopped(*_: Any, **__: Any) -> None:
    raise InterruptedError


def trained(clustered: Path, folder: Path, settings: dict[str, Any]) -> dict[str, bytes]:
    """The files of every iteration of a training with `settings`."""
    shutil.copytree(clustered, folder)
    Run(folder).train(**settings)
    return {name: content for name, content in tree_bytes(folder).items() if name.startswith("iteration-")}


@pytest.mark.parametrize("preset", PRESETS)
def test_fast_sees_fewer_and_best_more_pixels_than_the_default(preset: str) -> None:
    config = get_preset_config(preset)

    def count_pixels(quality: str) -> float:
        chosen = with_settings(config, {"predict": choose_quality(quality, preset)}).predict
        return (1 + chosen.flip) * sum(scale**2 for scale in parse_scales(chosen))

    assert count_pixels("fast") < count_pixels("") < count_pixels("best")
    assert choose_quality("", preset) == {}


def test_what_an_earlier_version_remembered_is_taken_over_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored = to_dict(get_preset_config("offline"))
    stored["cluster"] |= {"method": "leiden", "resolution": 2.0}
    RunFolder(tmp_path / "run").write_state({"images": "", "config": stored, "notes": []})
    assert Run(tmp_path / "run").config.cluster == ClusterConfig(method="communities")
    assert [record.message for record in caplog.records] == [
        "the method leiden of this run folder is no more, since its results differed by chance; communities is taken "
        "in its place"
    ]
    with pytest.raises(InputError, match="--method communities and --choose-k mixing took its place"):
        Run(tmp_path / "new", settings={"cluster": {"choose_k": "leiden"}})
    with pytest.raises(InputError, match="no setting 'resolution'; it was Leiden's"):
        Run(tmp_path / "new", settings={"cluster": {"resolution": 2.0}})
