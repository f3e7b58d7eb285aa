"""The Space as its users meet it: through gradio's client, in a browser, and 20 at once."""

from pathlib import Path

import pytest
from browser import chromium, keep, look, needs_chromium
from crowd import LLAMA, UPLOAD, USERS, Wish, ask, crowd, left, served

gradio_client = pytest.importorskip("gradio_client", reason="gradio is not installed (the extra `space`)")
pytest.importorskip("gradio", reason="gradio is not installed (the extra `space`)")
pytestmark = pytest.mark.slow

SECONDS = 60


@pytest.fixture(scope="module")
def app():
    with served("--seconds", str(SECONDS)) as (address, process):
        yield address, process
    assert not process.is_running()


@pytest.fixture
def client(app):
    return gradio_client.Client(app[0], verbose=False)


def test_a_name_in_and_a_page_out(client):
    found = ask(client, Wish(kind="good", source="timm/test_vit"), policy="last", others=["none"])
    assert found.told == "13 gammas: 1 final, 12 last; 12 of them decay. Graph: export (train mode)."
    assert found.page.startswith('<iframe title="The page" sandbox="allow-scripts"')
    assert sorted(Path(file).name for file in found.files) == ["timm-test_vit.html", "timm-test_vit.svg"]
    assert "timm/test_vit: the roles of its gammas" in Path(found.files[0]).read_text()


def test_a_configuration_in_and_a_page_out(client):
    found = ask(client, UPLOAD)
    assert "5 gammas: 1 final, 4 last" in found.told
    assert "llama: the roles of its gammas" in found.page
    assert len(found.files) == 2


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"source": "timm/resnt18"}, "Did you mean resnet18"),
        ({"source": "../../etc"}, "Expected timm/NAME"),
        ({"source": "timm/test_vit", "config": LLAMA}, "found both ('timm/test_vit')"),
        ({"config": {"model_type": "martian"}}, "found model type 'martian'"),
        ({"config": LLAMA | {"num_hidden_layers": 2, "note": "x" * 2**17}}, "5 gammas"),
        ({"config": LLAMA | {"note": "x" * 2**19}}, "exceeds the maximum file size of 262144 bytes"),
    ],
)
def test_wrong_wishes_are_a_sentence(client, wish, said):
    assert said in ask(client, Wish(kind="wrong", **wish)).told


def test_an_address_in_a_file_s_place_is_not_fetched(client):
    address = "https://example.invalid/config.json"
    file = {"path": address, "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(Exception, match=f"Expected a file that was uploaded, found '{address}'"):
        client.predict("", file, "guidelines", [], api_name="/look")


def test_20_users_at_once(app):
    address, process = app
    at_rest = len(process.children(recursive=True))
    answers = crowd(address, USERS)
    for kind in ("good", "wrong", "slow"):
        times = sorted(answer.seconds for answer in answers if answer.wish.kind == kind)
        print(f"{kind}: {len(times)} answers after {times[0]:.1f} to {times[-1]:.1f} s")
    for answer in answers:
        kind = answer.wish.kind
        assert (bool(answer.page), len(answer.files)) == ((True, 2) if kind == "good" else (False, 0)), answer.told
        assert answer.told.startswith("Expected ") == (kind != "good")
        assert (f"within {SECONDS} seconds" in answer.told) == (kind == "slow")
    assert left(process, at_rest) == 0
    assert [one for one in process.children(recursive=True) if one.cpu_percent(1.0) > 20] == []


@needs_chromium
def test_in_a_browser(app, tmp_path):
    wait = pytest.importorskip("selenium.webdriver.support.wait").WebDriverWait
    keys = pytest.importorskip("selenium.webdriver").Keys
    with chromium() as driver:
        look(driver)
        driver.get(app[0])
        field = wait(driver, 60).until(lambda driver: driver.find_element("css selector", "[placeholder^=timm]"))
        field.send_keys("timm/test_vit", keys.ENTER)
        frame = wait(driver, SECONDS).until(lambda driver: driver.find_element("css selector", "iframe[srcdoc]"))
        keep(driver, tmp_path, "space")
        driver.switch_to.frame(frame)
        assert driver.find_element("tag name", "h1").text == "timm/test_vit"
        driver.find_element("css selector", "[data-role=final]").click()
        assert driver.find_element("id", "shown").text == "1 of 13 gammas"
