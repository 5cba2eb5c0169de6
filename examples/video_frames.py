"""Frames of a video, and clusters of their objects: python video_frames.py CLIP.mp4 SECONDS RUN (pip install av)."""

import sys

from fastcomus import Run

clip, seconds, folder = sys.argv[1], float(sys.argv[2]), sys.argv[3]
run = Run(folder)
found = run.embed(clip, every_seconds=seconds)
clusters = run.cluster()
print(f"{found.images} frames, {len(clusters.labels)} objects in {len(clusters.sizes)} clusters")
