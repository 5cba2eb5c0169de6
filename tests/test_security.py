"""What docs/security.md promises, as far as reading the source can show it."""

from __future__ import annotations

import ast
import socket
from collections.abc import Iterator

import pytest
from places import PACKAGE

FORBIDDEN_CALLS = {
    "eval", "exec", "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads", "shelve.open",
    "dill.load", "joblib.load", "yaml.load", "os.system", "os.popen", "torch.hub.load", "pandas.read_pickle",
}  # fmt: skip


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Every call of the package: where, the dotted name, the call."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield f"{file.relative_to(PACKAGE)}:{node.lineno}", ast.unparse(node.func), node


def value_of(call: ast.Call, name: str) -> object:
    """The constant given as keyword `name`; None where there is none."""
    found = [keyword.value for keyword in call.keywords if keyword.arg == name]
    return found[0].value if found and isinstance(found[0], ast.Constant) else None


def test_nothing_is_executed_that_a_file_holds() -> None:
    seen = list(calls())
    assert len(seen) > 1000  # the package was found
    assert not [(place, name) for place, name, _ in seen if name in FORBIDDEN_CALLS]
    assert not [
        place for place, name, call in seen if name == "torch.load" and value_of(call, "weights_only") is not True
    ]
    assert not [place for place, _, call in seen if value_of(call, "shell")]


def test_arrays_are_read_without_pickle() -> None:
    """np.load's own default forbids it; whoever says otherwise is found."""
    assert not [place for place, _, call in calls() if value_of(call, "allow_pickle")]


def test_the_suite_cannot_reach_the_network() -> None:
    with socket.socket() as connection, pytest.raises(AssertionError, match="reached for the network"):
        connection.connect(("192.0.2.1", 80))  # an address that is nobody's, RFC 5737


def test_this_machine_can_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
