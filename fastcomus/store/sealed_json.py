"""JSON files with a seal that tells when they were changed, and fingerprints."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from fastcomus.errors import InputError, get_first_line
from fastcomus.store.integrity import Damaged, unseal_json


def compute_fingerprint(**facts: Any) -> str:
    """SHA-256 (hex) of JSON-able facts; the same facts give the same string on every machine."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def read_json(file: Path, mending: str = "delete it and run the stage that made it again") -> dict[str, Any]:
    """The object in a JSON file; InputError, which ends with `mending`, when it is not one."""
    try:
        value = json.loads(file.read_bytes().decode("utf-8", errors="surrogateescape"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read ({get_first_line(error)}); {mending}.") from error
    if not isinstance(value, dict):
        raise InputError(f"{file} does not hold a JSON object; {mending}.")
    return value


def read_sealed(file: Path, mending: str = "delete it and run the stage that made it again") -> dict[str, Any]:
    """The object in a sealed JSON file (`integrity.seal_json`); InputError where it is damaged."""
    return _unseal(file, read_json(file, mending), mending)


def _unseal(file: Path, value: dict[str, Any], mending: str) -> dict[str, Any]:
    try:
        return unseal_json(value)
    except Damaged as error:
        raise InputError(f"{file} cannot be used ({error}); {mending}.") from error
