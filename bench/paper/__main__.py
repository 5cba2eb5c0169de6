"""One table or figure of the paper, ours with the paper's numbers beside them where these are known.

    python -m bench.paper table10 --data ../shared/data/msrc14
    python -m bench.paper table5 --data voc:VOCdevkit@val

Run it from the project's root. --data: a folder with JPEGImages/, SegmentationClass/ (or SegmentationClassBG/, which
then counts), classes.txt and objects.txt (the images to use), or what `fastcomus evaluate --truth` takes:
voc:PATH@SPLIT, coco:PATH@SPLIT, folders:DIR. What is computed stays in --work and is gone on with. Numbers go to
bench/results/paper-NAME.json with the command that made them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import re
import sys
from pathlib import Path

from rich.console import Console

from bench.paper.experiment import Experiment
from bench.paper.result import Result
from fastcomus.errors import InputError
from fastcomus.settings import read_toml

# What can be asked for -> its file. Tables that differ only in their data or method share one.
MODULES = {
    "table1": "main_results",
    "table2": "main_results",
    "table3": "main_results",
    "table4": "table4_transfer",
    "table5": "table5_ablation",
    "table6": "table6_saliency",
    "table7": "table7_supervised_saliency",
    "table8": "table8_over_clustering",
    "table9": "table9_11_presets",
    "table10": "table10_sensitivity",
    "table11": "table9_11_presets",
    "table12": "table12_encoders",
    "figure3": "figure3_tsne",
    "figure5": "figure5_cluster_samples",
    "figure8": "figure8_clusterings",
    "figure9": "figure9_object_size",
    "figure10": "figure10_classes",
}


def main() -> None:
    listed = "\n".join(f"  {name:9}{find_module(name).NEEDS}" for name in MODULES)
    parser = argparse.ArgumentParser(
        prog="python -m bench.paper",
        description=f"{__doc__}\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=MODULES, metavar="NAME", help="table1 ... table12, figure3, 5, 8, 9 or 10")
    parser.add_argument("--data", default="", help="images and their truth")
    parser.add_argument("--work", type=Path, help="folder for what is computed; by default one for each --data")
    parser.add_argument("--preset", default="", help="by default voc, coco or, for other data, offline")
    parser.add_argument(
        "--seeds", type=int, default=0, help="runs that differ in their seed; by default the table's own"
    )
    parser.add_argument("--config", type=Path, help="TOML file of settings over the preset's")
    parser.add_argument("--trained", type=Path, help="run folder whose network is transferred (table4)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="where the numbers go")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("fastcomus").setLevel(logging.INFO)
    module = find_module(arguments.name)
    try:
        experiment = Experiment(
            arguments.data,
            arguments.work or Path("comus-run", f"paper-{re.sub('[^A-Za-z0-9]+', '-', arguments.data).strip('-')}"),
            preset=arguments.preset,
            seeds=arguments.seeds or module.SEEDS,
            device=arguments.device,
            settings=read_toml(arguments.config) if arguments.config else {},
            trained=arguments.trained,
        )
        result: Result = module.measure(experiment)
    except InputError as error:
        print(f"bench.paper: {error}\n{arguments.name}: {module.NEEDS}", file=sys.stderr)
        sys.exit(2)
    command = " ".join(["python -m bench.paper", *sys.argv[1:]])
    file = arguments.json or Path(f"bench/results/paper-{arguments.name}.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"command": command, "preset": experiment.preset, "seeds": experiment.seeds, **result.to_json()}
    file.write_text(json.dumps(content, indent=2) + "\n")
    Console(width=120).print(result.build_table())


def find_module(name: str):  # type: ignore[no-untyped-def]
    return importlib.import_module(f"bench.paper.{MODULES[name]}")


if __name__ == "__main__":
    main()
