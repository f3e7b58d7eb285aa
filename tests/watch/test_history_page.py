"""The page about training, without a browser: what it holds, what it refuses, and that names in it are text."""

import json
import re

import pytest

from hf_gammareg import GammaRegError, cli, write_history_page
from hf_gammareg.watch.history import HISTORY_NAME, History
from hf_gammareg.watch.page import MOST, read_runs


def ran(folder, *, steps=(0, 10, 20), pull=0.02, probe=False, role="last"):
    """A folder with the history of a run, whose mean |gamma| falls by `pull` a step."""
    history = History(folder / HISTORY_NAME)
    for step in steps:
        mean = 1 - pull * step
        row = {f"gamma/{role}/{key}": value for key, value in {"mean": mean, "min": mean / 2, "max": 2.0}.items()}
        row |= {f"gamma/{role}/near_zero": 0.0, "gamma/absorbed/effective_lr": 0.1 / (1 + step)}
        if probe:
            row |= {f"gamma/residual/ratio/{depth:03d}": 2.0 / (1 + depth + step) for depth in range(3)}
        history.append(step, row)
    return folder


def held(path):
    """What the page's script reads."""
    return json.loads(re.search(r"const runs = (.*), colours = \d+;\n", path.read_text())[1])


def test_it_holds_the_rows_of_each_run(tmp_path):
    runs = [ran(tmp_path / "a", probe=True), ran(tmp_path / "b", pull=0.0) / HISTORY_NAME]
    first, second = held(write_history_page(tmp_path / "page.html", *runs))
    assert (first["name"], second["name"]) == ("a", "b")
    assert first["steps"] == second["steps"] == [0, 10, 20]
    assert first["values"]["gamma/last/mean"] == [1.0, 0.8, 0.6]
    assert first["values"]["gamma/residual/ratio/001"] == [1.0, 0.166667, 0.0909091]
    assert second["values"]["gamma/last/mean"] == [1.0, 1.0, 1.0]
    assert "gamma/residual/ratio/001" not in second["values"]


def test_numbers_are_in_the_table_without_a_script(tmp_path):
    text = write_history_page(tmp_path / "page.html", ran(tmp_path / "a")).read_text()
    assert re.findall(r'<td class="number">([^<]*)</td>', text) == ["1", "0.6", "0.5", "0.3", "2", "2", "0", "0"]
    assert "Branch to skip" not in text
    assert "3 measurements, step 0 to 20" in text


def test_what_was_not_finite_is_a_gap(tmp_path):
    history = History(tmp_path / HISTORY_NAME)
    for step, value in enumerate((1.0, float("nan"), 0.5)):
        history.append(step, {"gamma/last/mean": value})
    (run,) = held(write_history_page(tmp_path / "page.html", tmp_path))
    assert run["values"] == {"gamma/last/mean": [1.0, None, 0.5]}


def test_a_long_run_is_thinned_and_keeps_its_ends(tmp_path):
    steps = range(3 * MOST)
    path = write_history_page(tmp_path / "page.html", ran(tmp_path / "long", steps=steps, pull=1e-4))
    (run,) = held(path)
    assert len(run["steps"]) == len(run["values"]["gamma/last/mean"]) == MOST
    assert (run["steps"][0], run["steps"][-1]) == (steps[0], steps[-1])
    assert run["steps"] == sorted(set(run["steps"]))
    assert f"hold {MOST} measurements of a longer run" in path.read_text()
    assert f"{len(steps)} measurements" in path.read_text()


def test_runs_of_one_name_are_called_by_their_paths(tmp_path):
    folders = [ran(tmp_path / name / "out") for name in "ab"]
    assert list(read_runs(folders)) == [str(folder) for folder in folders]
    assert list(read_runs([folders[0], ran(tmp_path / "c")])) == ["out", "c"]


def test_names_are_text(tmp_path):
    evil = "<img src=x onerror=alert(1)>"
    text = write_history_page(tmp_path / "page.html", ran(tmp_path / evil), ran(tmp_path / "b")).read_text()
    assert "<img" not in text
    assert held(tmp_path / "page.html")[0]["name"] == evil
    assert set(re.findall(r"https?://[\w./]*", text)) == {"http://www.w3.org/2000/svg"}


def test_what_can_not_be_drawn_is_told(tmp_path):
    ran(tmp_path / "a")
    History(tmp_path / "empty.jsonl").append(0, {"loss": 1.0})
    for runs, words in (
        ([], "found nothing"),
        ([tmp_path / "nothing"], "FileNotFoundError"),
        ([tmp_path / "empty.jsonl"], "values of gammas in .* found none"),
        ([tmp_path / "a", tmp_path], "FileNotFoundError"),
    ):
        with pytest.raises(GammaRegError, match=rf"^Expected .*{words}"):
            write_history_page(tmp_path / "page.html", *runs)
    with pytest.raises(GammaRegError, match=r"end in \.html"):
        write_history_page(tmp_path / "page.png", tmp_path / "a")


def test_the_command_line_tells_and_writes(tmp_path, capsys):
    runs = [str(ran(tmp_path / "a")), str(ran(tmp_path / "b", pull=0.0, role="trunk"))]
    page = tmp_path / "page.html"
    assert cli.main(["history", *runs, "--html", str(page)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "a: 3 measurements, step 0 to 20; mean |gamma|: last 1 to 0.6.",
        "b: 3 measurements, step 0 to 20; mean |gamma|: trunk 1 to 1.",
    ]
    assert f"gammareg history {' '.join(runs)} --html {page}" in page.read_text()
    assert cli.main(["history", *runs, "--html", "page.png"]) == 2
    assert cli.main(["history", str(tmp_path / "nothing")]) == 2
    assert capsys.readouterr().err.count("gammareg: error: Expected ") == 2
