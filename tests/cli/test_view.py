"""What the server of `fastcomus view` gives, saves and refuses."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from conftest import tree_bytes

from fastcomus import InputError, Run
from fastcomus.clusters.files import read_corrected_manifest
from fastcomus.store.run_folder import RunFolder

pytest.importorskip("uvicorn", reason="uvicorn serves the page (extra `app`)")


class Page:
    """Asks a server as the page does; `run` is the run that it shows."""

    def __init__(self, run: Run, address: str) -> None:
        self.run, self.parts = run, urlsplit(address)
        self.clusters = (run.folder.read_manifest("clusters") or {})["fingerprint"]

    def ask(self, name: str, body: Any = None, **headers: str | None) -> tuple[int, Any]:
        connection = HTTPConnection(self.parts.hostname or "", self.parts.port or 0, timeout=60)
        own = {"Origin": f"http://{self.parts.netloc}", "Content-Type": "application/json"} if body is not None else {}
        sent = {key: value for key, value in {**own, **headers}.items() if value is not None}
        path = name if name.startswith("/") else f"{self.parts.path}{name}"
        content = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, content, sent)
        reply = connection.getresponse()
        text = reply.read()
        connection.close()
        return reply.status, json.loads(text) if reply.headers.get_content_type() == "application/json" else text

    def save(self, **wanted: Any) -> tuple[int, Any]:
        return self.ask("api/save", {"clusters": self.clusters, **wanted})


@pytest.fixture
def run_copy(reported_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(reported_run, tmp_path / "run"))


@pytest.fixture
def page(run_copy: Path) -> Iterator[Page]:
    from fastcomus.cli.view.server import prepare_view

    run = Run(run_copy, device="cpu")
    view = prepare_view(run, 0, ["--run", str(run_copy), "--device", "cpu"])
    thread = threading.Thread(target=view.serve)
    thread.start()
    try:
        yield Page(run, view.address)
    finally:
        view.server.should_exit = True
        thread.join()


def test_names_and_corrections_are_saved_and_undone(page: Page) -> None:
    _, state = page.ask("api/state")
    assert len(state["cluster"]) == 24 and state["names"] == {} and not state["undo"]
    before = tree_bytes(page.run.folder.path / "clusters"), tree_bytes(page.run.folder.path / "iteration-0/masks")
    name = 'it\'s "odd" <b>[x] 😺'
    steps = [
        {"do": "name", "names": {"1": name, "2": name}},
        {"do": "move", "objects": [0, 1], "to": "new"},
        {"do": "name", "names": {"3": "own", "2": None}},
        {"do": "move", "objects": [5], "to": "-"},
        {"do": "move", "objects": [1], "to": "found"},
    ]
    states = [state]
    for step in steps:
        code, told = page.save(**step)
        assert code == 200, told
        states.append(told)
    assert states[-1]["names"] == {"1": name, "3": "own"} and states[-1]["labels"][3] == "own"
    assert states[-1]["cluster"][0] == 3 and states[-1]["cluster"][5] == -1 and states[-1]["corrected"] == [0, 5]
    assert dict(Run(page.run.folder.path).name().given) == {1: name, 3: "own"}
    for earlier in reversed(states[:-1]):
        code, told = page.save(do="undo")
        assert code == 200 and {**told, "version": ""} == {**earlier, "version": ""}
    after = tree_bytes(page.run.folder.path / "clusters"), tree_bytes(page.run.folder.path / "iteration-0/masks")
    assert after[1] == before[1] and after[0]["clusters.parquet"] == before[0]["clusters.parquet"]
    assert page.save(do="undo") == (409, {"error": "there is nothing to undo."})


def test_pages_pictures_and_the_likest_objects(page: Page) -> None:
    code, text = page.ask("report/index.html")
    assert code == 200 and b"3 clusters in" in text
    code, near = page.ask("api/nearest/4")
    assert near[0] == 4 and len(set(near)) == 24
    labels = page.ask("api/state")[1]["cluster"]
    assert all(labels[row] == labels[4] for row in near[:6])
    code, alike = page.ask("api/alike", {"objects": near[:2]})
    assert code == 200 and {labels[row] for row in alike} <= {labels[4]} and not {*near[:2]} & {*alike}
    for wrong, sentence in (({"objects": 3}, "a list of rows"), ({"objects": [24]}, "there is no object 24"), ({}, "")):
        code, told = page.ask("api/alike", wrong)
        assert code == 409 and sentence in told["error"]
    assert page.ask("api/alike", {"objects": [1]}, origin="http://evil.example")[0] == 403
    given = page.ask("thumbnail/3")
    shutil.rmtree(page.run.folder.path / "report/thumbnails")
    assert page.ask("thumbnail/3") == given and given[1][:2] == b"\xff\xd8"  # made anew, the same
    assert page.ask("thumbnail/24")[0] == 404 and page.ask("report/../../run.json")[0] == 404
    assert page.ask("report/%2e%2e/run.json")[0] == 404


def test_only_the_page_itself_may_ask(page: Page) -> None:
    move = {"clusters": page.clusters, "do": "move", "objects": [0], "to": "-"}
    host = page.parts.netloc
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": None},
        {"Origin": f"https://{host}"},
        {"Host": "evil.example"},
        {"Host": f"evil.example:{page.parts.port}"},
        {"Content-Type": "text/plain"},  # which a form of another page may send
    ):
        assert page.ask("api/save", move, **headers)[0] in (403, 421), headers
    for path in ("/", "/api/state", "/wrong-token/api/state", f"/{page.parts.path[1:-2]}/api/state"):
        assert page.ask(path)[0] == 404
    assert page.ask("api/state", Host="evil.example")[0] == 421
    assert page.ask("api/state", Origin="http://evil.example")[0] == 403
    assert not len(page.run.correct())


def test_bad_saves_are_refused_with_a_sentence(page: Page, run_copy: Path) -> None:
    before = tree_bytes(run_copy)
    for wanted, told in (
        ({"do": "move", "objects": [99], "to": 0}, "there is no object 99"),
        ({"do": "move", "objects": [0], "to": "nowhere"}, "there is no cluster 'nowhere'"),
        ({"do": "move", "objects": "all", "to": 0}, "a list of rows"),
        ({"do": "name", "names": {"7": "cat"}}, "there is no cluster 7"),
        ({"do": "name", "names": {"0": "a\nb"}}, "cannot be shown"),
        ({"do": "name", "names": {"x": "b"}}, "the number of the cluster"),
        ({"do": "name", "names": {"0": "-", "1": "-", "2": "-"}}, "all 3 clusters are dropped"),
        ({"do": "away"}, "nothing called 'away'"),
    ):
        code, reply = page.save(**wanted)
        assert code == 409 and told in reply["error"], reply
    assert page.ask("api/save", [1])[0] == 400
    with RunFolder(run_copy).writer.hold():
        code, reply = page.save(do="move", objects=[0], to="-")
        assert code == 409 and "in use by process" in reply["error"]
    assert tree_bytes(run_copy) == before


def test_names_are_saved_while_another_process_trains(page: Page, run_copy: Path) -> None:
    writer = RunFolder(run_copy).writer
    with writer.hold(), writer.release_names():
        code, reply = page.save(do="name", names={"0": "cat"})
        assert code == 200 and reply["names"] == {"0": "cat"}
        assert page.save(do="move", objects=[0], to="-")[0] == 409
    assert page.run.name().get_name(0) == "cat"


def test_a_page_left_open_over_new_clusters_overwrites_nothing(page: Page, run_copy: Path) -> None:
    Run(run_copy).cluster(k=2)
    before = tree_bytes(run_copy)
    code, reply = page.save(do="name", names={"0": "cat"})
    assert code == 409 and reply["outdated"] and "other clusters were made" in reply["error"]
    assert tree_bytes(run_copy) == before
    assert page.ask("api/version")[1]["clusters"] != page.clusters
    code, text = page.ask("report/index.html")  # opened again it shows the new ones
    assert code == 200 and b"2 clusters in" in text
    (run_copy / "clusters").rename(run_copy / "gone")  # deleted while it is viewed
    code, reply = page.save(do="undo")
    assert code == 409 and "there are no clusters" in reply["error"]
    shutil.rmtree(run_copy)
    for code, reply in (page.save(do="undo"), page.ask("api/version"), page.ask("api/state")):
        assert code == 409 and "there is no run folder" in reply["error"]
    code, text = page.ask("report/index.html")
    assert code == 409 and b"there is no run folder" in text
    assert not run_copy.exists()  # nothing was written into what is gone


def test_a_save_that_is_killed_leaves_the_old_or_the_new(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the n-th file is put in its place; the next save is none the worse."""
    replace, wanted = Path.replace, {"do": "move", "objects": [0, 1], "to": "new"}
    for moment in range(20):
        left = iter(range(moment))

        def stop(source: Path, target: Path, left: Iterator[int] = left) -> Path:
            if next(left, None) is None and source.name.endswith(".unfinished"):
                raise KeyboardInterrupt
            return replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", stop)
            try:
                page.run.correct(wanted["objects"], wanted["to"])  # type: ignore[arg-type]
            except KeyboardInterrupt:
                pass
            else:
                break
        assert len(Run(page.run.folder.path).correct()) in (0, 2)
        assert (read_corrected_manifest(page.run.folder) or {})["k"] in (3, 4)
        if len(page.run.correct()):
            page.run.correct(undo=True)
        assert page.ask("api/state")[0] == 200
    assert moment > 2
    assert page.ask("api/state")[1]["cluster"][:2] == [3, 3]


def test_training_is_started_watched_and_ends(page: Page) -> None:
    """Of a run that is trained already: that it learns corrections is shown where `train` is tested."""
    code, state = page.save(do="train")
    assert code == 200 and state["training"]["state"] == "running"
    assert "training runs already" in page.save(do="train")[1]["error"]
    end = time.monotonic() + 600
    while (told := page.ask("api/version")[1]["training"])["state"] == "running" and time.monotonic() < end:
        time.sleep(0.2)
    assert told["state"] == "done" and "iteration-2: up to date" in " ".join(told["lines"]), told


def test_a_port_that_is_taken_and_a_run_without_clusters(run_copy: Path, tmp_path: Path) -> None:
    from fastcomus.cli.view.server import open_socket, prepare_view

    taken = open_socket(0)
    taken.listen()
    with pytest.raises(InputError, match=r"port \d+ of this machine cannot be used .*leave --port out"):
        open_socket(taken.getsockname()[1])
    taken.close()
    with pytest.raises(InputError, match="port 70000"):
        open_socket(70000)
    with pytest.raises(InputError, match="there is no run folder"):
        prepare_view(Run(tmp_path / "none", preset="offline"), 0, [])
