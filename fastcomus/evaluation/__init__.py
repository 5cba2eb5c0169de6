"""Scores of clusters against truth (step 11): class maps by IoU, images of one class each by accuracy.

As in the paper, background takes part: k + 1 cluster labels (0 background) are matched to C + 1 classes
(0 background), pixels are pooled over the data set, and void truth (255) is ignored.
"""
