"""Frames of a video, one in N, and their clusters: python video_frames.py CLIP.mp4 N FRAMES RUN (pip install av)."""

import sys
from pathlib import Path

import av

from fastcomus import Run

clip, step, frames, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
frames.mkdir(parents=True, exist_ok=True)
with av.open(clip) as container:
    container.streams.video[0].thread_type = "AUTO"
    for number, frame in enumerate(container.decode(video=0)):
        if number % step == 0:
            frame.to_image().save(frames / f"{number:06d}.jpg", quality=95)

run = Run(folder)
run.embed(frames)
clusters = run.cluster()
print(f"{len(clusters.labels)} objects in {len(clusters.sizes)} clusters")
