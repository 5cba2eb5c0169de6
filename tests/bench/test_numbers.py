"""The numbers in the README and in docs/ are those of bench/results/, rounded as shown there."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from places import ROOT

from bench.scale_out import format_page, put_table
from bench.time_to_quality import summarise

PAGES = ["README.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))]
WEIGHED = "three-priors, weighed"
WORDS = ("no", "one", "two", "three")


class Number(NamedTuple):
    """The groups of `pattern` on `page` must be `form` of the values that `read` finds in the JSON file, in order."""

    page: str
    pattern: str
    file: str
    read: Callable[[Any], list[float]]
    form: str | Callable[[float], str] = "{:.1f}"


def saliency(method: str) -> Callable[[Any], list[float]]:
    def read(numbers: Any) -> list[float]:
        row = next(row for row in numbers["rows"] if row["method"] == method)
        return [100 * row["foreground_iou"], 1000 * row["f_max"], 1000 * row["mean_absolute_error"]]

    return read


def saliency_row(shown: str, method: str) -> list[Number]:
    pattern = rf"\| {shown} \| ([\d.]+) % \| [\d.]+ \| [\d.]+ \|"
    rest = rf"\| {shown} \| [\d.]+ % \| 0\.(\d+) \| 0\.(\d+) \|"
    read = saliency(method)
    return [
        Number("docs/networks.md", pattern, "saliency", lambda numbers: read(numbers)[:1]),
        Number("docs/networks.md", rest, "saliency", lambda numbers: read(numbers)[1:], "{:.0f}"),
    ]


def few_photographs(numbers: Any, count: int) -> list[float]:
    row = next(row for row in numbers["rows"] if row["photographs"] == count)
    return [100 * row[name] for name in ("weighed", "taught")]


def several_seconds(numbers: Any) -> list[float]:
    one, judged, several = (row["cpu_s_per_image"] for row in numbers["rows"])
    return [several, one, judged - several]


LOOKS = {
    "none": "nothing",
    "poor": 'the first under "Poor masks"',
    "doubtful": 'the first under "Most doubtful"',
    "mixed": "of kinds without a cluster of their own",
    "alike": "five of each such kind, and what is like them",
}


def correction_row(look: str) -> Number:
    number = r"([\d.]+) \| "
    return Number(
        "docs/correcting.md",
        rf"\| {LOOKS[look]} \| {5 * number}".removesuffix(" "),
        "corrections",
        lambda numbers: next(
            [row[name] for name in ("looked_at", "corrected", "object_accuracy", "miou_clusters", "miou_network")]
            for row in numbers["rows"]
            if row["look"] == look
        ),
        as_count_or_percent,
    )


def as_count_or_percent(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.1f}"


def option_row(start: str, option: str, other: str, iteration: int) -> Number:
    def read(numbers: Any) -> list[float]:
        return [numbers[option]["seeds"]["0"][iteration] - numbers[other]["seeds"]["0"][iteration]]

    return Number("docs/training.md", rf"\| `{start}[^|]*\|[^|]*\| (-?[\d.]+) \|", "training_options-float32", read)


def epochs_row(numbers: Any, epochs: int) -> list[float]:
    row = next(row for row in summarise(numbers["cells"]) if row["epochs"] == epochs)
    return [row["CPU s"], row["network"], row["network, ±"]]


def iou(numbers: Any, method: str) -> float:
    return 100 * float(next(row["foreground_iou"] for row in numbers["rows"] if row["method"] == method))


def paper(numbers: Any, column: str, **wanted: Any) -> float:
    """Percent: the mean over the seeds in the row that has the wanted values."""
    row = next(row for row in numbers["rows"] if all(row[name] == value for name, value in wanted.items()))
    return 100 * (row[column] if isinstance(row[column], float) else statistics.fmean(row[column]))


def neighbors(numbers: Any, value: int) -> float:
    return paper(numbers, "mIoU", setting="n_neighbors", value=value)


def compare_ways(numbers: Any, way: str, other: str) -> float:
    """Points of mIoU that one way to predict is better than another."""
    scores = {row["way"]: row["mIoU"] for row in numbers["rows"]}
    return scores[way] - scores[other]


def as_word(value: float) -> str:
    return WORDS[round(value)]


def as_seconds_or_points(value: float) -> str:
    return f"{value:.0f}" if value > 100 else f"{value:.1f}"


NUMBERS = [
    *(correction_row(look) for look in LOOKS),
    *saliency_row("own network with its priors, weighed", "train-saliency"),
    *saliency_row("own network without its priors, weighed", "train-saliency, network alone"),
    *saliency_row("`three-priors`, weighed", WEIGHED),
    *saliency_row("`three-priors`", "three-priors"),
    *saliency_row("`background-prior`", "background-prior"),
    *saliency_row("`minimum-barrier`", "minimum-barrier"),
    *saliency_row("`absorbing-markov-chain`", "absorbing-markov-chain"),
    Number("docs/networks.md", r"On (\d+)\s+photographs, trained on", "saliency", lambda n: [n["images"]], "{}"),
    option_row("--weight-average", "one size", "no average of weights", 1),
    option_row("--min-confidence", "confidence of at least 0.7", "one size", 2),
    option_row("--schedule", "one size", "constant learning rate", 1),
    option_row("--flip", "two sizes, mirrored images", "one size", 1),
    Number(
        "docs/training.md",
        r"\| `--follow-edges`[^|]*\|[^|]*\| (-?[\d.]+) \|",
        "prediction_quality",
        lambda numbers: [compare_ways(numbers, "default, torch", "default, without edges, torch")],
    ),
    Number(
        "docs/cli.md",
        r"All sizes mirrored, too:.*, ([\d.]+) points of mIoU better",
        "prediction_quality",
        lambda numbers: [compare_ways(numbers, "best, torch", "default, torch")],
    ),
    option_row("--iterations 4", "until masks agree on 0.85", "one size", -1),
    Number(
        "docs/training.md",
        r"`offline`, which sets most of them, varies by ([\d.]+)\.",
        "training_options",
        lambda n: [statistics.pstdev(scores[-1] for scores in n["preset"]["seeds"].values())],
    ),
    Number(
        "docs/scale.md",
        r"set to 0\.9; 10,000,000 rows took ([\d,]+) s\.",
        "scale_out",
        lambda n: [next(row["wall_s"] for row in n["rows"] if row["objects"] == 10_000_000)],
        "{:,.0f}",
    ),
    Number(
        "docs/choices.md",
        r"of 14 classes they found (\d+), (\d+) and (\d+)",
        "cluster_count",
        lambda n: [n["rows"][0][name] for name in ("mixing", "modularity", "eigengap")],
        "{}",
    ),
    Number(
        "docs/choices.md",
        r"([\d.]+) % \(`background-prior`\)\s+to ([\d.]+) %, and that of `three-priors` is ([\d.]+) %, "
        r"weighed ([\d.]+) %",
        "saliency",
        lambda n: [iou(n, name) for name in ("background-prior", "train-saliency", "three-priors", WEIGHED)],
    ),
    *(
        Number(
            "docs/choices.md",
            rf"\({data}, \d+ photographs\) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|",
            file,
            lambda n: [iou(n, name) for name in ("background-prior", "three-priors", WEIGHED, "train-saliency")],
        )
        for data, file in (
            ("msrc14", "saliency"),
            ("clothing120", "saliency-clothing120"),
            ("scenes64", "saliency-scenes64"),
        )
    ),
    *(
        Number(
            "docs/choices.md",
            rf"\n\| {count} (?:\| [\d.]+, [\d.]+ ){{{place}}}\| ([\d.]+), ([\d.]+) \|",
            file,
            partial(few_photographs, count=count),
        )
        for place, file in enumerate(
            ("few_photographs", "few_photographs-clothing120", "few_photographs-scenes64"),
        )
        for count in (6, 10, 20, 40)
    ),
    Number(
        "docs/choices.md",
        r"overlap rose from ([\d.]+) % to ([\d.]+) %",
        "several",
        lambda n: [100 * row["average_best_overlap"] for row in n["rows"][:2]],
    ),
    Number(
        "docs/choices.md",
        r"at ([\d.]+) s of processor time a photograph instead of ([\d.]+) s, and each of those that are\s+looked at"
        r" both ways took another ([\d.]+) s",
        "several",
        several_seconds,
        "{:.2f}",
    ),
    Number(
        "docs/choices.md",
        r"from ([\d.]+) to ([\d.]+) on made scenes of two classes and from\s+([\d.]+) to ([\d.]+) on scenes",
        "several",
        lambda n: [100 * row[f"miou_scenes_of_{classes}"] for classes in (2, 3) for row in n["rows"][:2]],
    ),
    Number(
        "docs/choices.md",
        r"taking them apart costs ([\d.]+) points of mIoU on msrc14 and ([\d.]+) on\s+made scenes of one class",
        "several",
        lambda n: [100 * (n["rows"][1][name] - n["rows"][2][name]) for name in ("miou_one_each", "miou_scenes_of_1")],
    ),
    Number(
        "docs/choices.md",
        r"It is (0\.\d+) and (0\.\d+) there, and (1\.\d+),\s+(1\.\d+) and (1\.\d+) on the\s+others",
        "several",
        lambda n: [
            n["rows"][1][f"evidence_{name}"]
            for name in ("one_each", "scenes_of_1", "data", "scenes_of_2", "scenes_of_3")
        ],
        "{:.1f}",
    ),
    Number(
        "docs/choices.md",
        r"foreground IoU of (\d+) to (\d+) %",
        "paper-table6",
        lambda n: [paper(n, "foreground IoU", saliency=name) for name in ("lost", "maskcut")],
        "{:.0f}",
    ),
    Number(
        "docs/choices.md",
        r"put (\d+) % of the objects into the right\s+cluster, k-means (\d+) %",
        "paper-table12",
        lambda n: [paper(n, name, classes=14) for name in ("accuracy", "accuracy, k-means")],
        "{:.0f}",
    ),
    Number(
        "docs/choices.md",
        r"`--n-neighbors` of 20 to 50 changed the clusters' mIoU by (\w+) point, 10\s+cost (\w+)",
        "paper-table10",
        lambda n: [neighbors(n, 50) - neighbors(n, 20), neighbors(n, 30) - neighbors(n, 10)],
        as_word,
    ),
    Number(
        "docs/benchmarks.md",
        r"IoU of ([\d.]+) in (\d+) s, [^(]*\(`bench/plain_recipe.py`\) reached ([\d.]+) in (\d+) s",
        "end_to_end",
        lambda n: [
            value for side in n["sides"].values() for value in (side["mean_iou"], side["stages"]["in all"]["wall_s"])
        ],
        as_seconds_or_points,
    ),
    Number(
        "docs/training.md",
        r"whose clusters' masks have ([\d.]+)\)",
        "time_to_quality",
        lambda n: [statistics.fmean(one["mean_iou"][0] for one in n["cells"])],
    ),
    *(
        Number(
            "docs/training.md",
            rf"\| {epochs}[^|]*\| (\d+) \| ([\d.]+) ± ([\d.]+) \|",
            "time_to_quality",
            partial(epochs_row, epochs=epochs),
            as_seconds_or_points,
        )
        for epochs in (1, 2, 3)
    ),
    Number(
        "docs/scale.md",
        r"([\d.]+) GB of memory in the graph and ([\d.]+) GB in the eigenvectors",
        "scale",
        lambda n: [n[stage]["bytes_each_by_part"][-1] * 1e7 / 1e9 for stage in ("graph", "eigenmaps")],
    ),
    Number(
        "docs/rows.md",
        r"take the command ([\d.]+) s on two cores, from its start to files on disk\. The usual\s+"
        r"script on scikit-learn \([^)]*\) takes ([\d.]+) s",
        "cluster_command",
        lambda n: [row["wall_s"] for row in n["rows"]],
    ),
]

# Lines with a unit of measurement that nothing here measures: settings, arithmetic, sizes of files, what others say.
EXCEPTIONS = {
    "docs/installation.md": ["2.0 GB on disk", "it is 7.8 GB", "59 MB to download, 181", "85 MB to download, 217"],
    "docs/networks.md": ["it looks for at most 3 seconds", "translating a network takes two seconds"],
    "docs/training.md": ["56 images a step"],
    "docs/evaluation.md": ["IoU of 20 % or more", "95 % intervals"],
    "docs/cli.md": [""],  # the help texts, which `make docs` writes
    "docs/several-machines.md": ["an actor is made again, three times"],
    "docs/gpu.md": [
        "up to 32 images or 2^26 pixels",
        "ten bytes a value of theirs",
        "channels last where `--saliency-precision` says so | 32 images",
        "2.6 kB for an object of 320 px",
        "188 kB of its mask",
        "made for 32 images in a launch",
        "3.6 GB",
        "6.0 GB on disk",
        "1.6 MB on top of cuML's libcuvs",
    ],
    "docs/how-it-works.md": ["| paper |", "| 3.1", "| 3.2 |"],  # sections
    "docs/image-sources.md": [
        "217 MB on disk",
        "made three times",
        "for 30 seconds has failed; no request takes more than five minutes",
    ],
    "docs/rows.md": ["80 % of"],
    "docs/scale.md": [
        "4 C + 200 bytes",
        "1,536 bytes",
        "Above 1 GiB",
        "above 1 GiB",
        "10 million objects in 80 clusters would take 15.4 GB",
        "(768",
        "on a machine with 23 GB",
        "blocks of 65,536 (100 MB)",
        "4 bytes an object",
        "16 kB for an image and prior",
    ],
}
UNITS = r"s|ms|us|[kMG]B|[kMG]iB|TB|bytes|%|points?|times|seconds|minutes?|hours?|images(?:/s)?|mIoU|IoU"
MEASURED = re.compile(rf"(?:\d|\b(?:one|two|three|four|five|ten)\b) ?(?:{UNITS})(?!\w)|\| -?\d+\.\d+ \|")


def read_page(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def find_entries(number: Number) -> list[re.Match[str]]:
    return list(re.finditer(number.pattern, read_page(number.page)))


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: f"{number.page}: {number.pattern[:40]}")
def test_a_page_says_what_was_measured(number: Number) -> None:
    (match,) = find_entries(number)
    file: Path = ROOT / "bench/results" / f"{number.file}.json"
    values = number.read(json.loads(file.read_text(encoding="utf-8")))
    shown = [number.form.format(value) if isinstance(number.form, str) else number.form(value) for value in values]
    assert list(match.groups()) == shown, file.name


def test_the_table_of_memory_is_that_of_the_json() -> None:
    numbers = json.loads((ROOT / "bench/results/scale.json").read_text(encoding="utf-8"))
    rows = re.findall(
        r"^\| ([\w -]+) \| (.+) \w+ \| (.+) \| (\S+) \| (.+) \|$", read_page("docs/scale.md"), re.MULTILINE
    )
    found = {name: [read_numbers(cell) for cell in cells] for name, *cells in rows if name in numbers}
    assert found.keys() == numbers.keys()
    for name, row in numbers.items():
        peaks = [round(peak / 1e6, 1) for peak in row["peak_bytes"]]
        assert found[name] == [row["sizes"], peaks, [row["bytes_each"]], row["bytes_each_by_part"]], name


def test_the_table_of_many_rows_is_that_of_the_json() -> None:
    numbers = json.loads((ROOT / "bench/results/scale_out.json").read_text(encoding="utf-8"))
    page = read_page("docs/scale.md")
    assert put_table(page, format_page(numbers["rows"])) == page


def read_numbers(cell: str) -> list[float]:
    return [float(one.replace(",", "")) for one in cell.split(", ")]


@pytest.mark.parametrize("page", PAGES)
def test_every_measurement_on_a_page_is_known(page: str) -> None:
    text = re.sub(
        r"<!-- bench/scale(?:_out)?\.py -->.*?<!-- end[ \w]* -->",
        lambda found: "\n" * found[0].count("\n"),
        read_page(page),
        flags=re.DOTALL,
    )
    covered: set[int] = set()
    for number in NUMBERS:
        for match in re.finditer(number.pattern, text) if number.page == page else []:
            covered |= {text.count("\n", 0, place) for place in range(match.start(), match.end())}
    allowed = EXCEPTIONS.get(page, [])
    for index, line in enumerate(text.splitlines()):
        if MEASURED.search(line) and index not in covered:
            assert any(one in line for one in allowed), f"{page}:{index + 1}: {line}"
