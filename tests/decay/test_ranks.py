"""What two ranks say of groups that differ; that two real processes stop is in test_engines.py."""

import pytest
import torch
from torch import nn

from hf_gammareg import GammaRegError
from hf_gammareg.decay import groups as ranks

FIRST = [
    {"params": [], "param_names": ["fc.weight", "bn1.weight"], "weight_decay": 0.1, "lr": 0.01},
    {"params": [], "param_names": ["bn2.weight"], "weight_decay": 0.0, "lr": 0.01},
]


def changed(index, **options):
    return [group | (options if place == index else {}) for place, group in enumerate(FIRST)]


def both(monkeypatch, other):
    """What a process hears that is rank 0 with FIRST while rank 1 has `other`."""

    def gather(value):
        described = [ranks.describe(FIRST), ranks.describe(other)]
        return described if isinstance(value, list) else [repr(entry) for entry in described]

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(ranks, "_gather", gather)
    ranks.check_ranks(FIRST)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (changed(1, weight_decay=0.1), "weight_decay 0.1 in group 1 where rank 0 has 0.0"),
        (changed(0, fused=True), "fused True in group 0 where rank 0 has no value"),
        (changed(0, param_names=["bn1.weight", "fc.weight"]), "members of group 0 in another order"),
        (changed(0, param_names=["fc.weight"]), "no 'bn1.weight' in group 0, where rank 0 does"),
        (changed(1, param_names=["bn2.weight", "bn3.weight"]), "'bn3.weight' in group 1, where rank 0 does not"),
        (FIRST[:1], "1 groups where rank 0 has 2"),
        ([*FIRST, FIRST[1]], "3 groups where rank 0 has 2"),
    ],
)
def test_the_first_difference_is_named(monkeypatch, other, said):
    with pytest.raises(GammaRegError, match=r"Expected the same parameter groups on all 2 ranks.*rank 1 has") as raised:
        both(monkeypatch, other)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    "same",
    [
        changed(0, params=[nn.Parameter(torch.ones(3))]),  # each rank has its own shard
        changed(0, lr=torch.tensor(0.01, dtype=torch.float64)),
        changed(0, lr=0.01),
    ],
)
def test_values_and_shards_do_not_matter(monkeypatch, same):
    both(monkeypatch, same)


def test_objects_in_options_are_compared_by_their_type():
    texts = [ranks.describe([{"params": [], "made": object()}]) for _ in range(2)]
    assert texts[0] == texts[1]


def test_one_process_has_nobody_to_disagree_with():
    assert not torch.distributed.is_initialized()
    ranks.check_ranks([{"params": [nn.Parameter(torch.ones(3))]}])
