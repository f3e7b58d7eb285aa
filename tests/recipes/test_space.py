"""The Space: models that are looked at within limits, one process each, from a name or a configuration alone."""

import json
import os
import socket
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import ClassVar

import psutil
import pytest
import yaml
from app import answer
from looking import Limits, Seen, Wish, looks, named
from packaging.requirements import Requirement

import hf_gammareg

ROOT = Path(__file__).parents[2]
SPACE = ROOT / "recipes" / "space"
LLAMA = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "vocab_size": 64}


def upload(**config):
    return Wish(source="mine", config=json.dumps(config))


LARGE = upload(model_type="xlnet", d_model=65536, n_layer=2, n_head=16)
"""A model that the meta device can't build, so that it is built in memory, of which it takes 8 GB."""


@pytest.fixture
def seeing():  # anew for each test, so that none counts the processes of another
    with looks(Limits(seconds=300)) as found:  # other work on this machine does not count
        yield found


@pytest.mark.slow
def test_a_model_by_name(seeing):
    seen = seeing.see(Wish(source="timm/test_vit", policy="last,final", others=("trainer", "none")))
    assert seen.told == "13 gammas: 1 final, 12 last; 13 of them decay. Graph: export (train mode)."
    assert "gammareg inspect timm/test_vit --policy last,final --html page.html" in seen.page
    assert 'title="none"' in seen.page
    assert seen.picture.lstrip().startswith("<?xml")


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        LLAMA | {"num_hidden_layers": 2},
        {"architecture": "test_resnet", "model_args": {"checkpoint_path": "/etc/hostname", "pretrained": True}},
    ],
)
def test_a_model_by_its_configuration(seeing, config):
    seen = seeing.see(upload(**config))
    assert "gammas: " in seen.told
    assert "<h1>mine</h1>" in seen.page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (Wish(source="timm/resnt18"), "Did you mean resnet18"),
        (Wish(source="resnet50"), "Did you mean timm/resnet50"),
        (Wish(source="config.json"), "found nothing at 'config.json'"),
        (Wish(source="timm/test_vit", policy="guideline"), "Did you mean guidelines?"),
        (Wish(source="mine", config="{"), "found none that can be read"),
        (Wish(source="mine", config="[" * 5000), "RecursionError"),
        (upload(model_type="martian"), "found model type 'martian'"),
        (upload(**LLAMA, auto_map={"AutoModel": "code.Evil"}), "Code that comes with a model is not run"),
        (upload(architecture="hf_hub:nobody/model"), "found 'hf_hub:nobody/model'"),
        (upload(architecture="local-dir:/etc"), "found 'local-dir:/etc'"),
        (upload(model_type="llama", architectures=["Trainer"]), "found 'Trainer'"),
        (upload(model_type="m" * 10_000), "model type …"),
        (Wish(source="timm/test_vit", others=("x" * 201,)), "more than 200 letters"),
        (LARGE, "built in 4 GB"),
    ],
)
def test_what_is_wrong_is_told(seeing, wish, said):
    seen = seeing.see(wish)
    assert seen.told.startswith("Expected ")
    assert said in seen.told
    assert "/tmp" not in seen.told
    assert seen.told.count("\n") == 0
    assert (seen.page, seen.picture) == (None, None)


NO_NAMES = ("", ".", "..", "../x", "/etc/passwd", "~/x", "./recipes", "a/b/c", "file:///etc", "a b", "timm/", "-x/y")


@pytest.mark.parametrize("source", [*NO_NAMES, "x" * 121])
def test_a_path_is_no_name_and_costs_no_process(source):
    with looks() as found:
        found._pool = None
        assert found.see(Wish(source=source)).told.startswith("Expected timm/NAME")


def test_a_large_configuration_costs_no_process():
    with looks(Limits(config=100)) as found:
        found._pool = None
        assert found.see(upload(model_type="x" * 100)).told == "Expected a small config.json, found 118 bytes."


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limits", "wish", "said"),
    [
        (Limits(seconds=2), upload(**LLAMA, num_hidden_layers=20_000), "within 2 seconds"),
        (Limits(seconds=300, memory=2**31), LARGE, "built in 2 GB"),
        (
            Limits(seconds=300, gammas=100),
            upload(**LLAMA, num_hidden_layers=100),
            "at most 100 gammas, found 201",
        ),
    ],
)
def test_limits_hold_and_nothing_is_left(limits, wish, said):
    before = set(psutil.Process().children(recursive=True))
    with looks(limits) as found:
        seen = found.see(wish)
        assert said in seen.told
        assert seen.page is None
    assert left(before) == []


def left(before):
    """Processes that were not there before, save the two that Python keeps for its next pool; after a while."""
    deadline, found = time.monotonic() + 20, []
    while time.monotonic() < deadline:
        kept = {forkserver._forkserver._forkserver_pid, resource_tracker._resource_tracker._pid}
        found = [one for one in psutil.Process().children(recursive=True) if one not in before and one.pid not in kept]
        if not found:
            break
        time.sleep(0.2)
    return found


def test_a_look_reaches_nothing_on_the_network():
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = (
            "import socket, sys, looking; address = ('127.0.0.1', int(sys.argv[1]))\n"
            "socket.create_connection(address, 5).close()\n"
            "looking._no_network()\n"
            "try: socket.create_connection(address, 5)\n"
            "except OSError as error: print(error)\n"
            "import huggingface_hub\n"
            "try: huggingface_hub.hf_hub_download('nobody/model', 'config.json')\n"
            "except Exception as error: print(type(error).__name__)\n"
        )
        words = [sys.executable, "-c", code, str(server.getsockname()[1])]
        paths = {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(words, cwd=SPACE, env=paths, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "nothing but a configuration is read from the network here",
        "LocalEntryNotFoundError",
    ]


class Hub(BaseHTTPRequestHandler):
    """What the Hub answers: a model, one whose config.json is large, and none."""

    files: ClassVar = {"me/small": b'{"architecture": "test_vit"}', "me/large": b'{"x": "' + b"x" * 2**20 + b'"}'}

    def do_GET(self):
        found = self.files.get(self.path.removeprefix("/").removesuffix("/resolve/main/config.json"))
        self.send_response(404 if found is None else 200)
        told = {"X-Error-Code": "RepoNotFound"} if found is None else {"ETag": '"1"', "X-Repo-Commit": "a" * 40}
        for name, value in told.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(found or b"")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(found or b"")

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.mark.slow
def test_a_model_of_the_hub(tmp_path):
    code = (
        "import multiprocessing, sys, looking\n"
        "def one(name): return looking.look(looking.Wish(source=name), sys.argv[1], looking.Limits())\n"
        "with multiprocessing.get_context('fork').Pool(1, maxtasksperchild=1) as pool:\n"
        "    for seen in pool.map(one, sys.argv[2:], chunksize=1): print(bool(seen.page), seen.told)\n"
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as hub, ThreadPoolExecutor() as threads:
        threads.submit(hub.serve_forever)
        paths = {"PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "cache"), "PATH": os.environ["PATH"]}
        paths["HF_ENDPOINT"] = f"http://127.0.0.1:{hub.server_port}"
        words = [sys.executable, "-c", code, str(tmp_path), "me/small", "me/large", "me/none"]
        done = subprocess.run(words, cwd=SPACE, env=paths, capture_output=True, text=True)
        hub.shutdown()
    assert done.returncode == 0, done.stderr
    small, large, none = done.stdout.splitlines()
    assert small == "True 13 gammas: 1 final, 12 last; 12 of them decay. Graph: export (train mode)."
    assert large == "False Expected a small config.json, found more than 262,144 bytes."
    assert none.startswith("False Expected me/none to be a model on the Hub with a config.json that you may read")


@dataclass
class Seer:
    """What stands where the processes would, and keeps what it is asked."""

    asked: list = field(default_factory=list)

    def see(self, wish):
        self.asked.append(wish)
        return Seen(told="told", page=None if wish.source == "wrong" else "<b>page</b>", picture="<svg/>")


def answers(seer, source="", file=None):
    found = answer(source, file, "last", ["all"], seeing=seer, limits=Limits())
    told, page, files = next(found)
    kept = {Path(file).name: Path(file).read_text() for file in files}
    assert list(found) == []
    assert not any(Path(file).exists() for file in files)
    return told, page, kept


def test_the_app_answers_with_the_page_in_a_frame_and_files_to_keep():
    seer = Seer()
    told, page, kept = answers(seer, " me/a b<>.c ")
    assert seer.asked == [Wish(source="me/a b<>.c", policy="last", others=("all",))]
    assert told == "told"
    assert kept == {"me-a-b--.c.html": "<b>page</b>", "me-a-b--.c.svg": "<svg/>"}
    assert 'sandbox="allow-scripts"' in page
    assert 'srcdoc="&lt;b&gt;page&lt;/b&gt;"' in page


def test_the_app_answers_what_is_wrong_without_a_page():
    assert answers(Seer(), "wrong") == ("told", "", {})


def test_the_app_takes_a_name_or_a_configuration(tmp_path):
    seer, file = Seer(), tmp_path / "config.json"
    file.write_bytes(b'{"model_type": "llama", "note": "\xff"}')
    assert answers(seer, "", str(file))[0] == "told"
    assert [(wish.source, "llama" in wish.config) for wish in seer.asked] == [("llama", True)]
    assert "name or a config.json, found both ('timm/vit')" in answers(seer, "timm/vit", str(file))[0]
    assert len(seer.asked) == 1


def test_an_upload_is_called_what_it_calls_itself():
    assert named('{"_name_or_path": "me/mine", "model_type": "bert"}') == "me/mine"
    assert named('{"architecture": "resnet50"}') == "resnet50"
    assert named("[]") == named("{") == named("{}") == named("[" * 5000) == "config.json"
    assert named('{"model_type": "a\\nb"}') == "a b"


def test_the_space_is_one():
    head = yaml.safe_load((SPACE / "README.md").read_text().split("---\n")[1])
    assert (head["sdk"], (SPACE / head["app_file"]).is_file()) == ("gradio", True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (needed,) = (one for one in map(Requirement, project["optional-dependencies"]["space"]) if one.name == "gradio")
    assert head["sdk_version"] in needed.specifier
    assert (SPACE / "requirements.txt").read_text() == f"hf-gammareg[space]=={hf_gammareg.__version__}\n"


USERS = [
    *(Wish(source="timm/test_vit") for _ in range(5)),
    *(Wish(source="timm/test_resnet") for _ in range(5)),
    *(upload(**LLAMA, num_hidden_layers=2) for _ in range(3)),
    *(Wish(source="timm/resnt18"), Wish(source="../x"), upload(model_type="martian"), Wish(source="mine", config="{")),
    *(upload(**LLAMA, num_hidden_layers=20_000) for _ in range(3)),
]
"""20 users: 13 good wishes, 4 wrong ones, 3 that take too long."""


@pytest.mark.slow
def test_20_users_at_once():
    before = set(psutil.Process().children(recursive=True))

    def timed(wish):
        start = time.monotonic()
        return seen.see(wish), time.monotonic() - start

    with looks(Limits(seconds=40)) as seen, ThreadPoolExecutor(len(USERS)) as users:
        answers = list(users.map(timed, USERS))
    for kind, part in (("good", answers[:13]), ("wrong", answers[13:17]), ("slow", answers[17:])):
        times = sorted(seconds for _, seconds in part)
        print(f"{kind}: {len(part)} answers after {times[0]:.1f} to {times[-1]:.1f} s")
    assert all(answer.page for answer, _ in answers[:13])
    assert all(answer.told.startswith("Expected ") for answer, _ in answers[13:])
    assert all("within 40 seconds" in answer.told for answer, _ in answers[17:])
    assert left(before) == []
