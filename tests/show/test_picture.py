"""The picture: what blocks a network has, how they are collapsed, and what is drawn of them."""

import builtins
import re

import pytest
import timm
import torch
from torch import nn

from hf_gammareg import analyse, find_gammas
from hf_gammareg.errors import GammaRegError
from hf_gammareg.roles.gammas import Role
from hf_gammareg.show.blocks import Block, collapse, find_blocks
from hf_gammareg.show.picture import STYLE, draw


def blocks_of(model, inputs=None):
    analysis = analyse(model, inputs)
    return find_blocks(analysis.sums.values(), analysis.sites, analysis.ancestry)


def test_blocks_of_a_resnet_hold_branch_and_shortcut():
    blocks = blocks_of(timm.create_model("resnet18"))
    assert [block.lanes for block in blocks[:2]] == [
        (("bn1.weight",),),
        ((), ("layer1.0.bn1.weight", "layer1.0.bn2.weight")),
    ]
    assert [block.label for block in blocks] == ["bn1", *(f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1))]
    assert blocks[3].lanes[0] == ("layer2.0.downsample.1.weight",)
    assert [block.residual for block in blocks] == [False] + [True] * 8


def test_every_use_of_a_gamma_is_in_one_block():
    for name in ("test_efficientnet", "test_vit", "test_byobnet"):
        model = timm.create_model(name)
        drawn = [gamma for block in blocks_of(model) for gamma in block.names]
        assert sorted(drawn) == sorted(find_gammas(model).names)


class Parallel(nn.Module):
    """Two branches side by side, without a skip."""

    def __init__(self):
        super().__init__()
        self.left, self.right = (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)) for _ in range(2))

    def forward(self, x):
        return self.left(x) + self.right(x)


def test_parallel_branches_are_a_block_without_a_skip():
    (block,) = blocks_of(Parallel(), torch.zeros(2, 3, 8, 8))
    assert block.lanes == (("left.1.weight",), ("right.1.weight",))
    assert not block.residual


def block(*names):
    return Block(lanes=((), names), module="m", residual=True)


def test_repeated_groups_are_drawn_once_with_their_count():
    layers = [block(f"h.{i}.{norm}.weight") for i in range(100) for norm in ("ln1", "ln2")]
    runs = collapse([block("stem.bn.weight"), *layers, block("norm.bn.weight")])
    assert [(run.labels, run.count) for run in runs] == [(("stem",), 1), (("h.0-99", "h.0-99"), 100), (("norm",), 1)]
    assert sum(len(run.blocks) * run.count for run in runs) == 202


def test_blocks_that_differ_in_more_than_a_number_are_not_repeated():
    different = [block(f"a.{i}.x.weight") for i in range(3)] + [block(f"b.{i}.x.weight") for i in range(3)]
    assert [run.count for run in collapse(different, few=0)] == [3, 3]
    wider = [block(f"a.{i}.x.weight", *["a.0.y.weight"] * i) for i in range(3)]
    assert [run.count for run in collapse(wider, few=0)] == [1, 1, 1]
    twice = [block(f"a.{i}.b.{i}.x.weight") for i in range(3)]
    assert [run.count for run in collapse(twice, few=0)] == [1, 1, 1]


def test_gammas_of_other_roles_are_not_drawn_as_one():
    layers = [block(f"h.{i}.ln.weight") for i in range(6)]
    looks = {name: "last" if i < 3 else "absorbed" for i, name in enumerate(n for one in layers for n in one.names)}
    assert [(run.labels, run.count) for run in collapse(layers, looks, few=0)] == [(("h.0-2",), 3), (("h.3-5",), 3)]


def test_a_layers_own_number_counts_nothing():
    norms = [Block(lanes=((f"h.0.bn{i}.weight",),), module=f"h.0.bn{i}") for i in range(3)]
    assert [run.count for run in collapse(norms, few=0)] == [1, 1, 1]


def test_few_blocks_are_all_shown():
    assert [run.count for run in collapse([block(f"a.{i}.x.weight") for i in range(12)])] == [1] * 12


def test_roles_differ_in_letter_and_colour():
    assert set(STYLE) == set(Role)
    assert (
        len({letter for letter, _, _ in STYLE.values()})
        == len({colour for _, colour, _ in STYLE.values()})
        == len(STYLE)
    )


def test_an_svg_has_every_gamma(tmp_path, monkeypatch):
    import matplotlib as mpl

    monkeypatch.setitem(mpl.rcParams, "svg.fonttype", "none")  # letters as text
    analysis = analyse(timm.create_model("test_resnet"))
    gammas = analysis.gammas
    decays = dict.fromkeys(gammas.names, True)
    text = draw(tmp_path / "new" / "a.svg", analysis, decays=decays, title="<test>").read_text()
    assert "&lt;test&gt;" in text
    letters = re.findall(r">([A-Z])</text>", text)
    # Each gamma once, and each role once more in the legend.
    for role, count in gammas.counts.items():
        assert letters.count(STYLE[Role(role)][0]) == count + 1
        assert f"{role}: {count}" in text
    assert f"decays ({len(gammas)} of {len(gammas)})" in text


@pytest.mark.slow
def test_texts_do_not_overlap(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k)))
    for name in ("test_resnet", "test_byobnet", "test_vit"):
        draw(tmp_path / f"{name}.png", analyse(timm.create_model(name)), title=name)
        (figure,) = figures
        figure.set_dpi(150)
        figure.canvas.draw()
        boxes = [t.get_window_extent() for t in figure.axes[0].texts if t.get_text().strip()]
        overlapping = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
        assert overlapping == [], name
        page = figure.bbox
        assert all(page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1 for box in boxes)
        figures.clear()


@pytest.mark.parametrize("name", ["a.pdf", "a", "svg"])
def test_another_suffix_is_told(tmp_path, name):
    with pytest.raises(GammaRegError, match=r"end in \.svg or \.png, found"):
        draw(tmp_path / name, analyse(nn.Linear(1, 1), torch.zeros(1)))


def test_matplotlib_missing_is_told(tmp_path, monkeypatch):
    load = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return load(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(GammaRegError, match=r"hf-gammareg\[recipes\]"):
        draw(tmp_path / "a.svg", analyse(nn.Linear(1, 1), torch.zeros(1)))


def test_a_model_that_can_not_be_traced_has_no_picture(tmp_path):
    class Untraceable(nn.Module):
        def forward(self, x):
            raise RuntimeError("no")

    with pytest.raises(GammaRegError, match=r"torch\.export can trace"):
        draw(tmp_path / "a.svg", analyse(Untraceable(), torch.zeros(1)))
    assert list(tmp_path.iterdir()) == []
