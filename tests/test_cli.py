"""The command line: its two streams and its exit status."""

import contextlib
import csv
import json
import logging
import os
import re
import subprocess
import sys
import termios
import warnings
from dataclasses import replace

import pytest
import timm

import hf_gammareg
from hf_gammareg import cli, find_gammas
from hf_gammareg.roles.gammas import GammaMap, Role

SOURCE = "timm/test_vit"
COUNTS = {"final": 1, "last": 12}


@pytest.fixture
def gammareg(capfd):
    def run(*words):
        status = cli.main(list(words))
        output = capfd.readouterr()
        return status, output.out, output.err

    return run


def test_json_is_all_there_is(gammareg):
    status, out, err = gammareg("inspect", SOURCE, "--format", "json")
    assert (status, err) == (0, "")
    data = json.loads(out)
    assert list(data) == ["source", "policy", "gammas", "counts"]
    assert (data["source"], data["policy"], data["counts"]) == (SOURCE, "guidelines", COUNTS)
    gammas = find_gammas(timm.create_model("test_vit"))
    assert [row["name"] for row in data["gammas"]] == list(gammas.names)
    for row, gamma in zip(data["gammas"], gammas, strict=True):
        assert list(row) == ["name", "role", "kind", "decays", "exact", "placement", "zero_centered", "reason"]
        assert row["role"] == gamma.role
        assert row["decays"] is (gamma.role is Role.LAST)
        assert all(row[field] == getattr(gamma, field) for field in list(row) if field != "decays")


def test_csv_has_a_row_for_each_gamma(gammareg):
    status, out, err = gammareg("inspect", SOURCE, "--format", "csv")
    assert (status, err) == (0, "")
    rows = list(csv.DictReader(out.splitlines()))
    described = json.loads(gammareg("inspect", SOURCE, "--format", "json")[1])["gammas"]
    words = {True: "true", False: "false", None: ""}
    expected = [{k: words[v] if v is None or isinstance(v, bool) else v for k, v in row.items()} for row in described]
    assert rows == expected


def test_markdown_is_a_table(gammareg):
    status, out, err = gammareg("inspect", SOURCE, "--format", "md")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[2:5] == [
        "| role | decays | gammas | why |",
        "| --- | --- | --- | --- |",
        "| final | no | `norm.weight` | Reaches the output through `head`, normalised by nothing on the way. |",
    ]
    assert lines[5].startswith("| last | yes | `blocks.*.norm1.weight` ×6 | Reaches")
    assert lines[-1].startswith("13 gammas: 1 final, 12 last; 12 of them decay.")
    every = gammareg("inspect", SOURCE, "--format", "md", "--all")[1].splitlines()
    assert sum(line.startswith("| ") for line in every) == 13 + 2


DIFF = (
    "Trainer would decay none of the 13 gammas of this VisionTransformer; policy 'guidelines' decays 12, all of them "
    "last. They differ on 12 of 13."
)


def test_diff_says_what_another_rule_would_do(gammareg):
    status, out, err = gammareg("inspect", SOURCE, "--diff", "trainer")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[2].split() == ["role", "guidelines", "trainer", "gammas", "why"]
    assert lines[4].split()[:5] == ["last", "yes", "no", "blocks.*.norm1.weight", "x6"]
    assert lines[-1] == DIFF
    assert "norm.weight" not in {word for line in lines for word in line.split()}


def test_diff_counts_shortcuts(gammareg):
    out = gammareg("inspect", "timm/resnet18", "--diff", "trainer")[1]
    assert out.splitlines()[-1] == (
        "Trainer would decay 20 gammas of this ResNet, 1 of them trunk and 3 shortcuts; policy 'guidelines' decays 16. "
        "They differ on 4 of 20."
    )


@pytest.mark.slow
def test_diff_for_programs(gammareg):
    data = json.loads(gammareg("inspect", SOURCE, "--diff", "all", "--format", "json")[1])
    assert list(data) == ["source", "policy", "diff", "gammas", "counts", "decays", "summary"]
    (row,) = data["gammas"]
    assert (row["name"], row["decays"], row["diff_decays"]) == ("norm.weight", False, True)
    assert data["decays"] == {"guidelines": 12, "all": 13}
    (row,) = csv.DictReader(gammareg("inspect", SOURCE, "--diff", "all", "--format", "csv")[1].splitlines())
    assert (row["name"], row["decays"], row["diff_decays"]) == ("norm.weight", "false", "true")
    same = gammareg("inspect", SOURCE, "--diff", "last")[1]
    assert same.splitlines()[-1].endswith("They agree on every gamma.")
    assert len(same.splitlines()) == 3


@pytest.mark.slow
def test_lock_and_check(gammareg, tmp_path):
    path = str(tmp_path / "roles.lock.json")
    status, out, err = gammareg("inspect", SOURCE, "--lock", path)
    assert (status, err) == (0, "")
    assert out == gammareg("inspect", SOURCE)[1]
    status, out, err = gammareg("inspect", SOURCE, "--check", path)
    assert (status, err) == (0, "")
    assert out.startswith(f"13 gammas as in {path} (timm {timm.__version__}")
    status, out, err = gammareg("inspect", SOURCE, "--check", path, "--gamma-no-decay", "blocks.3.norm1.weight")
    assert (status, err) == (1, "")
    assert out == "decision changed: blocks.3.norm1.weight: decays -> does not decay\n"


@pytest.mark.slow
def test_check_for_programs(gammareg, tmp_path):
    path = str(tmp_path / "roles.lock.json")
    gammareg("inspect", SOURCE, "--lock", path)
    words = ("inspect", SOURCE, "--check", path, "--format", "json")
    status, out, err = gammareg(*words)
    assert (status, err) == (0, "")
    data = json.loads(out)
    assert list(data) == ["source", "policy", "library", "lock", "locked_library", "changes"]
    assert (data["source"], data["lock"], data["changes"]) == (SOURCE, path, [])
    status, out, err = gammareg(*words, "--gamma-no-decay", "blocks.3.norm1.weight")
    assert (status, err) == (1, "")
    assert json.loads(out)["changes"] == ["decision changed: blocks.3.norm1.weight: decays -> does not decay"]


@pytest.mark.slow
def test_a_lock_of_a_folder_is_the_same_however_its_path_is_spelt(gammareg, tmp_path, monkeypatch):
    folder = tmp_path / "models" / "vit"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"architecture": "test_vit"}))
    monkeypatch.chdir(tmp_path)
    assert gammareg("inspect", "models/vit", "--lock", "roles.lock.json")[0] == 0
    monkeypatch.chdir(folder)
    lock = str(tmp_path / "roles.lock.json")
    for spelt in (str(folder), ".", "../vit/", "./config.json"):
        status, out, err = gammareg("inspect", spelt, "--check", lock)
        assert (status, err) == (0, ""), out


def test_picture_beside_the_table(gammareg, tmp_path):
    path = tmp_path / "vit.png"
    status, out, err = gammareg("inspect", SOURCE, "--picture", str(path))
    assert (status, err, out) == (0, "", gammareg("inspect", SOURCE)[1])
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_command_exports_once(gammareg, tmp_path, traced):
    words = ("--picture", str(tmp_path / "a.svg"), "--lock", str(tmp_path / "a.lock.json"))
    assert gammareg("inspect", SOURCE, *words)[0] == 0
    assert (len(traced["export"]), traced["draft"], traced["copy"]) == (1, [], [])
    assert gammareg("verify", SOURCE, "--sample")[0] == 0
    assert (len(traced["export"]), traced["draft"], traced["copy"]) == (2, [], [])


@pytest.mark.slow
def test_verify_agrees(gammareg):
    status, out, err = gammareg("verify", SOURCE, "--sample")
    assert (status, err) == (0, "")
    assert out == f"{SOURCE}: 3 of 13 gammas measured, no disagreements.\n"


@pytest.mark.slow
def test_verify_tells_a_disagreement(gammareg, monkeypatch):
    from hf_gammareg.roles.find import analyse

    def wrong(model, inputs=None):
        found = analyse(model, inputs)
        kept = (replace(g, role=Role.TRUNK) if g.name == "norm.weight" else g for g in found.gammas)
        return replace(found, gammas=GammaMap(gammas=tuple(kept), source=found.gammas.source))

    monkeypatch.setattr("hf_gammareg.roles.find.analyse", wrong)
    status, out, err = gammareg("verify", SOURCE, "--sample")
    assert (status, err) == (1, "")
    assert out.splitlines()[0].split() == ["role", "measured", "gammas", "why"]
    assert out.splitlines()[2].split()[:3] == ["trunk", "output", "norm.weight"]
    assert out.splitlines()[-1] == f"{SOURCE}: 3 of 13 gammas measured, 1 disagreement."
    status, out, err = gammareg("verify", SOURCE, "--sample", "--format", "json")
    assert (status, err) == (1, "")
    data = json.loads(out)
    assert (data["measured"], data["disagreements"], data["unknown"]) == (3, 1, 0)
    assert [row["name"] for row in data["gammas"] if not row["agrees"]] == ["norm.weight"]


@pytest.mark.slow
def test_verify_tells_of_a_gain_that_is_said_to_be_no_gamma(gammareg, monkeypatch):
    from hf_gammareg.roles.find import analyse

    def blind(model, inputs=None):
        found = analyse(model, inputs)
        kept = tuple(g for g in found.gammas if g.name != "norm.weight")
        return replace(found, gammas=GammaMap(gammas=kept, source=found.gammas.source))

    monkeypatch.setattr("hf_gammareg.roles.find.analyse", blind)
    status, out, err = gammareg("verify", SOURCE)
    assert (status, err) == (1, "")
    assert out.splitlines()[2].split()[:4] == ["none", "gain", "norm.weight", "Multiplies"]
    assert out.splitlines()[-1] == f"{SOURCE}: 12 of 12 gammas measured, 1 disagreement."
    status, out, err = gammareg("verify", SOURCE, "--format", "json")
    assert (status, err) == (1, "")
    data = json.loads(out)
    assert (data["measured"], data["disagreements"]) == (12, 1)
    assert [row["role"] for row in data["gammas"] if not row["agrees"]] == [None]
    assert {row["role"] for row in data["gammas"] if row["agrees"]} == {"last"}


def decayed(out):
    return {row["name"] for row in json.loads(out)["gammas"] if row["decays"]}


@pytest.mark.slow
def test_policy_and_patterns_decide(gammareg):
    last = {f"blocks.{block}.norm{norm}.weight" for block in range(6) for norm in (1, 2)}
    words = ("inspect", SOURCE, "--format", "json")
    assert decayed(gammareg(*words)[1]) == last
    assert decayed(gammareg(*words, "--policy", "final")[1]) == {"norm.weight"}
    patterns = (
        "--policy",
        "none",
        "--gamma-decay",
        "norm.weight",
        "--gamma-decay",
        "blocks.0.*",
        "--gamma-no-decay",
        "*.norm2.weight",
    )
    status, _, err = gammareg(*words, *patterns)
    assert status == 2
    assert "'blocks.0.norm2.weight' in both" in err
    assert decayed(gammareg(*words, *patterns[:-2])[1]) == {"norm.weight"} | {n for n in last if "blocks.0." in n}
    assert decayed(gammareg(*words, *patterns[-2:])[1]) == {name for name in last if "norm1" in name}


def test_table(gammareg):
    status, out, err = gammareg("inspect", SOURCE)
    assert (status, err) == (0, "")
    assert out.startswith("timm/test_vit, policy guidelines\n\nrole    decays   gammas")
    assert "\nlast    yes      blocks.*.norm1.weight x6 " in out
    assert "\nfinal   no       norm.weight " in out
    assert out.endswith("13 gammas: 1 final, 12 last; 12 of them decay. Graph: export (train mode).\n")
    assert "\x1b" not in out
    every = gammareg("inspect", SOURCE, "--all")[1]
    assert all(f" blocks.{block}.norm{norm}.weight " in every for block in range(6) for norm in (1, 2))


def on_a_terminal(columns, *words):
    """What a command writes to a terminal of so many columns."""
    controller, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, columns))
    command = [sys.executable, "-m", "hf_gammareg", *words]
    unset = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE")
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    child = subprocess.Popen(command, stdout=terminal, stdin=terminal, env=kept | {"TERM": "xterm"})
    os.close(terminal)
    parts = []
    with contextlib.suppress(OSError):  # how Linux tells that the other side is gone
        while part := os.read(controller, 4096):
            parts.append(part)
    os.close(controller)
    assert child.wait() == 0
    return b"".join(parts).decode().replace("\r\n", "\n")


def without_colours(text):
    return re.sub(r"\x1b\[[\d;]*m", "", text)


@pytest.mark.slow
def test_a_terminal_has_its_width_and_its_colours():
    shown = on_a_terminal(60, "inspect", SOURCE)
    assert "\x1b[1;32myes" in shown
    table = without_colours(shown).split("\n\n")[1]
    assert 50 < max(map(len, table.splitlines())) <= 60


def test_rich_decides_what_a_terminal_is(gammareg, monkeypatch):
    for name in ("NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("COLUMNS", "180"), ("FORCE_COLOR", "1"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    coloured = gammareg("inspect", SOURCE)[1]
    assert "\x1b[1;32myes" in coloured
    assert "Reaches the output through `head`, normalised by nothing on the way.\n" in without_colours(coloured)
    monkeypatch.setenv("NO_COLOR", "1")
    plain = gammareg("inspect", SOURCE)[1]
    assert ";32m" not in plain
    assert without_colours(plain) == without_colours(coloured)
    assert without_colours(gammareg("inspect", SOURCE, "--diff", "trainer")[1]).startswith(f"{SOURCE}, policy")


def test_a_reason_is_never_cut(gammareg, monkeypatch):
    from hf_gammareg.roles.find import analyse

    long = "Cancelled by " + "a norm, then " * 60 + "the last word."

    def wordy(model, inputs=None):
        found = analyse(model, inputs)
        kept = tuple(replace(g, reason=long, role=Role.UNKNOWN) for g in found.gammas)
        return replace(found, gammas=GammaMap(gammas=kept, source=found.gammas.source))

    monkeypatch.setattr("hf_gammareg.roles.find.analyse", wordy)
    out = gammareg("inspect", SOURCE)[1]
    assert "last word." in out
    assert f"({long.rstrip('.')})" in out
    assert long in gammareg("inspect", SOURCE, "--format", "md")[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Missing command"),
        (["inspect"], "SOURCE"),
        (["inspekt"], "Did you mean 'inspect'?"),
        (["inspect", SOURCE, "--polcy", "all"], "--policy"),
        (["inspect", SOURCE, "--policy", "lsat,absorbed"], "found 'lsat'. Did you mean last?"),
        (["inspect", SOURCE, "--diff", "qwen3-next"], "Did you mean qwen3_next?"),
        (["inspect", "resnt18"], "Did you mean timm/resnet18 or "),
        (["inspect", __file__.replace("cli", "clii")], "Did you mean test_cli.py"),
        (["inspect", SOURCE, "--bogus"], "--bogus"),
        (["inspect", SOURCE, "--format", "xml"], "'xml'"),
        (["inspect", SOURCE, "--format"], "--format"),
        (["inspect", SOURCE, "--policy", "guideline"], "found 'guideline'"),
        (["inspect", SOURCE, "--gamma-decay", "nothing.*"], "'nothing.*', which matches none of"),
        (["inspect", "timm/no_such_model"], "'no_such_model'"),
        (["inspect", "transformers/no_such_type"], "'no_such_type'"),
        (["inspect", "./no/such/folder"], "no/such/folder"),
        (["inspect", ""], "Expected"),
        (["inspect", SOURCE, "--diff", "guideline"], "found 'guideline'"),
        (["inspect", SOURCE, "--picture", "a.pdf"], "'a.pdf'"),
        (["inspect", SOURCE, "--check", "no/such.json"], "'no/such.json' to be a lock file"),
        (["inspect", SOURCE, "--check", "a.json", "--lock", "b.json"], "without --lock, found both"),
        (["inspect", SOURCE, "--check", "a.json", "--diff", "all"], "without --diff, found both"),
        (["inspect", SOURCE, "--check", "a.json", "--format", "csv"], "without --format csv, found both"),
        (["inspect", SOURCE, "--check", ""], "'.' to be a lock file"),
        (["inspect", SOURCE, "--lock", "."], "name of a lock file to write, found the folder '.'"),
        (["inspect", SOURCE, "--lock", ""], "name of a lock file to write, found the folder '.'"),
        (["verify", SOURCE, "--bogus"], "See 'gammareg verify --help'."),
        (["inspect", SOURCE, "--bogus"], "See 'gammareg inspect --help'."),
        (["verify", "./no/such/folder"], "no/such/folder"),
        (["verify", "timm/no_such_model"], "'no_such_model'"),
    ],
)
def test_an_error_is_one_line_on_stderr_and_status_2(words, message, gammareg):
    status, out, err = gammareg(*words)
    assert (status, out) == (2, "")
    assert err.startswith("gammareg: error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert message in err


def test_an_error_that_nobody_foresaw_is_one_line_too(gammareg, monkeypatch):
    def broken(source):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("hf_gammareg.inputs.sources.load_source", broken)
    assert gammareg("inspect", SOURCE) == (2, "", "gammareg: error: RuntimeError: first line second line\n")


def test_what_libraries_say_reaches_neither_stream(gammareg, monkeypatch):
    from hf_gammareg.inputs import sources

    build = sources.load_source
    logger = logging.getLogger("chatter")
    handler = logging.StreamHandler(sys.stderr)  # as a library's own handler has it, from before the command ran
    logger.addHandler(handler)

    def chatty(source):
        print("chatter")
        print("chatter", file=sys.stderr)
        warnings.warn("chatter", stacklevel=1)
        logger.error("chatter")
        return build(source)

    monkeypatch.setattr(sources, "load_source", chatty)
    status, out, err = gammareg("inspect", SOURCE, "--format", "json")
    logger.removeHandler(handler)
    assert (status, err) == (0, "")
    assert json.loads(out)["counts"] == COUNTS
    assert logging.root.manager.disable == logging.NOTSET


def test_a_model_that_can_not_be_traced_is_told_loudly(gammareg, monkeypatch):
    def failing(*args, **kwargs):
        raise RuntimeError("data-dependent branch")

    monkeypatch.setattr("hf_gammareg.roles.find.trace", failing)
    status, out, err = gammareg("inspect", SOURCE)
    assert (status, err) == (0, "")
    assert "WARNING: 13 gammas of unknown role" in out
    assert "data-dependent branch" in out
    assert "none of them decays" in out


def test_help(gammareg):
    for words in (["--help"], ["inspect", "--help"], ["-h"], ["verify", "-h"]):
        status, out, err = gammareg(*words)
        assert (status, err) == (0, "")
        assert "Usage: gammareg" in out


def test_as_a_module_and_without_torch_for_help():
    code = "import sys; from hf_gammareg import cli; cli.main(['--help']); print('torch' in sys.modules)"
    helped = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert helped.stdout.splitlines()[-1] == "False"
    wrong = subprocess.run([sys.executable, "-m", "hf_gammareg", "inspekt"], capture_output=True, text=True)
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1)


def test_version(gammareg):
    assert gammareg("--version") == (0, f"gammareg {hf_gammareg.__version__}\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--help"], ["inspect", SOURCE], ["inspect", SOURCE, "--all", "--format", "json"]])
def test_a_reader_that_goes_before_the_end_is_no_difference(words):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "hf_gammareg", *words], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "words",
    [
        ["inspect", "./no/such/folder"],
        ["verify", "./no/such/folder"],
        ["inspect", SOURCE, "--policy", "guideline"],
        ["inspect", SOURCE, "--lock", "."],
        ["inspect", SOURCE, "--check", "no/such.json"],
    ],
)
def test_what_is_wrong_at_first_sight_is_told_before_torch_is_loaded(words):
    code = f"import sys; from hf_gammareg import cli; print(cli.main({words!r}), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "2 False\n"
