"""The report in a real browser: it draws, names are saved, nothing comes from anywhere else, nothing goes wrong."""

from __future__ import annotations

import json
import shutil
import tomllib
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import browser
from conftest import TINY, Photographs

from fastcomus.clusters.files import read_names_file
from fastcomus.run.run import Run

pytest.importorskip("selenium", reason="selenium drives the browser (extra `dev`)")

LOCAL = ("file://", "data:", "blob:")
ODD = "it's \"<b>& 'é😀.png"
NAMES = {0: 'a "quoted" \\ name', 1: "<script>alert(1)</script>", 2: "Katze 😺 & co"}


@pytest.fixture(scope="module")
def run(photographs: Photographs, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of all stages on images of which some have odd names and one is broken, with scores and a report."""
    folder = tmp_path_factory.mktemp("report")
    shutil.copytree(photographs.images, folder / "images")
    shutil.copytree(photographs.truth, folder / "truth")
    for place in ("images", "truth"):
        (folder / place / "00.png").rename(folder / place / ODD)
    (folder / "images" / "<i>broken.png").write_bytes(b"no image")
    made = Run(folder / "run", preset="offline", settings={**TINY, "report": {"samples": 6}})
    made.run(folder / "images", folder / "truth")
    made.report()
    return made


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def opened(run: Run, downloads: Path) -> Iterator[Any]:
    """The page, opened from disk."""
    with browser(downloads) as driver:
        driver.get(run.folder.resolve_file("report/index.html").resolve().as_uri())
        yield driver


def wait(driver: Any, script: str) -> Any:
    """What `script` gives as soon as it is true."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, 60).until(lambda one: one.execute_script(f"return {script}"))


def show(driver: Any, selector: str) -> Any:
    """The element, moved into view."""
    element = driver.find_element("css selector", selector)
    driver.execute_script(
        "document.documentElement.style.scrollBehavior = 'auto'; arguments[0].scrollIntoView({block: 'center'})",
        element,
    )
    return element


def map_is_drawn(driver: Any) -> Any:
    element = show(driver, "#map")
    wait(driver, "document.getElementById('map').dataset.drawn === 'done'")
    return element


# Where the points of the map are on the screen, from Bokeh's own view of them.
POINTS = """
const view = [...fastcomus.views.map][0];
const plot = (function find(one) {
  if (one.frame && one.renderer_views) return one;
  for (const child of one.child_views ?? []) { const found = find(child); if (found) return found; }
})(view);
const glyphs = [...plot.renderer_views.values()].find((one) => one.glyph)
const box = plot.canvas_view.el.getBoundingClientRect();
const data = glyphs.model.data_source.data;
return [...data.x].map((x, i) => ({
  x: box.x + plot.frame.x_scale.compute(x), y: box.y + plot.frame.y_scale.compute(data.y[i]),
  cluster: data.cluster[i], image: data.image[i],
}));
"""


def point_at(driver: Any, point: dict[str, Any], press: bool = False) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    actions = ActionChains(driver)
    actions.w3c_actions.pointer_action.move_to_location(round(point["x"]) - 20, round(point["y"]))
    actions.w3c_actions.pointer_action.move_to_location(round(point["x"]), round(point["y"]))
    if press:
        actions.click()
    actions.perform()


# In what Bokeh shows: every text and picture, through its shadow roots.
TOOLTIP = """
const found = [];
(function walk(root) {
  for (const one of root.querySelectorAll("*")) {
    if (one.shadowRoot) walk(one.shadowRoot);
    if (one.classList?.contains("fastcomus-tooltip")) found.push(one);
  }
})(document);
return found.filter((one) => one.offsetParent !== null || one.getClientRects().length)
  .map((one) => ({ text: one.innerText, width: one.querySelector("img").naturalWidth }));
"""


def test_the_map_draws_and_shows_a_thumbnail_of_the_object_under_the_pointer(opened: Any) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    element = map_is_drawn(opened)
    points = opened.execute_script(POINTS)
    assert len(points) == 24 and {point["cluster"] for point in points} == {0, 1, 2}
    frame = element.rect
    assert frame["height"] > 300 and len({round(point["x"]) for point in points}) > 5
    odd = next(point for point in points if point["image"] == ODD)
    point_at(opened, odd)
    near = [one["image"] for one in points if abs(one["x"] - odd["x"]) + abs(one["y"] - odd["y"]) < 12]
    shown = WebDriverWait(opened, 20).until(  # one of those under the pointer
        lambda one: [tip for tip in one.execute_script(TOOLTIP) if tip["width"] and tip["text"].endswith(tuple(near))]
    )
    assert shown[0]["width"] == 112
    assert f"cluster {odd['cluster']}" in shown[0]["text"]


def test_a_click_on_the_map_leads_to_the_cluster(opened: Any) -> None:
    map_is_drawn(opened)
    point = opened.execute_script(POINTS)[5]
    point_at(opened, point, press=True)
    wait(opened, f"document.activeElement?.id === 'cluster-{point['cluster']}'")


def test_names_are_typed_and_saved(run: Run, opened: Any, downloads: Path) -> None:
    for cluster, name in NAMES.items():
        field = show(opened, f'[data-name="{cluster}"]')
        if cluster == 2:  # the driver can type no emoji beyond the basic plane
            opened.execute_script(
                "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))", field, name
            )
        else:
            field.send_keys(name)
    titles = "return [...document.querySelectorAll('.card h2')].map((one) => one.textContent)"
    assert opened.execute_script(titles) == list(NAMES.values())
    show(opened, "#save-names").click()
    saved = content_of(downloads / "names.toml", opened)
    assert saved == {"clusters": run.folder.read_manifest("clusters")["fingerprint"], "names": as_keys(NAMES)}  # type: ignore[index]


def as_keys(names: dict[int, str]) -> dict[str, str]:
    return {str(cluster): name for cluster, name in names.items()}


def content_of(file: Path, driver: Any) -> dict[str, Any]:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 20).until(lambda _: file.exists() and file.stat().st_size)  # empty while it is written
    content = tomllib.loads(file.read_text(encoding="utf-8"))
    file.unlink()
    return content


def test_the_saved_file_is_taken_over(run: Run, opened: Any, tmp_path: Path) -> None:
    """By `fastcomus name`, so that every command goes by it; the run's own folder stays without names."""
    file = tmp_path / "names.toml"
    file.write_text(opened.execute_script("return fastcomus.namesToml()"), encoding="utf-8")
    named = read_names_file(file, run.folder.read_manifest("clusters") or {})
    assert dict(named.given) == NAMES and named.classes == ("background", *NAMES.values())


def test_merging_and_dropping(opened: Any, downloads: Path) -> None:
    from selenium.webdriver.support.ui import Select

    opened.execute_script("document.querySelectorAll('.more').forEach((one) => { one.open = true })")
    select = show(opened, '[data-merge="1"]')
    select.click()
    Select(select).select_by_value("0")
    assert "One with #0" in opened.find_element("css selector", '[data-merged="1"]').text
    show(opened, '[data-drop="2"]').click()
    assert "1 dropped; not saved yet" in opened.find_element("id", "naming-state").text
    show(opened, "#save-names").click()
    assert content_of(downloads / "names.toml", opened)["names"] == {"0": NAMES[0], "1": NAMES[0], "2": "-"}


def test_an_unnamed_cluster_that_others_are_merged_with_gets_a_name(opened: Any) -> None:
    opened.execute_script(
        """for (const [selector, value] of [['[data-name="0"]', ""], ['[data-merge="1"]', "0"]]) {
             const field = document.querySelector(selector); field.value = value;
             field.dispatchEvent(new Event("input")); field.dispatchEvent(new Event("change")); }"""
    )
    names = tomllib.loads(opened.execute_script("return fastcomus.namesToml()"))["names"]
    assert names == {"0": "cluster 0", "1": "cluster 0", "2": "-"}


def test_every_character_survives_in_toml(opened: Any) -> None:
    text = "".join(map(chr, [*range(32, 0x7F), *range(0xA0, 0x100), 0x301, 0x200D, 0xFFFD, 0x1F63A]))
    opened.execute_script(
        """const field = document.querySelector('[data-name="0"]'); field.removeAttribute("maxlength");
           field.value = "x" + arguments[0] + "x"; field.dispatchEvent(new Event("input"))""",
        text,
    )
    names = tomllib.loads(opened.execute_script("return fastcomus.namesToml()"))["names"]
    assert names["0"] == unicodedata.normalize("NFC", f"x{text}x")
    odd = opened.execute_script(
        """const field = document.querySelector('[data-name="0"]'); field.value = " a\\ud83d\\u007f\\u2028b\\t";
           field.dispatchEvent(new Event("input")); return fastcomus.namesToml()"""
    )
    assert tomllib.loads(odd)["names"]["0"] == "a b"


def test_image_pages_show_masks_of_every_iteration_and_a_large_view(opened: Any) -> None:
    show(opened, "#pictures")
    wait(opened, "document.querySelectorAll('#pictures > li').length === 12")
    show(opened, "#page-after").click()
    wait(opened, "document.getElementById('page-state').textContent.startsWith('Page 2 of 2')")
    opened.find_element("id", "image-name").send_keys('"<B>')
    wait(opened, "document.querySelectorAll('#pictures > li').length === 1")
    assert opened.find_element("css selector", "#pictures h3").text == ODD
    masks = "[...document.querySelectorAll('#pictures .frame img')].every((one) => one.naturalWidth > 0)"
    wait(opened, masks)
    assert len(opened.find_elements("css selector", "#pictures .frame")) == 4
    opened.find_element("css selector", "#pictures .frame").click()
    slider = opened.find_element("id", "viewer-iteration")
    assert opened.find_element("id", "viewer-step").text == "photograph"
    slider.send_keys("\ue014")  # arrow right
    wait(opened, "document.getElementById('viewer-step').textContent === 'iteration 0'")
    assert len(opened.find_elements("css selector", "#viewer-stage img")) == 2
    slider.send_keys("\ue00c")  # escape
    wait(opened, "!document.getElementById('viewer').open")


def test_all_objects_in_pages_orders_and_by_example(opened: Any) -> None:
    """With a lasso around the map as well."""
    script = "[...document.querySelectorAll('#objects-list .object')].map((one) => Number(one.dataset.row))"
    show(opened, '[data-all="1"]').click()
    members = opened.execute_script("return fastcomus.objects.cluster.flatMap((own, i) => (own === 1 ? [i] : []))")
    assert sorted(opened.execute_script(f"return {script}")) == members
    distances = opened.execute_script(f"return {script}.map((row) => fastcomus.objects.distance[row])")
    assert distances[:6] == sorted(distances[:6])
    show(opened, "#objects-order").send_keys("unlike")
    unlike = opened.execute_script(f"return {script}.map((row) => fastcomus.objects.unlike[row])")
    assert unlike == sorted(unlike, reverse=True)
    opened.find_element("css selector", "#objects-order option[value=poor]").click()
    sound = opened.execute_script(f"return {script}.map((row) => fastcomus.objects.soundness[row])")
    assert sound == sorted(sound) and sound[0] < sound[-1]
    first = opened.find_element("css selector", "#objects-list .object")
    row = int(first.get_attribute("data-row"))
    first.click()
    wait(opened, "document.getElementById('objects-title').textContent.startsWith('Most like')")
    rows = opened.execute_script(f"return {script}")
    labels = opened.execute_script("return fastcomus.objects.cluster")
    assert rows[0] == row and len(rows) > 10 and all(labels[one] == labels[row] for one in rows[:5])
    wait(opened, "[...document.querySelectorAll('#objects-list img')].every((one) => one.naturalWidth === 112)")
    opened.execute_script("document.querySelector('#objects-list .object').focus()")
    opened.switch_to.active_element.send_keys("\ue014")  # arrow right
    assert int(opened.switch_to.active_element.get_attribute("data-row")) == rows[1]
    opened.switch_to.active_element.send_keys("\ue00c")  # escape
    assert not opened.find_element("id", "objects").is_displayed()
    show(opened, "#look-poor").click()
    sound = opened.execute_script(f"return {script}.map((row) => fastcomus.objects.soundness[row])")
    assert sound == sorted(sound) and len(sound) > 10
    opened.find_element("id", "objects-close").click()
    opened.execute_script("fastcomus.openObjects([3, 1, 2])")
    assert sorted(opened.execute_script(f"return {script}")) == [1, 2, 3]
    assert not opened.find_element("id", "objects-actions").is_displayed()  # nothing can be saved from disk
    opened.find_element("id", "objects-close").click()


def test_plots_are_drawn(opened: Any) -> None:
    for name in ("loss", "agreement", "sizes"):
        show(opened, f"#{name}")
        wait(opened, f"document.getElementById('{name}').dataset.drawn === 'done'")


def test_nothing_is_fetched_from_anywhere_and_nothing_goes_wrong(opened: Any) -> None:
    """After everything above."""
    fetched = opened.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert all(address.startswith(LOCAL) for address in fetched)
    asked = [
        message["params"]["request"]["url"]
        for entry in opened.get_log("performance")
        if (message := json.loads(entry["message"])["message"])["method"] == "Network.requestWillBeSent"
    ]
    assert len(asked) > 20 and all(address.startswith(LOCAL) for address in asked)
    assert not [entry for entry in opened.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def test_the_page_of_suggest_k_draws(run: Run, opened: Any) -> None:
    run.suggest_k(n_neighbors=6)
    opened.get(run.folder.resolve_file("suggest-k/index.html").resolve().as_uri())
    wait(opened, "Bokeh.documents.length === 3 && Bokeh.documents.every((one) => one.is_idle)")
    assert opened.find_element("id", "modularity").rect["height"] > 200
    assert not [entry for entry in opened.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def test_names_in_the_run_folder_show_up_on_a_narrow_screen(run: Run, opened: Any) -> None:
    fingerprint = (run.folder.read_manifest("clusters") or {})["fingerprint"]
    lines = [f"{cluster} = {json.dumps(name)}" for cluster, name in {**NAMES, 1: NAMES[0], 2: "-"}.items()]
    text = "\n".join([f'clusters = "{fingerprint}"', "[names]", *lines])
    run.folder.resolve_file("names.toml").write_text(text, encoding="utf-8")
    opened.set_window_size(500, 900)
    opened.execute_script("localStorage.clear()")
    opened.get(run.report().resolve().as_uri())
    values = opened.execute_script("return [...document.querySelectorAll('[data-name]')].map((one) => one.value)")
    assert values == [NAMES[0], NAMES[0], ""]
    assert opened.find_element("css selector", '[data-drop="2"]').is_selected()
    assert "2 of 3 clusters named, 1 dropped." in opened.find_element("id", "naming-state").text
    assert opened.execute_script("return innerWidth <= 500 && document.documentElement.scrollWidth <= innerWidth")
    assert not [entry for entry in opened.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
