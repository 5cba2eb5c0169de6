"""Step 11: what the clusters are worth against truth: class maps by IoU, images of one class by accuracy.

As in the paper, background takes part: k + 1 cluster labels (0 background) are matched to C + 1 classes
(0 background), pixels are pooled over the data set, and void truth (255) is ignored.
"""

from fastcomus.evaluation.class_maps import Evaluation, PairCounts, count_pairs, evaluate
from fastcomus.evaluation.confusion import confusion_matrix
from fastcomus.evaluation.image_labels import LabelEvaluation, cluster_of_image, evaluate_labels, object_accuracy
from fastcomus.evaluation.matching import DISCOVERED_IOU, Matching, Score, match_hungarian, match_majority, score
from fastcomus.evaluation.score_table import format_table

__all__ = ["DISCOVERED_IOU", "Evaluation", "LabelEvaluation", "Matching", "PairCounts", "Score", "cluster_of_image"]
__all__ += ["confusion_matrix", "count_pairs", "evaluate", "evaluate_labels", "format_table", "match_hungarian"]
__all__ += ["match_majority", "object_accuracy", "score"]
