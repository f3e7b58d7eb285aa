"""The page about training in a real browser."""

import json

import pytest
from browser import complaints, keep, look, needs_chromium
from test_history_page import ran

from hf_gammareg import write_history_page

pytestmark = [needs_chromium, pytest.mark.slow]


def opened(driver, folder, *runs):
    path = write_history_page(folder / "page.html", *runs)
    driver.get_log("performance")
    driver.get(path.as_uri())
    return path


def told(driver, key):
    return [item.text for item in driver.find_elements("css selector", f"[data-key='{key}'] .told li")]


def put(driver, field, value):
    driver.execute_script(
        "const field = document.getElementById(arguments[0]); field.value = arguments[1];"
        "for (const kind of ['input', 'change']) field.dispatchEvent(new Event(kind, { bubbles: true }))",
        field,
        str(value),
    )


@pytest.fixture
def two(tmp_path):
    return ran(tmp_path / "decayed", probe=True), ran(tmp_path / "plain", pull=0.0, probe=True, steps=(0, 15))


def test_it_asks_for_nothing_and_complains_of_nothing(driver, tmp_path, two):
    path = opened(driver, tmp_path, *two)
    entries = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [entry["params"]["request"]["url"] for entry in entries if entry["method"] == "Network.requestWillBeSent"]
    assert {url for url in asked if not url.startswith("data:")} == {path.as_uri()}
    assert complaints(driver) == []
    assert len(driver.find_elements("css selector", ".chart .line:not(.ghost)")) == 2 + 2 + 2


def test_the_step_says_which_values_are_shown(driver, tmp_path, two):
    opened(driver, tmp_path, *two)
    assert told(driver, "gamma/last/") == ["decayed 0.6", "plain 1"]
    put(driver, "at", 1)
    assert driver.find_element("id", "step").text == "10"
    assert told(driver, "gamma/last/") == ["decayed 0.8", "plain 1"]
    means = [2 / (11 * 12 * 13) ** (1 / 3), 2 / 6 ** (1 / 3)]  # of plain the last one measured: step 0
    expected = [f"{name} geometric mean {mean:.4g}" for name, mean in zip(("decayed", "plain"), means, strict=True)]
    assert told(driver, "gamma/residual/ratio/") == expected
    put(driver, "metric", "min")
    assert told(driver, "gamma/last/") == ["decayed 0.4", "plain 0.5"]


def test_the_mouse_over_a_picture_chooses_the_step(driver, tmp_path, two):
    action = pytest.importorskip("selenium.webdriver").ActionChains
    opened(driver, tmp_path, *two)
    picture = driver.find_element("css selector", "[data-key='gamma/last/'] svg")
    action(driver).move_to_element(picture).perform()
    assert driver.find_element("id", "step").text == "10"


def test_the_keyboard_moves_the_step(driver, tmp_path, two):
    keys = pytest.importorskip("selenium.webdriver").Keys
    opened(driver, tmp_path, *two)
    driver.find_element("id", "at").send_keys(keys.ARROW_LEFT)
    assert driver.find_element("id", "step").text == "15"
    driver.find_element("id", "at").send_keys(keys.HOME)
    assert told(driver, "gamma/last/") == ["decayed 1", "plain 1"]


def test_a_run_is_hidden(driver, tmp_path, two):
    opened(driver, tmp_path, *two)
    button = driver.find_element("css selector", "[data-run='0']")
    button.click()
    assert told(driver, "gamma/last/") == ["plain 1"]
    assert button.get_attribute("aria-pressed") == "false"
    driver.find_element("css selector", "[data-run='1']").click()
    assert told(driver, "gamma/last/") == []
    button.click()
    assert told(driver, "gamma/last/") == ["decayed 0.6"]
    assert complaints(driver) == []


def test_lines_stand_where_their_values_are(driver, tmp_path, two):
    opened(driver, tmp_path, *two)
    put(driver, "axis", "zero")
    box = "const box = document.querySelector('[data-key=\"gamma/last/\"] .line').getBBox();"
    x, y, width, height = driver.execute_script(f"{box} return [box.x, box.y, box.width, box.height]")
    lines = driver.find_elements("css selector", "[data-key='gamma/last/'] .grid")
    grid = [float(line.get_attribute("y1")) for line in lines]
    unit = (grid[0] - grid[-1]) / 1.0  # levels from 0 to 1
    assert height == pytest.approx(0.4 * unit, rel=0.02)
    assert y == pytest.approx(grid[-1], abs=1)
    assert x > 0
    assert width > 100


def test_controls_and_pictures_have_names(driver, tmp_path, two):
    opened(driver, tmp_path, *two)
    tree = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = {"button", "slider", "combobox", "table", "img", "image", "region", "columnheader", "link"}
    nodes = [node for node in tree if not node.get("ignored") and node["role"]["value"] in roles]
    assert [node["role"]["value"] for node in nodes if not node.get("name", {}).get("value")] == []
    names = [node["name"]["value"] for node in nodes]
    assert "last. decayed: from 1 to 0.6, 0.6 at this step; plain: from 1 to 1, 1 at this step" in names


def test_markup_in_names_is_inert(driver, tmp_path):
    evil = "<img src=x onerror=\"document.title='bad'\"><b>"
    opened(driver, tmp_path, ran(tmp_path / evil), ran(tmp_path / "b"))
    assert driver.title == f"{evil}, b: gammas in training"
    assert driver.find_elements("css selector", "img") == []
    assert told(driver, "gamma/last/")[0] == f"{evil} 0.6"
    assert complaints(driver) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_sticks_out(driver, tmp_path, two, width, scheme):
    look(driver, width=width, scheme=scheme)
    try:
        opened(driver, tmp_path, *two)
        assert keep(driver, tmp_path, f"history-{scheme}-{width}").stat().st_size > 20_000
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        look(driver)
