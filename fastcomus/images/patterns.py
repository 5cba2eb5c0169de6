"""Patterns that stand for several files: {000..009} and {a,b} as in a shell, * and ? and [] as everywhere."""

from __future__ import annotations

import re

from fastcomus.errors import InputError

_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
_MOST = 1_000_000  # names of one pattern


def expand_braces(pattern: str) -> list[str]:
    """Expand `s-{08..10}.tar` to s-08.tar, s-09.tar and s-10.tar. Raises InputError for more than a million names."""
    done, waiting = [], [pattern]
    while waiting:
        one = waiting.pop()
        found = _BRACES.search(one)
        if found is None:
            done.append(one)
            continue
        choices = found[3].split(",") if found[3] is not None else _expand_range(found[1], found[2], pattern)
        if len(waiting) + len(done) + len(choices) > _MOST:
            raise _build_limit_error(pattern)
        waiting += [one[: found.start()] + choice + one[found.end() :] for choice in reversed(choices)]
    return list(dict.fromkeys(done))


def get_fixed_folder(pattern: str) -> str:
    """Return the deepest folder that all files of a pattern lie in: `a/b` of `a/b/s-*.tar` and of `a/b/{x,y}/z.tar`."""
    return re.split(r"[{*?\[]", pattern, maxsplit=1)[0].rpartition("/")[0]


def has_wildcard(pattern: str) -> bool:
    """Whether a pattern without braces stands for names that have to be looked up."""
    return any(sign in pattern for sign in "*?[")


def _expand_range(first: str, last: str, pattern: str) -> list[str]:
    """Return the numbers from one to the other, zero-padded if one of them begins with 0."""
    if abs(int(last) - int(first)) >= _MOST:
        raise _build_limit_error(pattern)
    is_padded = any(len(end) > 1 and end[0] == "0" for end in (first, last))
    width = max(len(first), len(last)) if is_padded else 0
    low, high = sorted((int(first), int(last)))
    return [f"{number:0{width}d}" for number in range(low, high + 1)]


def _build_limit_error(pattern: str) -> InputError:
    return InputError(f"{pattern} stands for more than {_MOST} files; give a narrower pattern.")
