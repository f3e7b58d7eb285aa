"""Policies: from roles to decisions."""

import pytest
import timm
from torch import nn
from transformers import Trainer, ViTConfig, ViTForImageClassification

from hf_gammareg import find_gammas
from hf_gammareg.errors import GammaRegError
from hf_gammareg.gammas import Gamma, GammaMap, Role
from hf_gammareg.policy import POLICIES, decide, find_rule, policy_name

MODEL = nn.Module()


def one_of_each_role() -> GammaMap:
    fields = {"kind": "layer_norm", "numel": 4, "exact": True, "placement": None, "zero_centered": False}
    gammas = [Gamma(name=f"{role}.weight", role=role, trainable=True, reason="because", **fields) for role in Role]
    return GammaMap(gammas=tuple(gammas), source="by hand")


def decayed(policy, **patterns) -> list[str]:
    decisions = decide(one_of_each_role(), MODEL, policy, **patterns)
    assert list(decisions) == list(one_of_each_role().names)
    return [name.removesuffix(".weight") for name, decays in decisions.items() if decays]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("guidelines", ["last", "absorbed"]),
        ("all", [str(role) for role in Role]),
        ("none", []),
        ("last", ["last"]),
        ("gate, trunk", ["trunk", "gate"]),
        (["final", "unknown"], ["unknown", "final"]),
        ([Role.SHORTCUT], ["shortcut"]),
        (lambda gammas, model: {"gate.weight"}, ["gate"]),
    ],
)
def test_policy_decays_these_roles(policy, expected):
    assert decayed(policy) == expected


def test_patterns_win_over_the_policy():
    assert decayed("none", decay=["t*.weight", "gate.weight"]) == ["trunk", "gate"]
    assert decayed("guidelines", no_decay="last.*") == ["absorbed"]
    assert decayed("guidelines", decay=["final.weight"], no_decay=["absorbed.weight"]) == ["final", "last"]


@pytest.mark.parametrize("policy", ["guideline", "", "last;absorbed", "last,", [], None, 3, ["last", 3], b"last"])
def test_unknown_policy_names_what_there_is(policy):
    with pytest.raises(GammaRegError, match=r"^Expected a policy \(guidelines, all, none.*found .*Use one of"):
        find_rule(policy)


@pytest.mark.parametrize("option", ["decay", "no_decay"])
def test_pattern_that_matches_nothing_raises(option):
    with pytest.raises(GammaRegError, match=rf"`{option}`.*'nothing\.\*'.*matches none of 'absorbed.weight'"):
        decayed("guidelines", **{option: ["last.weight", "nothing.*"]})


def test_gamma_in_both_lists_raises():
    with pytest.raises(GammaRegError, match=r"'last\.weight' in both"):
        decayed("guidelines", decay=["la*"], no_decay=["*t.weight"])


def test_policy_name_is_one_string():
    assert [policy_name(policy) for policy in ("all", ["last", Role.GATE], POLICIES["none"])] == [
        "all",
        "last,gate",
        "none",
    ]


def test_trainer_policy_is_what_trainer_does():
    # Plain Trainer decays BatchNorm gammas called bn1 and none called norm or of class LayerNorm.
    resnet = timm.create_model("test_resnet")
    gammas = find_gammas(resnet)
    own = Trainer.get_decay_parameter_names(None, resnet)
    assert decide(gammas, resnet, "trainer") == {name: name in own for name in gammas.names}
    assert decide(gammas, resnet, "trainer")["layer1.0.bn1.weight"]
    vit = ViTForImageClassification(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=32))
    assert not any(decide(find_gammas(vit), vit, "trainer").values())


class Matrix(nn.Module):
    """A norm whose gain has two dimensions, which timm decays unless `no_weight_decay()` lists it."""

    def __init__(self, excluded):
        super().__init__()
        self.norm = nn.LayerNorm((2, 4))
        self.no_weight_decay = lambda: excluded


@pytest.mark.parametrize(("excluded", "decays"), [(set(), True), ({"norm.weight"}, False)])
def test_timm_policy_is_what_timm_does(excluded, decays):
    fields = {"kind": "layer_norm", "numel": 8, "exact": True, "placement": None, "zero_centered": False}
    gamma = Gamma(name="norm.weight", role=Role.FINAL, trainable=True, reason="because", **fields)
    gammas = GammaMap(gammas=(gamma,), source="by hand")
    assert decide(gammas, Matrix(excluded), "timm") == {"norm.weight": decays}
