"""The table, the file and the line."""

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from hf_gammareg.decay.policy import decide
from hf_gammareg.roles.gammas import Gamma, GammaMap, Role, table_text
from hf_gammareg.roles.table import WIDTH, pattern
from hf_gammareg.show.report import gamma_rows, report_dict, summary_line, write_report


def gamma(name, role, **fields):
    usual = {"kind": "batch_norm", "numel": 4, "exact": True, "placement": None, "zero_centered": False}
    reason = f"Reaches the residual add in `{name.rsplit('.', 2)[0]}` on the {role} side, or so it says here."
    return Gamma(name=name, role=Role(role), **(usual | {"trainable": True, "reason": reason} | fields))


def resnet_like():
    gammas = [gamma("bn1.weight", "trunk")]
    for layer in (1, 2):
        for block in (0, 1):
            gammas += [gamma(f"layer{layer}.{block}.bn{n}.weight", r) for n, r in ((1, "absorbed"), (2, "last"))]
    gammas.append(gamma("layer2.0.downsample.1.weight", "shortcut"))
    return GammaMap(gammas=tuple(gammas), source="export (train mode)")


MAP = resnet_like()
DECAYS = decide(MAP, None)


def rows_of(text):
    """The table's rows by their first three columns; continuation lines are left out."""
    lines = text.splitlines()
    rule = next(index for index, line in enumerate(lines) if set(line) == {"-"})
    return [line.split()[:4] for line in lines[rule + 1 :] if line and not line.startswith(" ")]


def test_table_has_one_row_for_each_role_and_place():
    text = table_text(MAP, DECAYS)
    assert rows_of(text)[:4] == [
        ["trunk", "no", "bn1.weight", "Reaches"],
        ["shortcut", "no", "layer2.0.downsample.1.weight", "Reaches"],
        ["last", "yes", "layer*.*.bn2.weight", "x4"],
        ["absorbed", "yes", "layer*.*.bn1.weight", "x4"],
    ]
    summary = "10 gammas: 1 trunk, 1 shortcut, 4 last, 4 absorbed; 8 of them decay. Graph: export (train mode)."
    assert text.splitlines()[-1] == summary
    assert text.splitlines()[0].split() == ["role", "decays", "gammas", "why"]


def test_table_without_decisions_is_the_maps_own_text():
    assert str(MAP) == table_text(MAP)
    assert str(MAP).splitlines()[0].split() == ["role", "gammas", "why"]
    assert str(MAP).splitlines()[-1].startswith("10 gammas: 1 trunk, 1 shortcut, 4 last, 4 absorbed. Graph")


def test_table_of_every_gamma_is_in_model_order():
    rows = rows_of(table_text(MAP, DECAYS, every=True))
    assert [row[2] for row in rows[: len(MAP)]] == list(MAP.names)
    assert [row[1] for row in rows[: len(MAP)]] == ["yes" if decays else "no" for decays in DECAYS.values()]


@pytest.mark.parametrize("columns", ["20", "300"])
def test_table_is_the_same_in_every_terminal(columns, monkeypatch):
    plain = table_text(MAP, DECAYS)
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert table_text(MAP, DECAYS) == plain
    assert "\x1b" not in plain
    assert plain.isascii()
    assert max(map(len, plain.splitlines())) <= WIDTH


def test_long_names_and_markup_come_out_whole():
    name = "[bold]model." + ".".join(["a_rather_long_module_name"] * 4) + ".weight"
    text = table_text(GammaMap(gammas=(gamma(name, "last", reason="Because [red]so[/red]."),), source="by hand"))
    lines = text.splitlines()
    column = slice(lines[0].index("gammas"), lines[0].index("why"))
    assert "".join(line[column].strip() for line in lines[2 : lines.index("")]) == name
    assert "[red]so[/red]" in text
    assert max(map(len, text.splitlines()[:-1])) <= WIDTH


def test_mixed_and_frozen_groups_are_marked():
    frozen = GammaMap(gammas=tuple(replace(g, trainable=g.role is not Role.LAST) for g in MAP), source="by hand")
    rows = rows_of(table_text(frozen, DECAYS | {"layer1.0.bn1.weight": False}))
    assert rows[2][:2] == ["last", "frozen"]
    assert rows[3][:4] == ["absorbed", "3", "of", "4"]


def test_one_centred_gammas_are_named():
    centred = GammaMap(gammas=(gamma("norm.weight", "last", zero_centered=True),), source="by hand")
    assert "1 gamma multiplies by 1 + w: decay pulls its gain to 1, not to 0." in table_text(centred)


def test_a_model_without_gammas():
    assert table_text(GammaMap(gammas=(), source="by hand")).startswith("No gammas")


def unknown_map(*reasons):
    gammas = [gamma(f"norm{n}.weight", "unknown", reason=reason) for n, reason in enumerate(reasons)]
    return GammaMap(gammas=(*gammas, gamma("bn.weight", "last")), source="export (train mode)")


def test_unknown_roles_are_loud():
    gammas = unknown_map("Reads foo.", "Not reached.", "Not reached.")
    none = decide(gammas, None)
    expected = "WARNING: 3 gammas of unknown role (Not reached and another reason): none of them decays."
    assert table_text(gammas, none).splitlines()[-1] == expected
    assert summary_line(gammas, none).endswith(expected)
    assert summary_line(gammas, decide(gammas, None, "all")).endswith("another reason): 3 of them decay.")
    assert "WARNING" not in summary_line(MAP, DECAYS)


def test_summary_line_says_what_decays_and_what_would_have():
    line = summary_line(MAP, DECAYS, dict.fromkeys(MAP.names, True), strength=0.05)
    assert line == (
        "policy 'guidelines' decays 8 of 10 gammas: 4 last, 4 absorbed (not 1 trunk, 1 shortcut); plain Trainer would "
        "decay 10 (1 trunk, 1 shortcut, 4 last, 4 absorbed)."
    )
    assert "their weight decay is 0" in summary_line(MAP, DECAYS, strength=0)
    none = summary_line(MAP, dict.fromkeys(MAP.names, False), policy="none", strength=0)
    assert none == "policy 'none' decays 0 of 10 gammas (not 1 trunk, 1 shortcut, 4 last, 4 absorbed)."


def test_rows_and_report_hold_the_decisions():
    rows = gamma_rows(MAP, DECAYS)
    assert {row["name"]: row["decays"] for row in rows} == DECAYS
    data = json.loads(json.dumps(report_dict(MAP, DECAYS, policy="guidelines", weight_decay=0.05)))
    assert {row["name"]: row["decays"] for row in data["gammas"]} == DECAYS
    assert (data["policy"], data["weight_decay"], data["counts"]) == ("guidelines", 0.05, MAP.counts)
    assert GammaMap.from_dict(data) == MAP  # the decisions and settings beside the gammas are passed over


def test_report_file_is_whole_or_not_there(tmp_path, monkeypatch):
    path = write_report(tmp_path / "new" / "gamma_report.json", MAP, DECAYS, policy="guidelines")
    before = path.read_text()
    assert json.loads(before)["counts"] == MAP.counts
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask

    def killed(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_report(path, MAP, DECAYS, policy="none")
    assert path.read_text() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["bn.weight"], "bn.weight"),
        (["layer2.0.down.1.weight", "layer3.0.down.1.weight"], "layer*.0.down.1.weight"),
        (["h.9.ln", "h.10.ln"], "h.*.ln"),
    ],
)
def test_pattern_keeps_the_numbers_that_all_share(names, expected):
    assert pattern(names) == expected
