"""JSON files with a digest that shows when they were changed, and fingerprints."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from fastcomus.errors import InputError, get_first_line
from fastcomus.store.integrity import Damaged, unseal_json


def compute_fingerprint(**facts: Any) -> str:
    """Return the SHA-256 (hex) of facts that JSON can hold; equal facts give the same on every machine."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def read_json(file: Path, mending: str = "delete it and run the stage that made it again") -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Args:
        file: The file.
        mending: What an error tells the user to do.

    Raises:
        InputError: The file cannot be read, or holds no JSON object.
    """
    try:
        value = json.loads(file.read_bytes().decode("utf-8", errors="surrogateescape"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read ({get_first_line(error)}); {mending}.") from error
    if not isinstance(value, dict):
        raise InputError(f"{file} does not hold a JSON object; {mending}.")
    return value


def read_sealed(file: Path, mending: str = "delete it and run the stage that made it again") -> dict[str, Any]:
    """Read the object in a sealed JSON file (`integrity.seal_json`); arguments and errors as for `read_json`."""
    return unseal(file, read_json(file, mending), mending)


def unseal(file: Path, value: dict[str, Any], mending: str) -> dict[str, Any]:
    """Return `value`, read from `file`, without its seal; InputError, ending with `mending`, if that is wrong."""
    try:
        return unseal_json(value)
    except Damaged as error:
        raise InputError(f"{file} cannot be used ({error}); {mending}.") from error
