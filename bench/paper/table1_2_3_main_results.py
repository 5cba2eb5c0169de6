"""Tables 1, 2 and 3: clusters, first and second network, on VOC or COCO or photographs of one's own."""

from __future__ import annotations

from bench.paper.experiment import Experiment
from bench.paper.result import Result

NEEDS = "--data voc:PATH@val (table1), coco:PATH@val2017 (table2, table3), or a folder; trains two networks."
SEEDS = 1
# mIoU by iteration on VOC 2012 val and COCO val, as published; None where not known here.
PAPER = {"voc": (0.418, 0.452, 0.473), "coco": (0.182, None, 0.196)}


def measure(experiment: Experiment) -> Result:
    columns = ("class maps", "mIoU", "paper", "classes of IoU >= 20 %", "mean over these", "IoU > 0", "mean over those")
    result = Result(f"Main results, {len(experiment.masks.classes)} classes, Hungarian", columns)
    runs = [experiment.run(f"full-{seed}", seed) for seed in range(experiment.seeds)]
    for run in runs:
        run.cluster()
        run.train(iterations=2)
    paper = PAPER.get(experiment.source.kind, (None, None, None))
    for iteration, name in enumerate(("clusters", "iteration 1", "iteration 2")):
        scores = [experiment.score_iteration(run, iteration).hungarian for run in runs]
        counts = [", ".join(str(getattr(one, of)) for one in scores) for of in ("discovered", "with_cluster")]
        means = [[getattr(one, f"miou_{of}") for one in scores] for of in ("discovered", "with_cluster")]
        mious = [one.miou for one in scores]
        result.add(name, mious, paper[iteration], counts[0], means[0], counts[1], means[1])
    if experiment.source.kind == "voc":
        result.notes.append("The paper's later version has 50.0 after two iterations.")
    if experiment.source.kind == "coco":
        result.notes.append("The paper: 34 of 81 classes of IoU >= 20 %.")
    result.notes.append("Ours trains on the images it labels; the paper trains on train and trainaug.")
    return result
