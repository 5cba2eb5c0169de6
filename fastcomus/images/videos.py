"""Frames of a video as images: one every so many seconds, decoded when it is read."""

from __future__ import annotations

import io
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

from fastcomus.errors import InputError, get_first_line
from fastcomus.images.found import LOST, ImageList, UnreadableImage
from fastcomus.images.roots import StoredImage, StoredImages

_ENDINGS = (".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm")
_VIDEOS_OPEN = 2
_SAME_SECONDS = 1e-6  # times so close are one
_FRAMES_AHEAD = 100  # up to so far a frame is reached by decoding on, beyond it by seeking


def is_video(path: str) -> bool:
    """Whether a file is taken for a video by its ending."""
    return path.lower().endswith(_ENDINGS)


@dataclass(frozen=True)
class VideoFrames(StoredImages):
    """Frames of a video, named VIDEO/NUMBER.png after their number from 0.

    Attributes:
        address: The video.
    """

    address: str

    def __truediv__(self, name: str) -> StoredImage:
        return _Frame(Path(self.address), int(PurePosixPath(name).stem))

    def __str__(self) -> str:
        return self.address


@dataclass(frozen=True)
class _Frame(StoredImage):
    file: Path
    number: int

    def read_encoded(self, most_bytes: int) -> bytes:
        content = _open_video(self.file).read_frame(self.number)
        if len(content) > most_bytes:
            raise UnreadableImage(
                "too large", f"{len(content)} bytes; {most_bytes} are the most that max_pixels may take"
            )
        return content

    def __str__(self) -> str:
        return f"{self.file}/{self.number:06d}.png"


def find_in_video(file: Path, every_seconds: float) -> ImageList:
    """List frames of a video.

    Args:
        file: The video.
        every_seconds: Seconds from one frame to the next; 0 takes every frame.

    Returns:
        An image for each.

    Raises:
        InputError: PyAV is missing, or the file holds no video that FFmpeg reads.
    """
    check_reader()
    status = file.stat()
    video = _Video(file)
    names = [f"{file.name}/{one:06d}.png" for one in _choose_frames(video.times, video.time_base, every_seconds)]
    stamps = {name: [status.st_size, status.st_mtime_ns, name] for name in names}
    return ImageList(VideoFrames(str(file.absolute())), tuple(names), (), stamps)


def _choose_frames(times: Sequence[int], time_base: Fraction, every_seconds: float) -> list[int]:
    """Return the number of the first frame at or after every multiple of `every_seconds`; of all frames for 0."""
    chosen: list[int] = []
    next_seconds = 0.0
    for number, time in enumerate(times):
        seconds = float((time - times[0]) * time_base)
        if seconds >= next_seconds - _SAME_SECONDS:
            chosen.append(number)
            if every_seconds > _SAME_SECONDS:  # below it every frame is due
                next_seconds = ((seconds + _SAME_SECONDS) // every_seconds + 1) * every_seconds
    return chosen


def check_reader() -> None:
    """Raise InputError where PyAV is missing."""
    if find_spec("av") is None:
        raise InputError("frames of a video need PyAV; run pip install av.")


class _Video:
    """A video that is being read; threads may share it.

    Frames that other threads wait for are decoded in passing, since going back means to decode from a key frame again.
    """

    def __init__(self, file: Path) -> None:
        import av

        self._file, self._lock, self._asked = file, threading.Lock(), threading.Lock()
        self._wanted: Counter[int] = Counter()  # how many threads wait for a frame
        self._made: dict[int, bytes | UnreadableImage] = {}
        self._next = 0
        self._frames: Any = None
        try:
            self._container = av.open(str(file))
            if not self._container.streams.video:
                raise InputError(f"{file} holds no video, only sound.")
            self._stream: Any = self._container.streams.video[0]
            self._stream.thread_type = "AUTO"
            self.time_base = Fraction(self._stream.time_base or 1)
            if not self.times:
                raise InputError(f"{file} holds no frame.")
        except (av.FFmpegError, OSError) as error:
            raise InputError(f"{file} cannot be read as a video ({get_first_line(error)}).") from error

    @cached_property
    def times(self) -> list[int]:
        """When each frame is shown, ascending, in units of `time_base`; nothing is decoded."""
        packets = self._container.demux(self._stream)
        found = [packet.dts if packet.pts is None else packet.pts for packet in packets if packet.size]
        return sorted({time for time in found if time is not None})

    def read_frame(self, number: int) -> bytes:
        """Return a frame as PNG; raise UnreadableImage if it cannot be decoded."""
        with self._asked:
            self._wanted[number] += 1
        try:
            with self._lock:
                if number not in self._made:
                    with self._asked:
                        due = sorted(one for one in self._wanted if one <= number and one not in self._made)
                    for one in due:
                        self._made[one] = self._decode_frame(one)
                found = self._made[number]
        finally:
            with self._asked:
                self._wanted[number] -= 1
                if not self._wanted[number]:  # another thread that waits for it takes the same
                    del self._wanted[number]
                    self._made.pop(number, None)
        if isinstance(found, UnreadableImage):
            raise found
        return found

    def _decode_frame(self, number: int) -> bytes | UnreadableImage:
        import av

        if number >= len(self.times):
            return UnreadableImage(LOST, "the video has fewer frames than when it was listed")
        try:
            if self._frames is None or not self._next <= number <= self._next + _FRAMES_AHEAD:
                self._container.seek(self.times[number], stream=self._stream, backward=True)
                self._frames = self._container.decode(self._stream)
            for frame in self._frames:
                if frame.pts is not None and frame.pts >= self.times[number]:
                    self._next = number + 1
                    return _encode_frame(frame)
        except (av.FFmpegError, OSError, MemoryError) as error:
            self._frames = None
            return UnreadableImage("unreadable", get_first_line(error, 200))
        self._frames = None
        return UnreadableImage("truncated", "the video ends before this frame")


def _encode_frame(frame: Any) -> bytes:
    stream, picture = io.BytesIO(), frame.to_image()
    if frame.rotation:  # as a telephone that was turned notes it, anticlockwise
        picture = picture.rotate(frame.rotation, expand=True)
    picture.save(stream, format="PNG", compress_level=1)
    return stream.getvalue()


_videos: OrderedDict[tuple[str, int], _Video] = OrderedDict()  # by file and its state
_opening = threading.Lock()


def _open_video(file: Path) -> _Video:
    with _opening:
        try:
            key = str(file), file.stat().st_mtime_ns
            if key not in _videos:
                _videos[key] = _Video(file)
        except OSError as error:
            raise UnreadableImage(LOST, error.strerror or str(error)) from error
        except (ImportError, InputError) as error:
            raise UnreadableImage(LOST, str(error)) from error
        _videos.move_to_end(key)
        while len(_videos) > _VIDEOS_OPEN:
            _videos.popitem(last=False)
        return _videos[key]
