"""Images behind URLs: a folder, one image, tars, or a list of addresses."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from fastcomus.errors import InputError, escape_invalid_utf8
from fastcomus.images import remote_client, remote_files
from fastcomus.images.addresses import find_path_below, join_address, normalise_url, parse_scheme
from fastcomus.images.formats import NO_DECODER, explain_no_decoder, has_image_ending
from fastcomus.images.found import ImageList, Skipped, UnreadableImage
from fastcomus.images.names import UNSAFE, select_safe_names
from fastcomus.images.patterns import expand_braces, get_fixed_folder, has_wildcard
from fastcomus.images.roots import StoredImage, StoredImages
from fastcomus.images.tar_shards import TarShards, find_in_shards, is_tar, split_name

_ASKED_AT_ONCE = 16


@dataclass(frozen=True)
class RemoteFolder(StoredImages):
    """Images below a URL in the form of `addresses.normalise_url`; below "https://" alone where hosts differ."""

    address: str

    def __truediv__(self, name: str) -> StoredImage:
        return _RemoteImage(join_address(self.address, name))

    def __str__(self) -> str:
        return self.address


@dataclass(frozen=True)
class _RemoteImage(StoredImage):
    url: str

    def read_encoded(self, most_bytes: int) -> bytes:
        return remote_files.fetch_content(self.url, most_bytes)

    def __str__(self) -> str:
        return self.url


def find_remote_images(given: str) -> ImageList:
    """List the images of a URL.

    Args:
        given: The address of a folder, an image, a tar, or of tars by a pattern.

    Raises:
        InputError: There are none, they cannot be reached, or the address is not accepted.
    """
    url = normalise_url(given)
    remote_client.check_packages(url)
    last = PurePosixPath(url).name
    if is_tar(last):
        return _find_in_remote_tars(url)
    if has_image_ending(last):
        folder = url.rpartition("/")[0]
        return _make_image_list(folder, {find_path_below(url, folder): None}, url)
    found = remote_files.list_remote_files(url)
    images = {name: state for name, state in found.items() if has_image_ending(name.rpartition("/")[2])}
    folder = url.rpartition("/")[0] if last.lower().endswith((".html", ".htm")) else url
    if not images and (tars := [name for name in found if is_tar(name)]):
        return find_in_shards(folder, folder, tars)
    others = [
        Skipped(escape_invalid_utf8(name), NO_DECODER, why) for name in found if (why := explain_no_decoder(name))
    ]
    return _make_image_list(folder, images, url, others)


def find_addresses(urls: Sequence[str], shown: str) -> ImageList:
    """List images, or tars, by their URLs.

    Args:
        urls: Addresses, all of one scheme. The folder that they share becomes the root.
        shown: What an error calls the list.

    Raises:
        InputError: There is no image, or an address is not accepted.
    """
    checked = sorted({normalise_url(url) for url in urls})
    remote_client.check_packages(checked[0])
    kinds = sorted({parse_scheme(url) for url in checked})
    if len(kinds) > 1:
        raise InputError(f"{shown} has addresses of {' and '.join(kinds)}; give a list of each.")
    start = f"{kinds[0]}://"
    folder = posixpath.commonpath([url[len(start) :].rpartition("/")[0] for url in checked])
    root = f"{start}{folder}"
    names = [find_path_below(url, root) for url in checked]
    if all(is_tar(name) for name in names):
        return find_in_shards(root, root, names)
    return _make_image_list(root, dict.fromkeys(names), shown)


def open_remote_root(address: str, names: Sequence[str]) -> StoredImages:
    """Return the root of an earlier list of `find_remote_images` or `find_addresses`; see `listing.open_root`."""
    url = normalise_url(join_address(address, names[0]) if address.endswith("://") and names else address)
    url = address if address.endswith("://") else url
    remote_client.check_packages(url)
    if names and split_name(names[0])[0]:
        return TarShards(url, get_fixed_folder(url) if is_tar(url) else url)
    if has_image_ending(PurePosixPath(url).name) and len(names) == 1:
        return RemoteFolder(url.rpartition("/")[0])
    return RemoteFolder(url)


def _make_image_list(
    folder: str, found: Mapping[str, remote_client.State | None], shown: str, others: Sequence[Skipped] = ()
) -> ImageList:
    names, skipped = select_safe_names(sorted(found))
    skipped += others
    packed = [name for name in names if split_name(name)[0]]
    skipped += [Skipped(escape_invalid_utf8(name), UNSAFE, "a folder called like a tar") for name in packed]
    names = [name for name in names if not split_name(name)[0]]
    if not names:
        left_out = f"; {len(skipped)} left out, such as {skipped[0].image} ({skipped[0].reason})" if skipped else ""
        raise InputError(
            f"{escape_invalid_utf8(shown)} holds no image{left_out}; give a folder, an image, a tar or a list of URLs."
        )
    unknown = [name for name in names if found[name] is None]
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        states = dict(
            zip(unknown, pool.map(lambda name: _try_fetch_state(join_address(folder, name)), unknown), strict=True)
        )
    stamps: dict[str, Any] = {name: _make_stamp(found[name] or states.get(name)) for name in names}
    return ImageList(RemoteFolder(folder), tuple(names), tuple(sorted(skipped, key=lambda one: one.image)), stamps)


def _try_fetch_state(url: str) -> remote_client.State | None:
    """Return None if the state is not to be had: reading the image will say why."""
    try:
        return remote_files.fetch_state(url)
    except UnreadableImage:
        return None


def _make_stamp(state: remote_client.State | None) -> list[Any] | None:
    return None if state is None else list(state)


def _find_in_remote_tars(url: str) -> ImageList:
    folder, patterns = get_fixed_folder(url), expand_braces(url)
    shards = [find_path_below(one, folder) for one in patterns if not has_wildcard(one)]
    if wild := [one for one in patterns if has_wildcard(one)]:
        from fsspec.utils import glob_translate

        wanted = [re.compile(glob_translate(one[len(folder) + 1 :])) for one in wild]
        there = [name for name in remote_files.list_remote_files(folder) if is_tar(name)]
        shards += [name for name in there if any(one.fullmatch(name) for one in wanted)]
    return find_in_shards(url, folder, shards)
