"""The Space as its users meet it: through gradio's client, in a browser, and 20 at once."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from browser import chromium, keep, look, needs_chromium

gradio_client = pytest.importorskip("gradio_client", reason="gradio is not installed (the extra `space`)")
pytest.importorskip("gradio", reason="gradio is not installed (the extra `space`)")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SECONDS = 60


@pytest.fixture(scope="module")
def served():
    """The address of the app, and its process; at the end it is asked to stop, and nothing of it is left."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [sys.executable, "recipes/space/app.py", "--port", str(port), "--seconds", str(SECONDS)]
    app = psutil.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in app.stdout:
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            break
    else:
        pytest.fail(f"the app did not start: status {app.wait()}")
    yield found[0], app
    children = app.children(recursive=True)
    app.send_signal(signal.SIGINT)
    _, alive = psutil.wait_procs([app, *children], timeout=30)
    for process in alive:
        process.kill()
    assert alive == []


@pytest.fixture
def client(served):
    return gradio_client.Client(served[0], verbose=False)


def ask(client, source="", config=None, policy="guidelines", others=("trainer", "timm")):
    file = None if config is None else gradio_client.handle_file(str(config))
    return client.predict(source, file, policy, list(others), api_name="/look")


def configuration(folder, name="config.json", **more):
    path = folder / name
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "vocab_size": 64}
    path.write_text(json.dumps({"model_type": "llama", "num_hidden_layers": 2, **sizes, **more}))
    return path


def test_a_name_in_and_a_page_out(client):
    told, page, files = ask(client, "timm/test_vit", policy="last", others=["none"])
    assert told == "13 gammas: 1 final, 12 last; 12 of them decay. Graph: export (train mode)."
    assert page.startswith('<iframe title="The page" sandbox="allow-scripts"')
    assert sorted(Path(file).name for file in files) == ["timm-test_vit.html", "timm-test_vit.svg"]
    assert "timm/test_vit: the roles of its gammas" in Path(files[0]).read_text()


def test_a_configuration_in_and_a_page_out(client, tmp_path):
    told, page, files = ask(client, config=configuration(tmp_path))
    assert "5 gammas: 1 final, 4 last" in told
    assert "llama: the roles of its gammas" in page
    assert len(files) == 2


def test_wrong_wishes_are_a_sentence(client, tmp_path):
    assert "Did you mean resnet18" in ask(client, "timm/resnt18")[0]
    assert ask(client, "../../etc")[0].startswith("Expected timm/NAME")
    assert "found model type 'martian'" in ask(client, config=configuration(tmp_path, model_type="martian"))[0]
    told, *_ = ask(client, config=configuration(tmp_path, "large.json", note="x" * 2**17))
    assert "5 gammas" in told
    with pytest.raises(Exception, match=r"(?i)file size|too large|413"):
        ask(client, config=configuration(tmp_path, "larger.json", note="x" * 2**19))


def test_20_users_at_once(served, tmp_path):
    address, app = served
    slow = configuration(tmp_path, "slow.json", num_hidden_layers=20_000)
    good = configuration(tmp_path, "good.json")
    wishes = [("good", {"source": "timm/test_vit"})] * 7 + [("good", {"config": good})] * 6
    wishes += [("wrong", {"source": source}) for source in ("timm/resnt18", "../x", "nobody/nothing", "")]
    wishes += [("slow", {"config": slow})] * 3

    def timed(wish):
        kind, words = wish
        client, start = gradio_client.Client(address, verbose=False), time.monotonic()
        told, page, files = ask(client, **words)
        return kind, told, bool(page), len(files), time.monotonic() - start

    with ThreadPoolExecutor(len(wishes)) as users:
        answers = list(users.map(timed, wishes))
    for kind in ("good", "wrong", "slow"):
        times = sorted(seconds for found, *_, seconds in answers if found == kind)
        print(f"{kind}: {len(times)} answers after {times[0]:.1f} to {times[-1]:.1f} s")
    for kind, told, page, files, _ in answers:
        assert (page, files) == ((True, 2) if kind == "good" else (False, 0)), told
        assert told.startswith("Expected ") == (kind != "good")
        assert (f"within {SECONDS} seconds" in told) == (kind == "slow")
    time.sleep(3)
    busy = [one for one in app.children(recursive=True) if one.cpu_percent(1.0) > 20]
    assert busy == []


@needs_chromium
def test_in_a_browser(served, tmp_path):
    wait = pytest.importorskip("selenium.webdriver.support.wait").WebDriverWait
    keys = pytest.importorskip("selenium.webdriver").Keys
    with chromium() as driver:
        look(driver)
        driver.get(served[0])
        field = wait(driver, 60).until(lambda driver: driver.find_element("css selector", "[placeholder^=timm]"))
        field.send_keys("timm/test_vit", keys.ENTER)
        frame = wait(driver, SECONDS).until(lambda driver: driver.find_element("css selector", "iframe[srcdoc]"))
        keep(driver, tmp_path, "space")
        driver.switch_to.frame(frame)
        assert driver.find_element("tag name", "h1").text == "timm/test_vit"
        driver.find_element("css selector", "[data-role=final]").click()
        assert driver.find_element("id", "shown").text == "1 of 13 gammas"
