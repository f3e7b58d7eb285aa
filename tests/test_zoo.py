"""A sample of the zoo: architectures of many kinds, each with its number of gammas of each role.

The numbers come from `recipes/benchmarks/zoo.py`, for architectures whose roles `recipes/benchmarks/verify_zoo.py` has
measured. A change in one of them is a change in what somebody's run decays.
"""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes" / "benchmarks"))

from tiny.blocks import PlainStack
from verify_zoo import SOURCES
from zoo import measure, missed

from hf_gammareg import find_gammas

SAMPLE = json.loads((Path(__file__).parent / "zoo_sample.json").read_text())


@pytest.mark.parametrize("source", SAMPLE)
def test_every_gamma_has_the_role_that_it_had(source):
    row = measure(source)
    assert row["error"] is None
    assert not row["missed"]
    assert row["roles"] == SAMPLE[source]


def test_the_sample_is_diverse():
    assert len(SAMPLE) >= 60
    assert set(SAMPLE) <= set(SOURCES)
    assert {role for roles in SAMPLE.values() for role in roles} == {
        "trunk",
        "shortcut",
        "final",
        "last",
        "absorbed",
        "gate",
    }


def test_a_gamma_that_is_missed_is_noticed():
    model = PlainStack()
    found = find_gammas(model, PlainStack.takes)
    names = set(found.names)
    assert not missed(model, names)
    dropped = names.pop()
    assert missed(model, names) == [dropped]
