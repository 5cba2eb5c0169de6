"""`fastcomus view` as a person uses it, in a real browser, with two pages open at once."""

from __future__ import annotations

import json
import shutil
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
def run_copy(reported_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(reported_run, tmp_path / "run"))


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browser(tmp_path_factory.mktemp("downloads")) as one:
        yield one


@pytest.fixture
def shown(run_copy: Path, driver: Any) -> Iterator[tuple[Run, Any, str]]:
    """A run, a browser with its page, and the address."""
    from fastcomus.cli.view.server import prepare_view

    run = Run(run_copy, device="cpu")
    view = prepare_view(run, 0, [])
    thread = threading.Thread(target=view.serve)
    thread.start()
    try:
        driver.get(view.address)
        wait(driver, "document.body.dataset.live === 'yes'")
        yield run, driver, view.address
    finally:
        for other in driver.window_handles[1:]:
            driver.switch_to.window(other)
            driver.close()
        driver.switch_to.window(driver.window_handles[0])
        driver.get("about:blank")
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


def choose_target(driver: Any, cluster: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(driver.find_element("id", "objects-to")).select_by_value(cluster)


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
    choose_target(driver, "new")
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


def test_what_is_like_the_chosen_ones_is_moved_with_them(shown: tuple[Run, Any, str]) -> None:
    run, driver, _ = shown
    click(driver, '[data-all="0"]')
    wait(driver, "document.querySelectorAll('#objects-list input').length > 3")
    boxes = driver.find_elements("css selector", "#objects-list input")
    rows = [int(box.get_attribute("data-choose")) for box in boxes]
    for box in boxes[:2]:
        box.click()
    click(driver, "#objects-alike")
    wait(driver, "document.getElementById('objects-title').textContent === 'Like the chosen ones'")
    script = "return [...document.querySelectorAll('#objects-list input')].map((one) => +one.dataset.choose)"
    listed = driver.execute_script(script)
    assert listed[:2] == rows[:2] and set(listed) <= set(rows)
    assert driver.find_element("id", "objects-chosen").text == f"{len(listed)} chosen"
    driver.find_elements("css selector", "#objects-list input")[1].click()  # not this one
    choose_target(driver, "new")
    click(driver, "#objects-move")
    wait(driver, "document.getElementById('cluster-3') !== null")
    moved = {row["object"] for row in run.correct().to_pylist()}
    assert moved == {*listed} - {listed[1]}


# Where the points of the map are on the screen, from Bokeh's own view of them.
POINTS = """
const plot = (function find(one) {
  if (one.frame && one.renderer_views) return one;
  for (const child of one.child_views ?? []) { const found = find(child); if (found) return found; }
})([...fastcomus.views.map][0]);
const { data } = [...plot.renderer_views.values()].find((one) => one.glyph).model.data_source;
const box = plot.canvas_view.el.getBoundingClientRect();
return [...data.x].map((x, i) => ({
  x: box.x + plot.frame.x_scale.compute(x), y: box.y + plot.frame.y_scale.compute(data.y[i]),
  row: data.row[i], colour: data.colour[i],
}));
"""


def draw_lasso(driver: Any, points: list[dict[str, Any]]) -> None:
    """Around points, after a click on the tool above the map."""
    from selenium.webdriver.common.action_chains import ActionChains

    tool = driver.execute_script(
        """return (function find(root) {
             for (const one of root.querySelectorAll("*")) {
               const found = one.title === "Lasso Select" ? one : one.shadowRoot && find(one.shadowRoot);
               if (found) return found;
             }
           })(document)"""
    )
    ActionChains(driver).click(tool).perform()
    left, right = min(one["x"] for one in points) - 4, max(one["x"] for one in points) + 4
    top, bottom = min(one["y"] for one in points) - 4, max(one["y"] for one in points) + 4
    actions = ActionChains(driver)
    pointer = actions.w3c_actions.pointer_action
    pointer.move_to_location(round(left), round(top))
    pointer.pointer_down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top + 1)):
        pointer.move_to_location(round(x), round(y))
    pointer.pointer_up()
    actions.perform()


def test_objects_are_moved_by_a_lasso_on_the_map(shown: tuple[Run, Any, str], run_copy: Path) -> None:
    """The map follows; then the run is deleted while it is viewed."""
    run, driver, _ = shown
    driver.execute_script(
        """document.documentElement.style.scrollBehavior = "auto";
           document.getElementById("map").scrollIntoView({ block: "center" })"""
    )
    wait(driver, "document.getElementById('map').dataset.drawn === 'done'")
    points = driver.execute_script(POINTS)
    some = sorted(points, key=lambda one: one["x"])[:5]
    inside = sorted(
        one["row"]
        for one in points
        if all(min(p[side] for p in some) - 4 < one[side] < max(p[side] for p in some) + 4 for side in "xy")
    )
    draw_lasso(driver, some)
    wait(driver, "document.getElementById('objects').open")
    script = "return [...document.querySelectorAll('#objects-list .object')].map((one) => +one.dataset.row)"
    assert sorted(driver.execute_script(script)) == inside and len(inside) >= 5
    assert not driver.find_element("id", "objects-move").is_displayed()  # before anything is chosen
    driver.find_element("id", "objects-all").click()
    assert not driver.find_element("id", "objects-move").is_enabled()  # before a cluster is
    choose_target(driver, "new")
    driver.find_element("id", "objects-move").click()
    wait(driver, SAVED)
    assert sorted(row["object"] for row in run.correct().to_pylist()) == inside
    colours = driver.execute_script("return fastcomus.live.state.colours")
    moved = {one["row"]: one["colour"] for one in driver.execute_script(POINTS)}
    assert {moved[row] for row in inside} == {colours[3]} and set(moved.values()) <= set(colours)

    shutil.rmtree(run_copy)
    wait(driver, "document.getElementById('news-text').textContent.includes('there is no run folder')")
    assert not run_copy.exists()


def test_a_page_over_new_clusters_is_told_and_saves_nothing(shown: tuple[Run, Any, str], run_copy: Path) -> None:
    run, driver, _ = shown
    Run(run_copy).cluster(k=2)
    type_name(driver, 0, "cat")
    wait(driver, "document.getElementById('news-text').textContent.includes('ther clusters were made')")
    assert not run.name().given
    driver.find_element("id", "news-show").click()
    wait(driver, "document.body?.dataset.live === 'yes' && fastcomus.run.clusters === 2")
    type_name(driver, 0, "cat")
    wait(driver, SAVED)
    assert dict(run.name().given) == {0: "cat"}
    driver.set_window_size(500, 900)
    assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
