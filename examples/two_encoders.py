"""Which of two encoders separates the kinds better: python two_encoders.py PHOTOS RUNS ENCODER ENCODER [TRUTH].

With TRUTH, a folder of true masks, both are scored; without, it shows how far their clusters agree.
"""

import sys

from sklearn.metrics import adjusted_rand_score

from fastcomus import Run

photos, folder, *encoders = sys.argv[1:5]
truth = sys.argv[5] if len(sys.argv) > 5 else ""
labels = []
for encoder in encoders:
    run = Run(f"{folder}/{encoder}")
    run.embed(photos, encoder=encoder)
    labels.append(run.cluster().labels)
    if truth:
        print(f"{encoder}: mIoU {run.evaluate(truth, iteration=0).hungarian.miou:.3f}")
print(f"adjusted Rand index of the two: {adjusted_rand_score(*labels):.3f}")  # the objects are the same
