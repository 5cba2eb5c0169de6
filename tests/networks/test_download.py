"""Downloads from a real server on this machine: cut off, refused, changed, without space, and by two at once."""

from __future__ import annotations

import hashlib
import os
import random
import resource
import subprocess
import sys
import threading
import urllib.error
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from weight_server import Server

from fastcomus.errors import InputError
from fastcomus.networks import download as downloads

download = partial(downloads.download, pause_seconds=0.0)
BODY = random.Random(0).randbytes(3_000_000)
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def cut_off(server: Server, target: Path, body: bytes, at: int) -> None:
    """Leaves the first `at` bytes of `body` as the part of `target`, by a download that fails."""
    server.holds("/w", body, cuts=[at] * 9)
    with pytest.raises(OSError, match=f"{at} of {len(body)} bytes"):
        download(f"{server.address}/w", target)
    assert not target.exists() and target.with_name("w.pth.part").stat().st_size == at
    server.ranges.clear()


def test_whole_file_appears_with_nothing_beside_it(server: Server, tmp_path: Path) -> None:
    server.holds("/w", BODY)
    download(f"{server.address}/w", tmp_path / "deep/w.pth", SHA256)
    assert (tmp_path / "deep/w.pth").read_bytes() == BODY
    assert {file.name for file in (tmp_path / "deep").iterdir()} <= {"w.pth", "w.pth.lock"}


def test_cut_connection_goes_on_at_once(server: Server, tmp_path: Path) -> None:
    server.holds("/w", BODY, cuts=[1_200_000, 2_100_000])
    download(f"{server.address}/w", tmp_path / "w.pth", SHA256)
    assert server.ranges == ["", "bytes=1200000-", "bytes=2100000-"]
    assert (tmp_path / "w.pth").read_bytes() == BODY


@pytest.mark.parametrize("shows_etag", [True, False])
def test_next_command_goes_on_where_the_last_one_stopped(server: Server, tmp_path: Path, shows_etag: bool) -> None:
    cut_off(server, tmp_path / "w.pth", BODY, 1_000_000)
    server.holds("/w", BODY, shows_etag=shows_etag)
    download(f"{server.address}/w", tmp_path / "w.pth", SHA256)
    assert server.ranges == ["bytes=1000000-"] and (tmp_path / "w.pth").read_bytes() == BODY


def test_server_that_sends_no_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.holds("/w", BODY, takes_ranges=False, cuts=[1_000_000])
    download(f"{server.address}/w", tmp_path / "w.pth", SHA256)
    assert server.ranges == ["", "bytes=1000000-"] and (tmp_path / "w.pth").read_bytes() == BODY


def test_server_that_always_stops_at_the_same_place_is_given_up(server: Server, tmp_path: Path) -> None:
    server.holds("/w", b"x" * 1000, promised=5000, takes_ranges=False)
    with pytest.raises(OSError, match="1000 of 5000 bytes"):
        download(f"{server.address}/w", tmp_path / "w.pth")
    assert len(server.ranges) == 4 and not (tmp_path / "w.pth").exists()


@pytest.mark.parametrize(
    ("change", "shows_etag"),  # without an ETag or date, nothing but the SHA-256 tells other contents of one length
    [("contents", True), ("length", True), ("length", False), ("shorter than the part", False)],
)
def test_changed_file_starts_over(server: Server, tmp_path: Path, change: str, shows_etag: bool) -> None:
    cut_off(server, tmp_path / "w.pth", BODY, 1_000_000)
    other = {"contents": BODY[::-1], "length": BODY[::-1] + b"more", "shorter than the part": b"short"}[change]
    server.holds("/w", other, shows_etag=shows_etag)
    download(f"{server.address}/w", tmp_path / "w.pth")
    assert server.ranges[0] == "bytes=1000000-" and (tmp_path / "w.pth").read_bytes() == other


def test_part_of_unknown_origin_is_not_gone_on_with(server: Server, tmp_path: Path) -> None:
    (tmp_path / "w.pth.part").write_bytes(b"x" * 1000)
    server.holds("/w", BODY)
    download(f"{server.address}/w", tmp_path / "w.pth")
    assert server.ranges == [""] and (tmp_path / "w.pth").read_bytes() == BODY


def test_part_that_was_whole_already_is_taken(server: Server, tmp_path: Path) -> None:
    cut_off(server, tmp_path / "w.pth", BODY, 1_000_000)
    with (tmp_path / "w.pth.part").open("ab") as part:
        part.write(BODY[1_000_000:])
    download(f"{server.address}/w", tmp_path / "w.pth", SHA256)
    assert server.ranges == [] and (tmp_path / "w.pth").read_bytes() == BODY


def test_wrong_checksum_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.holds("/w", BODY)
    with pytest.raises(InputError, match=rf"has the SHA-256 {SHA256} instead of {'0' * 64}"):
        download(f"{server.address}/w", tmp_path / "w.pth", "0" * 64)
    assert {file.name for file in tmp_path.iterdir()} <= {"w.pth.lock"}


@pytest.mark.parametrize("status", [403, 404, 500])
def test_refusals_are_not_asked_again(server: Server, tmp_path: Path, status: int) -> None:
    server.holds("/w", b"no", status=status)
    with pytest.raises(urllib.error.HTTPError, match=str(status)):
        download(f"{server.address}/w", tmp_path / "w.pth")
    assert len(server.asked) == 1 and {file.name for file in tmp_path.iterdir()} <= {"w.pth.lock"}


def test_file_that_the_check_refuses_does_not_appear(server: Server, tmp_path: Path) -> None:
    def refuse(part: Path) -> None:
        assert part.read_bytes() == BODY
        raise InputError("refused")

    server.holds("/w", BODY)
    with pytest.raises(InputError, match="refused"):
        download(f"{server.address}/w", tmp_path / "w.pth", check=refuse)
    assert {file.name for file in tmp_path.iterdir()} <= {"w.pth.lock"}


def test_two_processes_fetch_once(server: Server, tmp_path: Path) -> None:
    server.holds("/w", BODY)
    program = (
        "import sys; from pathlib import Path; from fastcomus.networks.download import download; "
        "download(sys.argv[1], Path(sys.argv[2]))"
    )
    line = [sys.executable, "-c", program, f"{server.address}/w", str(tmp_path / "w.pth")]
    processes = [subprocess.Popen(line) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert len(server.ranges) == 1 and (tmp_path / "w.pth").read_bytes() == BODY


def test_threads_of_one_process_fetch_once(server: Server, tmp_path: Path) -> None:
    server.holds("/w", BODY)
    threads = [threading.Thread(target=download, args=(f"{server.address}/w", tmp_path / "w.pth")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(server.ranges) == 1 and (tmp_path / "w.pth").read_bytes() == BODY


@pytest.mark.parametrize("kind", ["small file system", "disk that fills up on the way"])
def test_full_disk_is_told_and_left_free(kind: str, server: Server, tmp_path: Path) -> None:
    server.holds("/w", BODY)
    folder = tmp_path / "small"
    folder.mkdir()
    if kind == "small file system":
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
        )
        if mounted.returncode:
            pytest.skip("no file system can be mounted here")
        try:
            with pytest.raises(InputError, match=r"no space in .*small for .*3\.0 MB; free some"):
                download(f"{server.address}/w", folder / "w.pth")
            assert {file.name for file in folder.iterdir()} <= {"w.pth.lock"}
        finally:
            subprocess.run(["umount", str(folder)], check=True)
        return
    # A limit on the size of files fails a write as a full disk does, after the look at the free space.
    program = (
        "import sys; from pathlib import Path; from fastcomus.errors import InputError\n"
        "from fastcomus.networks.download import download\n"
        "try: download(sys.argv[1], Path(sys.argv[2]))\n"
        "except InputError as error: sys.exit(str(error))"
    )
    line = [sys.executable, "-c", program, f"{server.address}/w", str(folder / "w.pth")]
    limit = 1_500_000
    reply = subprocess.run(
        line,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert reply.returncode == 1 and "there is no space in" in reply.stderr and "Traceback" not in reply.stderr
    assert {file.name for file in folder.iterdir()} <= {"w.pth.lock"}
