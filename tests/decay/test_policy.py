"""Policies: from roles to decisions."""

from functools import partial

import pytest
import timm
import timm.optim
from torch import nn
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

from hf_gammareg import find_gammas
from hf_gammareg.decay.policy import POLICIES, decide, find_rule, policy_name
from hf_gammareg.errors import GammaRegError
from hf_gammareg.roles.find import norm_parameters
from hf_gammareg.roles.gammas import Gamma, GammaMap, Role

MODEL = nn.Module()


def one_of_each_role() -> GammaMap:
    fields = {"kind": "layer_norm", "numel": 4, "exact": True, "placement": None, "zero_centered": False}
    gammas = [Gamma(name=f"{role}.weight", role=role, trainable=True, reason="because", **fields) for role in Role]
    return GammaMap(gammas=tuple(gammas), source="by hand")


def of_role(role, gammas, model):
    return {gamma.name for gamma in gammas.by_role(role)}


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
        (lambda gammas, model: ["gate.weight"], ["gate"]),
        (partial(of_role, "trunk"), ["trunk"]),
        ((role for role in ("last", "gate")), ["last", "gate"]),
    ],
)
def test_policy_decays_these_roles(policy, expected):
    assert decayed(policy) == expected


def test_patterns_win_over_the_policy():
    assert decayed("none", gamma_decay=["t*.weight", "gate.weight"]) == ["trunk", "gate"]
    assert decayed("guidelines", gamma_no_decay="last.*") == ["absorbed"]
    assert decayed("guidelines", gamma_decay=["final.weight"], gamma_no_decay=["absorbed.weight"]) == ["final", "last"]


@pytest.mark.parametrize("policy", ["guideline", "", "last;absorbed", "last,", [], None, 3, ["last", 3], b"last"])
def test_unknown_policy_names_what_there_is(policy):
    with pytest.raises(GammaRegError, match=r"^Expected a policy \(guidelines, all, none.*found .*Use one of"):
        find_rule(policy)


@pytest.mark.parametrize("option", ["gamma_decay", "gamma_no_decay"])
def test_pattern_that_matches_nothing_raises(option):
    with pytest.raises(GammaRegError, match=rf"`{option}`.*'nothing\.\*'.*matches none of 'absorbed.weight'"):
        decayed("guidelines", **{option: ["last.weight", "nothing.*"]})


def test_gamma_in_both_lists_raises():
    with pytest.raises(GammaRegError, match=r"'last\.weight' in both"):
        decayed("guidelines", gamma_decay=["la*"], gamma_no_decay=["*t.weight"])


@pytest.mark.parametrize(
    ("policy", "name"),
    [
        ("all", "all"),
        (["last", Role.GATE], "last,gate"),
        ((role for role in ("last", "gate")), "last,gate"),
        (POLICIES["none"], "none"),
        (partial(of_role, "trunk"), "of_role"),
    ],
)
def test_policy_name_is_one_string(policy, name):
    assert policy_name(policy) == name


def test_a_rule_that_names_what_is_no_gamma_raises():
    with pytest.raises(GammaRegError, match=r"found 'fc\.weight'\. It has 'absorbed\.weight'"):
        decide(one_of_each_role(), MODEL, lambda gammas, model: {"last.weight", "fc.weight"})


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


def norms_of(*places):
    fields = {"kind": "rms_norm", "numel": 4, "exact": True, "trainable": True, "reason": "because"}
    return GammaMap(
        gammas=tuple(
            Gamma(name=name, role=Role(role), placement=placement, zero_centered=centred, **fields)
            for name, role, placement, centred in places
        ),
        source="by hand",
    )


def test_iwd_decays_input_norms():
    gammas = norms_of(
        ("pre", "last", "input", False),
        ("post", "last", "output", False),
        ("inner", "absorbed", "input", False),
        ("q_norm", "gate", None, False),
        ("squeeze", "gate", "input", False),
        ("final", "final", "input", False),
        ("unseen", "unknown", "input", False),
    )
    assert [name for name, decays in decide(gammas, MODEL, "iwd").items() if decays] == ["pre", "inner", "final"]


def test_qwen3_next_decays_query_key_norms_and_all_that_are_zero_centred():
    gammas = norms_of(
        ("pre", "last", "input", False),
        ("q_norm", "gate", None, False),
        ("final", "final", "input", False),
        ("centred", "final", "input", True),
        ("stem", "trunk", "output", False),
    )
    assert [n for n, decays in decide(gammas, MODEL, "qwen3_next").items() if decays] == ["pre", "q_norm", "centred"]


def test_new_policies_on_a_real_decoder():
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    config = Gemma3TextConfig(**NARROW, num_key_value_heads=1, head_dim=16, use_cache=False)
    model = Gemma3ForCausalLM(config)
    gammas = find_gammas(model)
    by_iwd = {name.split(".")[-2] for name, decays in decide(gammas, model, "iwd").items() if decays}
    assert by_iwd == {"input_layernorm", "pre_feedforward_layernorm", "norm"}
    assert all(decide(gammas, model, "qwen3_next").values())  # Gemma's norms multiply by 1 + w


NARROW = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 64,
}
ENCODERS = ("bert", "roberta", "electra", "deberta-v2", "mpnet", "albert")
DECODERS = ("llama", "qwen3", "gemma2", "olmo2", "cohere", "gpt_neox", "phi")
TIMM = (
    *("test_resnet", "test_vit", "test_convnext", "test_efficientnet", "test_byobnet", "test_mambaout"),
    *("test_efficientnet_gn", "test_efficientnet_ln"),
    *(("test_maxvit",) if timm.is_model("test_maxvit") else ()),  # since timm 1.0.31
)


@pytest.fixture(scope="module", params=[*ENCODERS, *DECODERS, *TIMM])
def sampled(request):
    """A model, its 1-d parameters, and the gammas among them as far as these policies look at them: by name."""
    if request.param in TIMM:
        model = timm.create_model(request.param)
    else:
        from transformers import CONFIG_MAPPING, AutoModel

        fields = NARROW | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        model = AutoModel.from_config(CONFIG_MAPPING[request.param](**fields))
    gammas = norms_of(*((name, "unknown", None, False) for name in norm_parameters(model)))
    assert len(gammas) > 1
    return model, gammas


def decayed_by(optimizer, model):
    """Names of the parameters that an optimizer decays."""
    ids = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    return {name for name, parameter in model.named_parameters() if id(parameter) in ids}


def test_policy_trainer_is_what_a_trainers_optimizer_decays(sampled, tmp_path):
    model, gammas = sampled
    arguments = TrainingArguments(str(tmp_path), weight_decay=0.1, use_cpu=True, report_to=[])
    optimizer = Trainer(model, arguments).create_optimizer()
    expected = decayed_by(optimizer, model) & set(gammas.names)
    assert {name for name, decays in decide(gammas, model, "trainer").items() if decays} == expected


def test_policy_timm_is_what_timms_optimizer_decays(sampled):
    model, gammas = sampled
    optimizer = timm.optim.create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.1)
    decayed = decayed_by(optimizer, model)
    assert decayed  # it decays something, only no gamma of these
    assert {name for name, decays in decide(gammas, model, "timm").items() if decays} == decayed & set(gammas.names)
