"""Tiny networks, one per hazard, and what each declares of its gammas."""

import pickle
from dataclasses import FrozenInstanceError

import pytest
import torch
from tiny import NETWORKS, build, honest, mechanics, roles_of, written
from torch import nn

from hf_gammareg import GammaMap, GammaRegError, find_gammas
from hf_gammareg.decay.policy import decide

WORDS = {"exact", "rough", "input", "output", "zero"}


def words(gamma):
    """What the record says, in the words of the declarations."""
    said = {str(gamma.role), gamma.kind, "exact" if gamma.exact else "rough"}
    return said | ({gamma.placement} if gamma.placement else set()) | ({"zero"} if gamma.zero_centered else set())


def name(network):
    return f"{network.__module__.removeprefix('tiny.')}.{network.__name__}"


@pytest.mark.parametrize("network", NETWORKS, ids=name)
def test_declared_roles(network):
    found = roles_of(network)
    assert set(found.names) == set(network.expected)
    for gamma in found:
        declared = set(network.expected[gamma.name].split())
        assert declared <= words(gamma), f"{gamma.name}: {sorted(words(gamma))}, because: {gamma.reason}"
        assert gamma.zero_centered == ("zero" in declared)
    assert set(found.not_gammas) == network.not_gammas


def test_declarations_are_words_that_can_be_found():
    said = {word for network in NETWORKS for declared in network.expected.values() for word in declared.split()}
    found = {word for network in NETWORKS for gamma in roles_of(network) for word in words(gamma)}
    assert said == found
    assert len(NETWORKS) > 100


def test_order_and_facts_of_the_model():
    for network in (mechanics.FrozenNorm, honest.LeavesTorch, written.EvoNorm):
        model, found = build(network), roles_of(network)
        parameters = dict(model.named_parameters())
        assert list(found.names) == [n for n in parameters if n in found.names]
        assert [gamma.numel for gamma in found] == [parameters[n].numel() for n in found.names]
        assert [gamma.trainable for gamma in found] == [parameters[n].requires_grad for n in found.names]


def reasons(network):
    return {gamma.name: gamma.reason for gamma in roles_of(network)}


def test_reasons_name_what_decided():
    from tiny.attention import QueryKeyNorm
    from tiny.residual import StemBeforeIdentity, StemBeforeProjection

    stem = reasons(StemBeforeProjection)
    assert stem["bn1.weight"] == "Cancelled by the normalization in `bn2`, and 1 more."
    assert "skip side, from inside the block" in stem["down.1.weight"]
    assert "on the branch side" in stem["bn3.weight"]
    assert "skip side, from below the block" in reasons(StemBeforeIdentity)["bn1.weight"]
    assert "Reaches the output through `fc`" in reasons(QueryKeyNorm)["norm.weight"]
    assert "scaled_dot_product_attention in `attention`" in reasons(QueryKeyNorm)["attention.q_norm.weight"]


def test_unruled_op_is_named():
    assert "gammareg_tests::mystery" in reasons(honest.UnruledOp)["bn2.weight"]


def test_what_is_not_reached_says_so():
    said = reasons(honest.NotReached)
    assert said["cross.weight"] == "Not reached by the example inputs."
    assert said["aside.weight"] == "Nothing reads the output of `aside`."


def test_a_model_without_graph_is_reported_and_decays_nothing(capfd):
    found = find_gammas(build(honest.LeavesTorch), honest.LeavesTorch.takes)
    assert capfd.readouterr() == ("", "")
    assert found.source.startswith("none: ")
    assert found.counts == {"unknown": 2}
    assert all(gamma.reason.startswith("The model could not be traced: ") for gamma in found)
    assert not any(decide(found, build(honest.LeavesTorch), "guidelines").values())
    assert all(decide(found, build(honest.LeavesTorch), "all").values())


def test_eval_mode_is_the_second_choice():
    assert roles_of(honest.LayerDrop).source == "export (eval mode)"
    assert roles_of(honest.NotReached).source == "export (train mode)"


def test_known_integers_are_the_third_choice():
    assert roles_of(honest.AsksItsIntegers).source == "export (train mode, integers known)"
    with torch.device("meta"):
        model = honest.AsksItsIntegers()
    # Values of integers are at hand for a model that takes no memory, too.
    assert find_gammas(model, honest.AsksItsIntegers.takes).counts == {"last": 1, "final": 1}


def test_one_path_is_the_last_choice(capfd):
    found = find_gammas(build(honest.DataDependent), honest.DataDependent.takes)
    assert capfd.readouterr() == ("", "")
    assert found.source == "recorded run (train mode, one path)"
    assert {gamma.name: str(gamma.role) for gamma in found} == {"bn1.weight": "absorbed", "norm.weight": "final"}
    with torch.device("meta"):
        model = honest.DataDependent()
    assert find_gammas(model, torch.zeros(4, 3, 8, 8, device="meta")).counts == {"unknown": 2}


class FixedDevice(nn.Module):
    """XLNet: a tensor made on the CPU wherever the model is."""

    def __init__(self):
        super().__init__()
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(self.norm(x) + torch.arange(8, device="cpu"))


@pytest.mark.parametrize("inputs", ["cpu", "meta"])
def test_a_tensor_on_a_fixed_device_does_not_break_meta(inputs):
    assert find_gammas(FixedDevice(), torch.zeros(2, 8)).counts == {"final": 1}
    found = find_gammas(FixedDevice().to("meta"), torch.zeros(2, 8, device=inputs))
    assert found.counts == {"final": 1}
    assert found.source == "export (train mode, integers known)"


def test_map_survives_json():
    found = roles_of(written.EvoNorm)
    assert GammaMap.from_dict(found.to_dict()) == found


def test_a_map_behaves_like_a_mapping():
    found = roles_of(written.EvoNorm)
    names = list(found.names)
    assert list(found.keys()) == names
    assert dict(found) == dict(found.items()) == {gamma.name: gamma for gamma in found}
    assert list(found.values()) == list(found)
    assert all(name in found and found[name] in found and found.get(name) is found[name] for name in names)
    assert ("nothing" in found, found.get("nothing"), found.get("nothing", 1)) == (False, None, 1)
    for caught in (KeyError, GammaRegError):
        with pytest.raises(caught, match=r"^Expected the name of a gamma of this model, found 'nothing'\. It has"):
            found["nothing"]
    assert hash(found) == hash(pickle.loads(pickle.dumps(found)))
    with pytest.raises(FrozenInstanceError):
        found.source = "elsewhere"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d.pop("source"),
        lambda d: d["gammas"][0].pop("exact"),
        lambda d: d["gammas"][0].update(role="boss"),
        lambda d: d.update(gammas=None),
    ],
)
def test_a_map_that_does_not_fit_is_one_clear_error(spoil):
    data = roles_of(written.EvoNorm).to_dict()
    spoil(data)
    with pytest.raises(GammaRegError, match=r"Expected the dictionary that GammaMap\.to_dict\(\) makes"):
        GammaMap.from_dict(data)


def test_most_protective_use_wins():
    from tiny.attention import SharedLayer

    found = roles_of(SharedLayer)
    assert found["norm2.weight"].role == "final"  # absorbed in two of its three uses
    assert "fc" in found["norm2.weight"].reason


def test_batch_norm_synchronised_over_processes_is_one():
    from tiny.blocks import PlainStack

    model = nn.SyncBatchNorm.convert_sync_batchnorm(build(PlainStack))
    found = find_gammas(model, torch.zeros(4, 3, 8, 8))
    assert [gamma.role for gamma in found] == [gamma.role for gamma in roles_of(PlainStack)]


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError


class Breaks(nn.Module):
    """A forward pass that raises, and a configuration that answers nothing."""

    def __init__(self, error):
        super().__init__()
        self.error, self.norm, self.config = error, nn.LayerNorm(3), Frozen()

    def forward(self, x):
        x = self.norm(x)
        if self.error is not None:
            raise self.error
        return x


class Frozen:
    use_cache = True

    def __setattr__(self, name, value):
        raise TypeError(f"{name} is frozen")

    def __getattr__(self, name):
        raise LookupError(name)


ODD = [
    Unprintable(),
    KeyError(3),
    StopIteration(),
    AssertionError(),
    RecursionError("deep"),
    ExceptionGroup("two", [OSError()]),
]


@pytest.mark.parametrize("error", ODD, ids=lambda error: type(error).__name__)
def test_whatever_a_forward_raises_is_a_reason(error):
    found = find_gammas(Breaks(error), torch.zeros(2, 3))
    assert found.counts == {"unknown": 1}
    assert type(error).__name__ in found["norm.weight"].reason


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_who_wants_to_stop_does(error):
    with pytest.raises(error):
        find_gammas(Breaks(error()), torch.zeros(2, 3))


def test_a_configuration_that_can_not_be_asked_is_left_alone():
    model = Breaks(None)
    assert find_gammas(model, torch.zeros(2, 3)).counts == {"final": 1}
    assert model.config.use_cache is True


class SaysNonsense(Breaks):
    @property
    def example_input_array(self):
        return self.config.size


def test_a_model_that_can_not_say_what_it_takes_is_unknown():
    found = find_gammas(SaysNonsense(None))
    assert found["norm.weight"].reason.endswith("gives no example inputs (LookupError: size). Pass some.")
    assert find_gammas(SaysNonsense(None), torch.zeros(2, 3)).counts == {"final": 1}


def test_what_the_method_stumbles_over_is_unknown(monkeypatch):
    monkeypatch.setattr("hf_gammareg.roles.find.find_sums", lambda graph, ancestry: graph.nodes[-1:][1])
    found = find_gammas(Breaks(None), torch.zeros(2, 3))
    assert found["norm.weight"].reason == "The model could not be traced: IndexError: tuple index out of range"
