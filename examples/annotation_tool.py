"""Labels for Label Studio from a finished run: python annotation_tool.py RUN OUTPUT."""

import json
import sys

from fastcomus import Run

target = Run(sys.argv[1]).export("label-studio", sys.argv[2])
tasks = json.loads((target / "tasks.json").read_text())
regions = sum(len(task["predictions"][0]["result"]) for task in tasks)
print(f"{len(tasks)} tasks with {regions} regions to accept or correct, in {target}")
print("Make a project with label-config.xml, then import tasks.json; see docs/exports.md.")
