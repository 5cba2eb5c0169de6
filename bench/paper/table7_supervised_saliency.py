"""Table 7: BASNet trained without and with human masks."""

from __future__ import annotations

from bench.paper import table6_saliency
from bench.paper.experiment import Experiment
from bench.paper.result import Result
from fastcomus.errors import InputError

NEEDS = "the weights basnet-unsupervised and basnet-supervised (fastcomus weights add) and data as for table6."
SEEDS = 1


def measure(experiment: Experiment) -> Result:
    result = table6_saliency.measure(experiment, ("basnet-unsupervised", "basnet-supervised"))
    if not result.rows:
        raise InputError(" ".join(result.notes[:2]))
    result.title = "BASNet without and with human masks"
    return result
