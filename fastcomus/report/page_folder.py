"""The folder of the report, which is refreshed file by file, so that an open page keeps its pictures meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastcomus.store.integrity import seal_json
from fastcomus.store.lock import LOCK_FILES
from fastcomus.store.run_folder import RunFolder

_MANIFEST, _DRAWN = "manifest.json", "drawn.txt"


class PageFolder(RunFolder):
    """A folder of pages. What is neither written nor kept between `refresh` and its end is removed then."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._wanted: set[str] = set()
        self._keeps_pictures = False

    @contextmanager
    def refresh(self, fingerprint: str) -> Iterator[None]:
        """Write the folder anew in the block, alone; when it ends the folder is marked as made from `fingerprint`.

        Args:
            fingerprint: Of all that the pages show.

        Raises:
            InputError: Another process writes the report.
        """
        with self.writer.hold():
            self.remove(_MANIFEST)
            self._wanted.clear()
            yield
            self.write_json(_MANIFEST, seal_json({"fingerprint": fingerprint}))
            self._remove_others()

    @contextmanager
    def draw_pictures(self, drawn_from: str) -> Iterator[None]:
        """Write pictures in the block, or keep those that were made from the same.

        Args:
            drawn_from: Fingerprint of all that pictures of photographs depend on.
        """
        drawn = self.path / _DRAWN
        self._keeps_pictures = drawn.exists() and drawn.read_text(encoding="utf-8") == drawn_from
        if not self._keeps_pictures:
            self.remove(_DRAWN)
        yield
        self.write_text(_DRAWN, drawn_from)

    @contextmanager
    def replace_file(self, name: str) -> Iterator[Path]:
        """See `Folder.replace_file`."""
        self._wanted.add(name)
        with super().replace_file(name) as path:
            yield path

    def keep_picture(self, name: str) -> bool:
        """Whether the picture `name` is there and still right; then it stays."""
        if not (self._keeps_pictures and (self.path / name).exists()):
            return False
        self._wanted.add(name)
        return True

    def _remove_others(self) -> None:
        for file in list(self.path.rglob("*")):
            name = file.relative_to(self.path).as_posix()
            if file.is_file() and name not in self._wanted and name not in LOCK_FILES:
                self.remove(name)
