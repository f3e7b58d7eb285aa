"""The page about a model, as text: it holds all there is, nothing in it acts, and it asks the network for nothing."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import timm
import torch
from torch import nn

from hf_gammareg import Plan, analyse, cli, decide, write_page
from hf_gammareg.errors import GammaRegError
from hf_gammareg.roles.find import unknown
from hf_gammareg.roles.gammas import Role
from hf_gammareg.show.page import MEANING
from hf_gammareg.show.strip import draw_strip


class Reader(HTMLParser):
    """Tags with their attributes, and the text of each row of the table of gammas."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self.text, self.inside, self.cell = [], [], "", [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag in ("script", "style"):
            self.inside.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")
            self.cell = True

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self.inside.pop()
        if tag == "td":
            self.cell = False

    def handle_data(self, data):
        if not self.inside:
            self.text += data
            if self.cell:
                self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def resnet():
    model = timm.create_model("test_resnet")
    return model, analyse(model)


def written(folder, model, analysis, **options):
    decays = decide(analysis.gammas, model)
    others = {name: decide(analysis.gammas, model, name) for name in ("trainer", "timm")}
    return write_page(folder / "page.html", analysis, decays, model, **{"others": others} | options).read_text()


def test_every_gamma_has_its_reason_and_decisions(resnet, tmp_path):
    model, analysis = resnet
    page = Reader(written(tmp_path, model, analysis, source="timm/test_resnet"))
    rows = [row for row in page.rows if len(row) == 8]
    rules = [decide(analysis.gammas, model, policy) for policy in ("guidelines", "trainer", "timm")]
    assert len(rows) == len(analysis.gammas)
    for row, gamma in zip(rows, analysis.gammas, strict=True):
        told = [" ".join(cell.split()) for cell in row]
        assert told[1] == f"{gamma.name}{gamma.reason.replace('`', '')}"
        assert told[2].endswith(gamma.role)
        assert told[3:6] == ["yes" if rule[gamma.name] else "no" for rule in rules]
        assert told[6:] == [gamma.kind, str(gamma.numel)]


def test_it_asks_the_network_for_nothing(resnet, tmp_path):
    text = written(tmp_path, *resnet)
    page = Reader(text)
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; ")
    assert not {tag for tag, _ in page.tags} & {"img", "iframe", "object", "base", "embed"}
    assert {a["href"] for tag, a in page.tags if tag == "link"} == {"data:,"}
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", text)
    assert not [a for tag, a in page.tags if tag == "script" and a]


EVIL = "</script><img src=x onerror=alert(1)>\"'&amp;{{ 7 * 7 }}`b`"


def test_whatever_things_are_called_is_text(resnet, tmp_path):
    model, analysis = resnet
    first, *rest = analysis.gammas.gammas
    gammas = replace(analysis.gammas, gammas=(replace(first, reason=EVIL, kind=EVIL), *rest), not_gammas={EVIL: EVIL})
    text = written(tmp_path, model, replace(analysis, gammas=gammas), source=EVIL, command=EVIL)
    plain, page = Reader(written(tmp_path, model, analysis, source="x", command="x")), Reader(text)
    assert {tag for tag, _ in page.tags} - {tag for tag, _ in plain.tags} <= {"code"}
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert page.text.count(EVIL) >= 3
    assert "onerror" not in {name for _, attributes in page.tags for name in attributes}


def test_a_gamma_may_be_called_anything(tmp_path):
    model = nn.Sequential(nn.Linear(4, 4))
    model.add_module("<b onclick=alert(1)>", nn.LayerNorm(4))
    analysis = analyse(model, torch.zeros(2, 4))
    page = Reader(written(tmp_path, model, analysis))
    assert "<b onclick=alert(1)>.weight" in page.text
    assert not [a for _, a in page.tags if "onclick" in a]


def test_all_blocks_are_drawn_with_all_their_gammas(resnet):
    model, analysis = resnet
    decays = decide(analysis.gammas, model)
    drawn = [drawing for part in draw_strip(analysis, decays) for drawing in part.drawings]
    assert sorted(name for one in drawn for name in one.members) == sorted(analysis.gammas.names)
    for one in drawn:
        assert [dot.name for dot in one.dots] == [name for side in one.sides for name in side]
        assert all(9 <= dot.x <= one.width - 9 and 9 <= dot.y <= one.height - 9 for dot in one.dots)
        assert len({(dot.x, dot.y) for dot in one.dots}) == len(one.dots)
        assert one.join is None or all(dot.x + 9 <= one.join for dot in one.dots)
        assert one.residual <= (one.join is not None)


def test_repetitions_are_drawn_once_and_stand_for_all():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.h = nn.ModuleList(nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4)) for _ in range(24))

        def forward(self, x):
            for layer in self.h:
                x = x + layer(x)
            return x

    model = Deep()
    analysis = analyse(model, torch.zeros(2, 4))
    (part,) = draw_strip(analysis, decide(analysis.gammas, model))
    (drawing,) = part.drawings
    assert (part.count, drawing.label, len(drawing.dots)) == (24, "h.0-23", 1)
    assert drawing.members == analysis.gammas.names


def test_what_is_unknown_is_told_with_its_reason(tmp_path):
    model = timm.create_model("test_vit")
    analysis = unknown(model, "RuntimeError: a <branch>")
    text = written(tmp_path, model, analysis)
    assert "There is no picture: none: RuntimeError: a &lt;branch&gt;." in text
    page = Reader(text)
    assert "The roles of 13 of 13 gammas are not known." in page.text
    assert ["13", "The model could not be traced: RuntimeError: a <branch>"] in [
        [c.strip() for c in r] for r in page.rows
    ]
    assert "The role of every gamma is known." in written(tmp_path, model, analyse(model))


def test_a_model_without_gammas_has_a_page(tmp_path):
    model = nn.Linear(2, 2)
    text = written(tmp_path, model, analyse(model, torch.zeros(1, 2)))
    assert "This Linear has no normalization layer with a gain." in text
    assert "There is nothing to draw." in text


def test_frozen_and_zero_centred_gammas_are_marked(resnet, tmp_path):
    model, analysis = resnet
    first, second, *rest = analysis.gammas.gammas
    gammas = (replace(first, trainable=False), replace(second, zero_centered=True), *rest)
    text = written(tmp_path, model, replace(analysis, gammas=replace(analysis.gammas, gammas=gammas)))
    rows = [[" ".join(cell.split()) for cell in row] for row in Reader(text).rows if len(row) == 8]
    assert rows[0][1].startswith(f"{first.name} frozen")
    assert rows[0][3:6] == ["frozen"] * 3
    assert rows[1][1].startswith(f"{second.name} 1 + w")
    assert "1 of the gammas multiply by 1 + w" in " ".join(text.split())


def test_the_plan_stands_in_the_fields(resnet, tmp_path):
    plan = Plan(learning_rate=2e-5, weight_decay=0.3, steps=77, schedule="linear", optimizer="SGD 0.9")
    page = Reader(written(tmp_path, *resnet, plan=plan))
    values = {a["id"]: a["value"] for tag, a in page.tags if tag == "input" and "value" in a}
    assert values == {"rate": "2e-05", "decay": "0.3", "steps": "77"}
    assert [a["value"] for tag, a in page.tags if tag == "option" and "selected" in a] == ["linear", "SGD 0.9"]


def test_every_role_has_a_meaning():
    assert set(MEANING) == set(Role)


@pytest.mark.parametrize("name", ["page.txt", "page", "html"])
def test_another_ending_is_told(resnet, tmp_path, name):
    model, analysis = resnet
    with pytest.raises(GammaRegError, match=r"end in \.html, found"):
        write_page(tmp_path / name, analysis, decide(analysis.gammas, model), model)


def test_a_place_that_can_not_be_written_is_told(resnet, tmp_path):
    model, analysis = resnet
    (tmp_path / "file").write_text("")
    with pytest.raises(GammaRegError, match=r"^Expected a place to write the page .*Name another\.$"):
        write_page(tmp_path / "file" / "a.html", analysis, decide(analysis.gammas, model), model)


def test_the_command_line_writes_one(tmp_path, capsys, traced):
    path = tmp_path / "vit.html"
    words = ["inspect", "timm/test_vit", "--policy", "last", "--gamma-no-decay", "blocks.0.*", "--html", str(path)]
    assert cli.main(words) == 0
    assert len(traced["export"]) == 1
    assert "13 gammas: 1 final, 12 last; 10 of them decay." in capsys.readouterr().out
    text = path.read_text()
    assert f"gammareg inspect timm/test_vit --policy last --gamma-no-decay &#39;blocks.0.*&#39; --html {path}" in text
    assert "touches <b>10</b> of them" in text
    assert "What other rules would do" in text


def test_a_wrong_ending_is_told_before_anything_is_built(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hf_gammareg.inputs.sources.load_source", lambda *args: pytest.fail("built"))
    assert cli.main(["inspect", "timm/test_vit", "--html", str(tmp_path / "a.pdf")]) == 2
    assert "end in .html, found 'a.pdf'" in capsys.readouterr().err


def test_facts_of_a_block_are_numbers_of_rows(resnet, tmp_path):
    model, analysis = resnet
    page = Reader(written(tmp_path, model, analysis))
    blocks = [a for tag, a in page.tags if tag == "button" and a.get("class") == "block"]
    listed = [int(number) for block in blocks for number in block["data-members"].split(",") if number]
    assert sorted(listed) == list(range(len(analysis.gammas)))
