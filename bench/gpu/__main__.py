"""What a GPU does with every part of fastcomus: parity with the CPU, tests, seconds beside bounds, memory, idle time.

    python -m bench.gpu                            # writes bench/results/gpu-NAME.json, after every part
    python -m bench.gpu --seconds 300 --images DIR # in five minutes, on photographs of one's own
    python -m bench.gpu --steps parity tests       # these alone, whether or not they are done

One command for any machine with a CUDA device, and what to send with a report of a fault. Steps come in the order of
their value, each in a process of its own with a limit of its own; what fails is written down with its error, and the
rest goes on. Started again, it does what is missing. Bounds are the ceilings that the step `machine` measures: bytes
over the bus and in the device's memory, products of matrices. Networks have random weights, which changes no speed.
Without `--images` the photographs are the demonstration's scenes. `--device cpu --small` runs the same code on little.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import harness
from bench.gpu import clusters, embed, machine, networks, parity, suite
from bench.gpu.place import Place
from bench.gpu.steps import Step, list_faults, run_steps

STEPS = (
    Step("machine", 60, machine.list_parts),
    Step("parity", 120, parity.list_parts),
    Step("clusters", 150, clusters.list_parts),
    Step("embed", 150, embed.list_parts),
    Step("train", 120, networks.list_training_parts),
    Step("predict", 60, networks.list_prediction_parts),
    Step("busy", 120, networks.list_profiled_parts),
    Step("tests", 240, suite.list_parts),
)
PACKAGES = (
    "torchvision",
    "timm",
    "scipy",
    "scikit-learn",
    "cupy-cuda13x",
    "cupy-cuda12x",
    "faiss-gpu",
    "cuml-cu13",
    "cuvs-cu13",
)


def main(given: Sequence[str] | None = None) -> None:
    parser = harness.make_parser(__doc__, "gpu-NAME", device="auto", repeats=3)
    parser.add_argument("--images", type=Path, help="folder of photographs")
    parser.add_argument("--seconds", type=float, default=900, help="for all steps together")
    parser.add_argument("--steps", nargs="*", default=[], choices=[step.name for step in STEPS], metavar="STEP")
    parser.add_argument("--small", action="store_true", help="little of everything, to try the code itself")
    arguments = parser.parse_args(given)
    is_apart = arguments.device != "cpu"
    if is_apart:  # what looks for a device must not open it, since a forked process could then not
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
        about = harness.run_apart(describe_device, arguments.device, fork=True)
    else:
        about = describe_device("cpu")
    if "refused" in about:
        parser.error(about["refused"])
    name = re.sub(r"\W+", "-", about["hardware"].partition(",")[0].lower()).strip("-")
    file = Path(str(arguments.json).replace("gpu-NAME", f"gpu-{name}"))
    records = read_records(file, about, arguments.small)
    for step in arguments.steps:
        records.pop(step, None)
    if about["device"] == "cpu":
        is_apart = False

    def save() -> None:
        harness.write_json(file, {**about, "small": arguments.small, "faults": list_faults(records), "steps": records})

    import torch

    with tempfile.TemporaryDirectory() as scratch:
        place = Place(
            torch.device(about["device"]), arguments.small, arguments.repeats, arguments.images, Path(scratch), records
        )
        steps = [step for step in STEPS if step.name in (arguments.steps or [one.name for one in STEPS])]
        run_steps(steps, place, records, save, arguments.seconds, is_apart)
    harness.print_table(
        f"{about['hardware']}: {file}",
        [
            {"step": name, "status": one["status"], "seconds": sum(one.get("seconds", {}).values())}
            for name, one in records.items()
        ],
    )
    for fault in list_faults(records):
        print(fault)


def describe_device(name: str) -> harness.Row:
    """What the results begin with, and the device by its number; or why it cannot be used."""
    from fastcomus.backends.choose import select
    from fastcomus.errors import InputError

    try:
        device = str(select(name).device)
    except InputError as error:
        return {"refused": str(error)}
    return {**harness.describe_run(device, *PACKAGES), "device": device}


def read_records(file: Path, about: harness.Row, is_small: bool) -> dict[str, Any]:
    """What was done before on this hardware with these versions."""
    before = harness.read_json(file)
    is_same = all(before.get(name) == about[name] for name in ("hardware", "versions", "device"))
    return dict(before["steps"]) if is_same and before.get("small") == is_small else {}


if __name__ == "__main__":
    main()
