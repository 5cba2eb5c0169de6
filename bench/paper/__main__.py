"""One table or figure of the paper, ours with the paper's numbers beside them where these are known.

    python -m bench.paper table10 --data ../shared/data/msrc14
    python -m bench.paper table5 --data voc:VOCdevkit@val

Run it from the project's root. --data: a folder with JPEGImages/, SegmentationClass/ (or SegmentationClassBG/, which
then counts), classes.txt and objects.txt (the images to use), or what `fastcomus evaluate --truth` takes:
voc:PATH@SPLIT, coco:PATH@SPLIT, folders:DIR. What is computed stays in --work and is gone on with. Numbers go to
bench/results/paper-NAME.json with the command that made them.
"""

from __future__ import annotations

import importlib
import logging
import re
import sys
from dataclasses import asdict
from pathlib import Path

from bench import harness
from bench.paper.experiment import Experiment
from bench.paper.result import Result
from fastcomus.errors import InputError
from fastcomus.settings import read_toml

# What can be asked for -> its file, whose name says so: table9_11_presets.py has tables 9 and 11.
FILES = sorted(file.stem for file in Path(__file__).parent.glob("*[0-9]_*.py"))
MODULES = {re.findall("[a-z]+", stem)[0] + number: stem for stem in FILES for number in re.findall("[0-9]+", stem)}


def main() -> None:
    listed = "\n".join(f"  {name:9}{find_module(name).NEEDS}" for name in MODULES)
    parser = harness.make_parser(f"{__doc__}\n{listed}", "paper-NAME", device="auto")
    parser.prog = "python -m bench.paper"
    parser.add_argument("name", choices=MODULES, metavar="NAME", help="table1 ... table12, figure3, 5, 8, 9 or 10")
    parser.add_argument("--data", default="", help="images and their truth")
    parser.add_argument("--work", type=Path, help="folder for what is computed; by default one for each --data")
    parser.add_argument("--preset", default="", help="by default voc, coco or, for other data, offline")
    parser.add_argument("--seeds", type=int, default=0, help="runs of different seed; by default the table's own")
    parser.add_argument("--config", type=Path, help="TOML file of settings over the preset's")
    parser.add_argument("--trained", type=Path, help="run folder whose network is transferred (table4)")
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
    about = {**harness.describe_run(str(experiment.backend.device)), "preset": experiment.preset}
    file = arguments.json.with_name(arguments.json.name.replace("NAME", arguments.name))
    harness.write_json(file, {**about, "seeds": experiment.seeds, **asdict(result)})
    harness.print_table(result.title, result.format_rows())
    print(*result.notes, sep="\n")


def find_module(name: str):  # type: ignore[no-untyped-def]
    return importlib.import_module(f"bench.paper.{MODULES[name]}")


if __name__ == "__main__":
    main()
