"""The page about a model in a real browser: what a reader does with it, by mouse and by keyboard."""

import json
from dataclasses import replace

import pytest
import timm
import torch
from browser import complaints, keep, look, needs_chromium
from torch import nn

from hf_gammareg import Plan, analyse, decay_budget, decide, write_page

pytestmark = [needs_chromium, pytest.mark.slow]


@pytest.fixture(scope="module")
def resnet():
    model = timm.create_model("resnet18")
    return model, analyse(model)


def opened(driver, folder, model, analysis, name="page", **options):
    gammas = analysis.gammas
    others = {policy: decide(gammas, model, policy) for policy in ("trainer", "timm")}
    path = write_page(folder / f"{name}.html", analysis, decide(gammas, model), model, **{"others": others} | options)
    driver.get_log("performance")
    driver.get(path.as_uri())
    return path


def shown(driver):
    script = "return rows.filter(row => !row.hidden).map(row => row.cells[1].firstChild.textContent)"
    return driver.execute_script(script)


def order(driver):
    return driver.execute_script("return all('#gammas tbody tr').map(row => row.cells[1].firstChild.textContent)")


def put(driver, field, value):
    driver.execute_script(
        "const field = document.getElementById(arguments[0]); field.value = arguments[1];"
        "for (const kind of ['input', 'change']) field.dispatchEvent(new Event(kind, { bubbles: true }))",
        field,
        str(value),
    )


def test_it_asks_for_nothing_and_complains_of_nothing(driver, resnet, tmp_path):
    path = opened(driver, tmp_path, *resnet, source="timm/resnet18")
    told = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [entry["params"]["request"]["url"] for entry in told if entry["method"] == "Network.requestWillBeSent"]
    assert {url for url in asked if not url.startswith("data:")} == {path.as_uri()}
    assert complaints(driver) == []
    assert driver.title == "timm/resnet18: the roles of its gammas"


def test_it_filters(driver, resnet, tmp_path):
    opened(driver, tmp_path, *resnet)
    gammas = resnet[1].gammas
    assert shown(driver) == list(gammas.names)
    put(driver, "words", "LAYER3 bn2")
    assert shown(driver) == ["layer3.0.bn1.weight", "layer3.0.bn2.weight", "layer3.1.bn1.weight", "layer3.1.bn2.weight"]
    driver.find_element("css selector", "[data-role=last]").click()
    assert shown(driver) == ["layer3.0.bn2.weight", "layer3.1.bn2.weight"]
    assert driver.find_element("id", "shown").text == "2 of 20 gammas"
    driver.find_element("id", "clear").click()
    assert shown(driver) == list(gammas.names)
    put(driver, "which", "other:1")
    assert shown(driver) == [gamma.name for gamma in gammas.by_role("trunk", "shortcut")]
    put(driver, "which", "no")
    assert shown(driver) == [gamma.name for gamma in gammas.by_role("trunk", "shortcut")]
    put(driver, "which", "yes")
    assert shown(driver) == [gamma.name for gamma in gammas.by_role("last", "absorbed")]


def test_it_sorts_both_ways(driver, resnet, tmp_path):
    opened(driver, tmp_path, *resnet)
    gammas = resnet[1].gammas
    name, role = driver.find_elements("css selector", "#gammas th button")[1:3]
    name.click()
    assert order(driver) == sorted(gammas.names)
    name.click()
    assert order(driver) == sorted(gammas.names, reverse=True)
    assert name.find_element("xpath", "..").get_attribute("aria-sort") == "descending"
    role.click()
    assert [gammas[found].role for found in order(driver)] == sorted(gamma.role for gamma in gammas)
    size = driver.find_elements("css selector", "#gammas th button")[-1]
    size.click()
    assert [gammas[found].numel for found in order(driver)] == sorted(gamma.numel for gamma in gammas)


def test_numbers_in_names_sort_as_numbers(driver, tmp_path):
    model = nn.Sequential(*(layer for _ in range(11) for layer in (nn.LayerNorm(4), nn.Linear(4, 4))))
    opened(driver, tmp_path, model, analyse(model, torch.zeros(2, 4)))
    driver.find_elements("css selector", "#gammas th button")[1].click()
    assert order(driver) == [f"{2 * number}.weight" for number in range(11)]


def test_the_panel_tells_of_the_block_that_is_pointed_at(driver, resnet, tmp_path):
    action = pytest.importorskip("selenium.webdriver").ActionChains
    opened(driver, tmp_path, *resnet)
    block = driver.find_element("css selector", "[data-label='layer2.0']")
    action(driver).move_to_element(block).perform()
    told = driver.find_element("id", "panel").text
    assert "layer2.0.downsample.1.weight\nshortcut: does not decay (trainer yes, timm no)" in told
    assert "On the skip" in told
    assert "Reaches the residual add in layer2.0 on the skip side, from inside the block." in told
    assert "layer2.0.bn2.weight\nlast: decays (trainer yes, timm no)" in told


def test_the_keyboard_reaches_everything(driver, resnet, tmp_path):
    keys = pytest.importorskip("selenium.webdriver").Keys
    opened(driver, tmp_path, *resnet)
    body = driver.find_element("tag name", "body")
    seen = []
    for _ in range(60):
        driver.switch_to.active_element.send_keys(keys.TAB)
        here = driver.switch_to.active_element
        if here == body:
            break
        seen.append(here.get_attribute("class") or here.get_attribute("id") or here.text)
        if seen[-1] == "block":
            here.send_keys(keys.ARROW_RIGHT)
            assert driver.find_element("css selector", "#panel h3").text == "layer1.0"
            driver.switch_to.active_element.send_keys(keys.END)
            assert driver.find_element("css selector", "#panel h3").text == "layer4.1"
            driver.switch_to.active_element.send_keys(keys.ENTER)
            assert shown(driver) == ["layer4.1.bn1.weight", "layer4.1.bn2.weight"]
    assert seen[0] == "skip"
    assert seen.count("block") == 1  # the arrows go on from there
    assert {"toggle", "words", "which", "rate", "decay", "steps", "schedule", "optimizer"} <= set(seen)


def test_controls_and_pictures_have_names(driver, resnet, tmp_path):
    opened(driver, tmp_path, *resnet)
    tree = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = {"button", "link", "searchbox", "textbox", "combobox", "table", "img", "image", "region", "columnheader"}
    nodes = [node for node in tree if not node.get("ignored") and node["role"]["value"] in roles]
    assert len(nodes) > 40
    assert [node["role"]["value"] for node in nodes if not node.get("name", {}).get("value")] == []
    names = [node["name"]["value"] for node in nodes]
    assert "layer2.0: skip shortcut does not decay; branch absorbed decays, last decays" in names


PLANS = [
    (1e-3, 0.05, 1000, "constant", "AdamW"),
    (2e-5, 0.01, 2000, "linear", "AdamW"),
    (3e-3, 0.3, 5000, "cosine", "AdamW"),
    (0.1, 5e-4, 3000, "cosine", "SGD 0.9"),
    (0.1, 1e-4, 2000, "constant", "SGD"),
    (0.5, 0.1, 500, "linear", "SGD 0.9"),
    (1e-3, 0.05, 1000, "linear", "Adam"),
]


@pytest.mark.parametrize(("rate", "strength", "steps", "schedule", "optimizer"), PLANS)
def test_the_budget_is_that_of_decay_budget(driver, resnet, tmp_path, rate, strength, steps, schedule, optimizer):
    from transformers import get_scheduler

    name, _, momentum = optimizer.partition(" ")
    options = {"lr": rate, "weight_decay": strength} | ({"momentum": float(momentum)} if momentum else {})
    real = getattr(torch.optim, name)([nn.Parameter(torch.ones(2))], **options)
    planned = get_scheduler(schedule, real, num_warmup_steps=0, num_training_steps=steps)
    expected = decay_budget(real, planned, steps)
    plan = Plan(learning_rate=rate, weight_decay=strength, steps=steps, schedule=schedule, optimizer=optimizer)
    if not driver.current_url.endswith("/budget.html"):
        opened(driver, tmp_path, *resnet, name="budget", plan=Plan(steps=1))
    for field, value in zip(("rate", "decay", "steps", "schedule", "optimizer"), plan_values(plan), strict=True):
        put(driver, field, value)
    assert driver.find_element("id", "told").text == str(expected)
    value = driver.find_element("id", "factor").get_attribute("data-value")
    assert value is None if expected.factor is None else float(value) == pytest.approx(expected.factor, rel=1e-9)


def plan_values(plan):
    return plan.learning_rate, plan.weight_decay, plan.steps, plan.schedule, plan.optimizer


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("rate", "fast", "Expected a learning rate of 0 or more."),
        ("decay", "-1", "Expected a weight decay of 0 or more."),
        ("steps", "2.5", "Expected a whole number of steps, 1 to 10,000,000."),
        ("steps", "", "Expected a whole number of steps, 1 to 10,000,000."),
    ],
)
def test_wrong_numbers_are_told(driver, resnet, tmp_path, field, value, said):
    opened(driver, tmp_path, *resnet)
    put(driver, field, value)
    assert driver.find_element("id", "told").text == said
    assert driver.find_element("id", "factor").text == ""


def test_markup_in_names_is_inert(driver, resnet, tmp_path):
    model, analysis = resnet
    evil = "</script><img src=x onerror=\"document.title='bad'\"><script>document.title='bad'</script>"
    first, *rest = analysis.gammas.gammas
    gammas = replace(analysis.gammas, gammas=(replace(first, reason=f"`{evil}`", kind=evil), *rest))
    opened(driver, tmp_path, model, replace(analysis, gammas=gammas), source=evil, command=evil)
    assert driver.title == f"{evil}: the roles of its gammas"
    assert driver.find_elements("css selector", "img, script:not(:last-of-type)") == []
    assert evil in driver.find_element("id", "panel").text
    assert complaints(driver) == []


class Wide(nn.Module):
    """2,000 norms in 1,000 blocks of unequal width, so that none is a repetition of another."""

    def __init__(self):
        super().__init__()
        sizes = [(4, 5 + number % 3) for number in range(1000)]
        self.h = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(a), nn.Linear(a, b), nn.LayerNorm(b), nn.Linear(b, a)) for a, b in sizes
        )

    def forward(self, x):
        for layer in self.h:
            x = x + layer(x)
        return x


def spent(driver):
    metrics = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")


def test_2000_gammas_open_in_a_second(driver, tmp_path):
    model = Wide()
    analysis = analyse(model, torch.zeros(2, 4))
    decays = {name: index % 7 != 3 for index, name in enumerate(analysis.gammas.names)}  # no block like the next
    others = {"trainer": dict.fromkeys(decays, False), "timm": dict.fromkeys(decays, False)}
    path = write_page(tmp_path / "wide.html", analysis, decays, model, others=others)
    look(driver)
    # The page's own thread by its processor's clock: other work on the machine does not count.
    driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    times = []
    for _ in range(3):
        driver.get("about:blank")
        before = spent(driver)
        driver.get(path.as_uri())
        driver.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0]))")
        times.append(1000 * (spent(driver) - before))
    driver.execute_cdp_cmd("Performance.disable", {})
    assert len(shown(driver)) == 2000
    print(f"2,000 gammas: {path.stat().st_size / 1e6:.2f} MB, {min(times):.0f} ms of the page's thread ({times})")
    assert 0 < min(times) < 1000


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 800, 400])
def test_nothing_sticks_out(driver, resnet, tmp_path, width, scheme):
    look(driver, width=width, scheme=scheme)
    try:
        opened(driver, tmp_path, *resnet, source="timm/resnet18")
        assert keep(driver, tmp_path, f"resnet18-{scheme}-{width}").stat().st_size > 20_000
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        ink, paper = driver.execute_script(
            "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]"
        )
        assert contrast(ink, paper) >= 7
    finally:
        look(driver)


def contrast(one, other):
    """The contrast of two colours, as WCAG has it: 1 to 21."""

    def luminance(colour):
        parts = [int(part) / 255 for part in colour.removeprefix("rgb(").rstrip(")").split(",")]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)
