"""`fastcomus view` as a person uses it, in a real browser, with two pages open at once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import browser

from fastcomus import Run

pytest.importorskip("selenium", reason="selenium drives the browser (extra `dev`)")
pytest.importorskip("uvicorn", reason="uvicorn serves the page (extra `app`)")

NAME = 'it\'s "odd" <b>[x] 😺'


@pytest.fixture
def shown(run_copy: Path, tmp_path: Path) -> Iterator[tuple[Run, Any, str]]:
    """A run, a browser with its page, and the address."""
    from fastcomus.cli.view.server import prepare_view

    run = Run(run_copy, device="cpu")
    view = prepare_view(run, 0, [])
    thread = threading.Thread(target=view.serve)
    thread.start()
    try:
        with browser(tmp_path) as driver:
            driver.get(view.address)
            wait(driver, "document.body.dataset.live === 'yes'")
            yield run, driver, view.address
    finally:
        view.server.should_exit = True
        thread.join()


def wait(driver: Any, script: str) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, 60).until(lambda one: one.execute_script(f"return {script}"))


def click(driver: Any, selector: str) -> None:
    driver.execute_script("arguments[0].click()", driver.find_element("css selector", selector))


SAVED = "document.getElementById('live-saved').textContent === 'Saved.'"


def type_name(driver: Any, cluster: int, name: str) -> None:
    field = driver.find_element("css selector", f'[data-name="{cluster}"]')
    driver.execute_script(  # the driver can type no emoji
        """const [field, name] = arguments; field.value = name;
           for (const one of ["input", "change"]) field.dispatchEvent(new Event(one))""",
        field,
        name,
    )


def test_names_and_moved_objects_are_saved_and_another_page_follows(shown: tuple[Run, Any, str]) -> None:
    run, driver, address = shown
    first = driver.current_window_handle
    driver.switch_to.new_window("tab")
    driver.get(address)
    wait(driver, "document.body.dataset.live === 'yes'")
    second = driver.current_window_handle
    driver.switch_to.window(first)
    type_name(driver, 1, NAME)
    wait(driver, SAVED)
    assert dict(run.name().given) == {1: NAME}

    click(driver, '[data-all="0"]')
    wait(driver, "document.querySelectorAll('#objects-list input').length > 3")
    rows = driver.execute_script(
        "return [...document.querySelectorAll('#objects-list .object')].map((one) => +one.dataset.row)"
    )
    boxes = driver.find_elements("css selector", "#objects-list input")
    boxes[0].click()
    driver.execute_script(
        "arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true, shiftKey: true}))", boxes[2]
    )
    assert driver.find_element("id", "objects-chosen").text == "3 chosen"
    driver.execute_script("document.getElementById('objects-to').value = 'new'")
    click(driver, "#objects-move")
    wait(driver, "document.getElementById('cluster-3') !== null")
    assert {(row["object"], row["cluster"]) for row in run.correct().to_pylist()} == {(row, 3) for row in rows[:3]}
    wait(driver, f"!document.querySelector('#objects-list [data-row=\"{rows[0]}\"]')")  # it is no longer listed here
    driver.execute_script("document.querySelector('#objects-list .object').focus()")
    driver.switch_to.active_element.send_keys("x")  # by the keyboard
    click(driver, "#objects-none")
    wait(driver, f"fastcomus.objects.cluster[{rows[3]}] === -1")
    click(driver, "#objects-close")
    type_name(driver, 3, "own")
    wait(driver, "fastcomus.live.state.names[3] === 'own'")

    driver.switch_to.window(second)
    wait(driver, f"fastcomus.objects.cluster[{rows[0]}] === 3 && fastcomus.live.state.names[3] === 'own'")
    titles = driver.execute_script("return [...document.querySelectorAll('.card h2')].map((one) => one.textContent)")
    assert titles == ["cluster 0", NAME, "cluster 2", "own"]
    wait(driver, "[...document.querySelectorAll('#cluster-3 img')].length === 3")
    for _ in range(4):
        click(driver, "#live-undo")
        wait(driver, SAVED)
    wait(driver, "document.getElementById('live-undo').disabled && !document.getElementById('cluster-3')")
    assert not run.name().given and not len(run.correct())
    errors = [entry for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert not errors
    asked = [
        message["params"]["request"]["url"]
        for entry in driver.get_log("performance")
        if (message := json.loads(entry["message"])["message"])["method"] == "Network.requestWillBeSent"
    ]
    assert asked and all(url.startswith((address.rpartition("/")[0], "data:", "blob:")) for url in asked)


def test_a_page_over_new_clusters_is_told_and_saves_nothing(shown: tuple[Run, Any, str], run_copy: Path) -> None:
    run, driver, _ = shown
    Run(run_copy).cluster(k=2)
    type_name(driver, 0, "cat")
    wait(driver, "document.getElementById('news-text').textContent.includes('ther clusters were made')")
    assert not run.name().given
    driver.set_window_size(500, 900)
    assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
