"""Images behind URLs: a real web server on this machine, fsspec's memory for buckets, S3's and Google's libraries."""

from __future__ import annotations

import ntpath
import os
import pickle
import random
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hostile_files import good_file
from hostile_tars import packed
from image_server import ImageServer

from fastcomus.errors import InputError
from fastcomus.images import remote_client, remote_images
from fastcomus.images.folder import find_images
from fastcomus.images.found import LOST, UnreadableImage
from fastcomus.images.listing import find_listed_images, open_root
from fastcomus.images.reading import read_image

MAX_PIXELS = 1_000_000
ODD_NAMES = ("a b.png", "ünï-图片.jpg", "50%.png", "a+b&c.png", "q?d#e.png", "sub/deep/x.png", "semi;colon.png")


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's own."""
    monkeypatch.delenv("FASTCOMUS_OFFLINE")
    monkeypatch.setattr(remote_client, "PAUSE_SECONDS", (0.01, 0.01))
    remote_client._failures.clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = random.Random(0)
    for name in ODD_NAMES:
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(good_file(rng)[1])
    (tmp_path / "photos/notes.txt").write_text("no image")
    (tmp_path / "photos/.hidden.png").write_bytes(b"x")
    return tmp_path / "photos"


@pytest.fixture
def server(folder: Path) -> Iterator[ImageServer]:
    started = ImageServer(folder.parent)
    yield started
    started.close()


@pytest.fixture
def bucket(folder: Path) -> Iterator[str]:
    memory = fsspec.filesystem("memory")
    for path in folder.rglob("*"):
        if path.is_file():
            memory.pipe(f"/bucket/photos/{path.relative_to(folder).as_posix()}", path.read_bytes())
    yield "memory://bucket/photos"
    memory.rm("/bucket", recursive=True)


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("kind", ["web", "bucket"])
def test_a_folder_behind_a_url_holds_what_the_folder_holds(
    kind: str, slash: str, folder: Path, server: ImageServer, bucket: str
) -> None:
    address = f"{server.address}/photos" if kind == "web" else bucket
    found, local = find_listed_images(address + slash), find_images(folder)
    assert found.names == local.names and found.skipped == ()
    assert str(found.root) == address
    assert all(found.stamps[name] for name in found.names)
    for root in (found.root, open_root(str(found.root), found.names), pickle.loads(pickle.dumps(found.root))):
        for name in found.names:
            assert np.array_equal(read_image(root / name, MAX_PIXELS), read_image(folder / name, MAX_PIXELS))


def test_one_image(folder: Path, server: ImageServer) -> None:
    found = find_listed_images(f"{server.address}/photos/sub/deep/x.png")
    assert found.names == ("x.png",)
    assert np.array_equal(
        read_image(found.root / "x.png", MAX_PIXELS), read_image(folder / "sub/deep/x.png", MAX_PIXELS)
    )


@pytest.mark.parametrize("kind", ["web", "bucket"])
@pytest.mark.parametrize("given", ["", "/s-{0..1}.tar", "/*.tar", "/s-0.tar"])
def test_tars_behind_urls(kind: str, given: str, folder: Path, server: ImageServer) -> None:
    files = sorted(path for path in folder.iterdir() if path.suffix == ".png" and path.name[0] != ".")
    (folder.parent / "tars").mkdir()
    for number in range(2):
        part = [(file.name, file.read_bytes()) for file in files[number::2]]
        (folder.parent / f"tars/s-{number}.tar").write_bytes(packed(*part))
        fsspec.filesystem("memory").pipe(f"/bucket/tars/s-{number}.tar", packed(*part))
    base = f"{server.address}/tars" if kind == "web" else "memory://bucket/tars"
    found = find_listed_images(base + given)
    assert len(found.names) == (3 if given == "/s-0.tar" else len(files)) and found.skipped == ()
    for root in (found.root, open_root(str(found.root), found.names)):
        for name in found.names:
            expected = read_image(folder / name.partition("/")[2], MAX_PIXELS)
            assert np.array_equal(read_image(root / name, MAX_PIXELS), expected)


def test_a_server_that_gives_no_parts_of_files_cannot_serve_tars(folder: Path, server: ImageServer) -> None:
    (folder.parent / "s.tar").write_bytes(packed(("a.png", b"x")))
    server.gives_ranges = False
    with pytest.raises(InputError, match="holds no tar with an image"):
        find_listed_images(f"{server.address}/s.tar")


def test_a_list_of_urls(folder: Path, server: ImageServer, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(
        f"{server.address}/photos/sub/deep/x.png\n\n{server.address}/photos/a%20b.png\n"
        f"{server.address}/photos/a b.png\n"
    )
    found = find_listed_images(tmp_path / "list.txt")
    assert str(found.root) == f"{server.address}/photos" and found.names == ("a b.png", "sub/deep/x.png")
    again = open_root(str(found.root), found.names)
    assert np.array_equal(read_image(again / "a b.png", MAX_PIXELS), read_image(folder / "a b.png", MAX_PIXELS))


def test_a_list_of_several_hosts(folder: Path, server: ImageServer, tmp_path: Path) -> None:
    other = ImageServer(folder)
    try:
        (tmp_path / "list.txt").write_text(f"{server.address}/photos/a%20b.png\n{other.address}/50%25.png\n")
        found = find_listed_images(tmp_path / "list.txt")
        assert len(found.names) == 2 and all(name.startswith("127.0.0.1:") for name in found.names)
        again = open_root(str(found.root), found.names)
        for name in found.names:
            expected = read_image(folder / name.rpartition("/")[2], MAX_PIXELS)
            assert np.array_equal(read_image(again / name, MAX_PIXELS), expected)
    finally:
        other.close()


HOSTILE_PAGE = b"""<html><a href="good.png">x</a> <a href='../up.png'>x</a> <a href="/photos/../../etc/evil.png">x</a>
<a href="http://192.0.2.1/elsewhere.png">x</a> <a href="//192.0.2.1/elsewhere.png">x</a> <a href="file:///etc/a.png">x</a>
<a href="%2e%2e/%2e%2e/evil.png">x</a> <a href="a%2f..%2f..%2fevil.png">x</a> <a href="good.png?token=secret">x</a>
<a href="nul%00.png">x</a> <a href="%ff.png">x</a> <a href="loop/">x</a> <a href="javascript:evil.png">x</a>
<a href="http://[broken/a.png">x</a> <a href="good.png/below.png">x</a> <a href=unquoted.png>x</a> <a>no</a>
<b href="b.png">
"""


def test_pages_of_strangers_lead_nowhere_else(server: ImageServer) -> None:
    server.pages = {
        "/page/": HOSTILE_PAGE,
        "/page/loop/": b'<a href="./">x</a><a href="../">x</a><a href="loop/">x</a>',
    }
    server.pages |= {"/page/loop/" + "loop/" * depth: server.pages["/page/loop/"] for depth in range(60)}
    found = find_listed_images(f"{server.address}/page")
    assert found.names == ("good.png", "unquoted.png")
    assert {(one.image, one.reason) for one in found.skipped} >= {
        ("../../evil.png", "unsafe name"),
        ("a/../../evil.png", "unsafe name"),
        ("nul\0.png", "unsafe name"),
        ("\\xff.png", "name is not valid UTF-8"),
        ("good.png/below.png", "unsafe name"),
    }
    assert "secret" not in str(found) and all("/page" in asked for asked in server.asked)


def test_keys_of_strangers_are_skipped(folder: Path) -> None:
    memory = fsspec.filesystem("memory")
    for key in ("good.png", "a//b.png", "x/../../evil.png", "good.png/c.png", "s.tar/d.png"):
        memory.store[f"/bucket/{key}"] = memory.open("/other", "wb")
    try:
        found = find_listed_images("memory://bucket")
        assert found.names == ("good.png",) and {one.reason for one in found.skipped} == {"unsafe name"}
        assert len(found.skipped) == 4
    finally:
        memory.store.clear()


def why(place) -> tuple[str, str]:
    with pytest.raises(UnreadableImage) as caught:
        read_image(place, MAX_PIXELS)
    return caught.value.reason, caught.value.detail


def test_a_passing_failure_is_waited_out(server: ImageServer) -> None:
    found = find_listed_images(f"{server.address}/photos")
    server.status["/photos/50%25.png"] = [503, 429]
    read_image(found.root / "50%.png", MAX_PIXELS)
    assert server.status["/photos/50%25.png"] == []


def test_what_fails_for_good_is_lost(server: ImageServer, folder: Path) -> None:
    found = find_listed_images(f"{server.address}/photos")
    server.status["/photos/50%25.png"] = [500] * 9
    assert why(found.root / "50%.png") == (LOST, "the server answers 500")
    assert len(server.status["/photos/50%25.png"]) == 6  # three attempts
    server.status["/photos/50%25.png"] = [403] * 9
    assert why(found.root / "50%.png") == (LOST, "access is denied")
    assert len(server.status["/photos/50%25.png"]) == 8
    (folder / "a b.png").unlink()
    assert why(found.root / "a b.png") == (LOST, "the file does not exist (any more)")
    server.cut_after["/photos/sub/deep/x.png"] = 100
    assert why(found.root / "sub/deep/x.png")[0] == LOST
    server.close()
    reason, detail = why(found.root / "semi;colon.png")
    assert reason == LOST and detail.startswith("the connection failed")


def test_after_many_failures_nobody_waits(server: ImageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_listed_images(f"{server.address}/photos")
    server.close()
    pauses: list[float] = []
    monkeypatch.setattr(remote_client.time, "sleep", pauses.append)
    for _ in range(20):
        assert why(found.root / "50%.png")[0] == LOST
    assert len(pauses) == 2 * remote_client._PATIENCE


@pytest.mark.parametrize("kind", ["web", "bucket"])
def test_no_more_than_the_pixels_can_have_is_fetched(kind: str, server: ImageServer, folder: Path) -> None:
    (folder / "big.png").write_bytes(bytes(2**23))
    fsspec.filesystem("memory").pipe("/bucket/photos/big.png", bytes(2**23))
    fsspec.filesystem("memory").pipe("/bucket/photos/empty.png", b"")
    root = open_root(f"{server.address}/photos" if kind == "web" else "memory://bucket/photos", ())
    for most in (1_000, 700_000):
        with pytest.raises(UnreadableImage, match="too large: 8388608 bytes"):
            read_image(root / "big.png", most)
    assert (root / "big.png").read_encoded(2**23) == bytes(2**23)
    if kind == "bucket":
        assert why(root / "empty.png") == ("empty file", "0 bytes")


def test_a_server_without_head_still_tells_states(server: ImageServer) -> None:
    server.answers_head = False
    found = find_listed_images(f"{server.address}/photos")
    assert all(stamp and stamp[0] for stamp in found.stamps.values())


def test_stamps_change_with_the_image(server: ImageServer, folder: Path) -> None:
    before = find_listed_images(f"{server.address}/photos").stamps
    assert find_listed_images(f"{server.address}/photos").stamps == before
    (folder / "50%.png").write_bytes(b"\x89PNG other")
    after = find_listed_images(f"{server.address}/photos").stamps
    assert [name for name in before if before[name] != after[name]] == ["50%.png"]


SECRET = "s3cr3t"


@pytest.mark.parametrize(
    "address",
    [
        f"https://user:{SECRET}@127.0.0.1/photos",
        f"s3://key:{SECRET}@bucket/photos",
        f"https://127.0.0.1/photos/a.jpg?X-Amz-Signature={SECRET}",
        f"https://127.0.0.1/photos?token={SECRET}",
        f"http://127.0.0.1?token={SECRET}",
        f"https://{SECRET}@127.0.0.1/shards-{{0..3}}.tar",
    ],
)
def test_addresses_with_secrets_are_refused_and_not_repeated(address: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"http://127.0.0.1/a.jpg\n{address}\n")
    for given in (address, str(tmp_path / "list.txt")):
        with pytest.raises(InputError) as caught:
            find_listed_images(given)
        told = str(caught.value)
        assert SECRET not in told and ("127.0.0.1" in told or "s3://bucket" in told)
    from fastcomus.config import Config
    from fastcomus.settings import with_settings

    with pytest.raises(InputError) as caught:
        with_settings(Config(), {"train": {"extend": address}})
    assert SECRET not in str(caught.value)


def test_what_a_server_says_of_tokens_is_not_repeated(server: ImageServer) -> None:
    root = open_root(f"{server.address}/photos", ())
    server.pages["/photos/a.png"] = b""
    for status in (400, 500):
        server.status["/photos/a.png"] = [status] * 3
        assert why(root / "a.png") == (LOST, f"the server answers {status}")


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9/x", "https://127.0.0.1/x.tar", "s3://bucket/x", "gs://bucket/x"]
)
def test_offline_forbids_all_of_it(address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FASTCOMUS_OFFLINE", "1")
    (tmp_path / "list.txt").write_text(address)
    for given in (address, tmp_path / "list.txt"):
        with pytest.raises(InputError, match="lies on the network, which FASTCOMUS_OFFLINE forbids"):
            find_listed_images(given)
    with pytest.raises(InputError, match="FASTCOMUS_OFFLINE forbids"):
        open_root(address, ("a.jpg",))


@pytest.mark.parametrize(("scheme", "package"), [("http", "aiohttp"), ("s3", "s3fs"), ("gs", "gcsfs")])
def test_a_missing_package_is_named(scheme: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    monkeypatch.setattr(remote_client, "_filesystems", {})
    with pytest.raises(InputError, match=rf"need {package}; run pip install fsspec {package}\."):
        find_listed_images(f"{scheme}://127.0.0.1/photos")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ftp://127.0.0.1/x", "images come from s3://, gs://, http:// and https://"),
        ("zip://a.png::http://127.0.0.1/x.zip", "images come from"),
        ("file:///etc", "images come from"),
        ("s3://", "names no bucket"),
        ("http:///x", "names no host"),
        ("memory://nothing/here", "cannot be listed"),
    ],
)
def test_other_addresses_get_one_sentence(address: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_listed_images(address)


def test_a_page_that_is_not_there_and_one_without_images(server: ImageServer) -> None:
    with pytest.raises(InputError, match=r"cannot be listed \(the file does not exist"):
        find_listed_images(f"{server.address}/absent")
    server.pages["/empty/"] = b"<html>nothing</html>"
    with pytest.raises(InputError, match="holds no image"):
        find_listed_images(f"{server.address}/empty")


def test_s3_and_google_cloud_are_opened_with_their_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real classes take the options that are given; nothing is asked for yet."""
    monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})  # else it looks for credentials at once
    monkeypatch.setattr(remote_client, "_filesystems", {})
    for scheme, package, name in (("s3", "s3fs", "S3FileSystem"), ("gs", "gcsfs", "GCSFileSystem")):
        remote_client.check_packages(f"{scheme}://bucket")
        files = remote_client._filesystems[scheme, os.getpid()]
        assert isinstance(files, getattr(__import__(package), name))
    s3 = remote_client._filesystems["s3", os.getpid()]
    assert s3.config_kwargs["connect_timeout"] == remote_client.CONNECT_SECONDS and s3.retries == 1
    assert remote_client._filesystems["gs", os.getpid()].requests_timeout == remote_client.REQUEST_SECONDS


def test_addresses_have_slashes_where_paths_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows."""
    memory = fsspec.filesystem("memory")
    for name in ("one/a.png", "two/b.png"):
        memory.pipe(f"/bucket/photos/{name}", b"x")
    monkeypatch.setattr(os, "path", ntpath)
    found = remote_images.find_addresses([f"memory://bucket/photos/{name}" for name in ("one/a.png", "two/b.png")], "l")
    monkeypatch.undo()
    memory.store.clear()
    assert str(found.root) == "memory://bucket/photos" and found.names == ("one/a.png", "two/b.png")
