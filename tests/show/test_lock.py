"""Lock files: what they hold, and what counts as a difference."""

import json

import pytest
import timm
from torch import nn

from hf_gammareg.errors import GammaRegError
from hf_gammareg.roles.gammas import Gamma, GammaMap, Role
from hf_gammareg.show.lock import differences, lock_dict, read_lock, write_lock


def gamma(name, role):
    fields = {"kind": "batch_norm", "numel": 4, "exact": True, "placement": None, "zero_centered": False}
    return Gamma(name=name, role=Role(role), trainable=True, reason="because", **fields)


GAMMAS = GammaMap(gammas=(gamma("bn1.weight", "trunk"), gamma("bn2.weight", "last")), source="by hand")
LOCK = lock_dict(
    GAMMAS, {"bn1.weight": False, "bn2.weight": True}, nn.Linear(1, 1), source="timm/x", policy="guidelines"
)


def changed(**gammas):
    kept = {name: row for name, row in LOCK["gammas"].items() if gammas.get(name, row) is not None}
    return LOCK | {"gammas": kept | {name: LOCK["gammas"][name] | row for name, row in gammas.items() if row}}


def test_a_lock_is_what_it_was(tmp_path):
    path = write_lock(tmp_path / "new" / "roles.lock.json", LOCK)
    assert read_lock(path) == LOCK
    assert list(path.parent.iterdir()) == [path]
    assert differences(read_lock(path), LOCK) == []
    assert LOCK["gammas"]["bn2.weight"] == {"role": "last", "decays": True, "kind": "batch_norm", "numel": 4}


def test_a_lock_names_the_library_of_the_model():
    model = timm.create_model("test_resnet")
    assert lock_dict(GAMMAS, dict.fromkeys(GAMMAS.names, True), model, source="s", policy="p")["library"] == (
        f"timm {timm.__version__}"
    )


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        ("role", "absorbed", "role changed: bn2.weight: last -> absorbed"),
        ("decays", False, "decision changed: bn2.weight: decays -> does not decay"),
        ("kind", "rms_norm", "kind changed: bn2.weight: batch_norm -> rms_norm"),
        ("numel", 8, "size changed: bn2.weight: 4 -> 8"),
    ],
)
def test_each_change_is_a_line(field, value, line):
    assert differences(LOCK, changed(**{"bn2.weight": {field: value}})) == [line]


def test_added_and_removed():
    without = changed(**{"bn2.weight": None})
    assert differences(LOCK, without) == ["removed: bn2.weight (last, decays)"]
    assert differences(without, LOCK) == ["added: bn2.weight (last, decays)"]


def test_another_source_or_policy_is_a_difference_and_another_version_is_not():
    assert differences(LOCK, LOCK | {"policy": "all"}) == ["policy changed: guidelines -> all"]
    assert differences(LOCK, LOCK | {"source": "timm/y"}) == ["source changed: timm/x -> timm/y"]
    assert differences(LOCK, LOCK | {"library": "timm 9", "hf_gammareg": "9"}) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "no JSON"),
        ("[]", '"lock": 1'),
        (json.dumps(LOCK | {"lock": 2}), '"lock": 1'),
        (json.dumps(LOCK | {"policy": None}), "no policy"),
        (json.dumps(LOCK | {"gammas": [1]}), "no gammas"),
        (json.dumps(changed(**{"bn2.weight": {"decays": 1}})), "no decays of gamma 'bn2.weight'"),
        (json.dumps(changed(**{"bn2.weight": {"role": "lost"}})), "the role 'lost' of gamma 'bn2.weight'"),
    ],
)
def test_a_bad_lock_is_told(tmp_path, text, found):
    path = tmp_path / "roles.lock.json"
    path.write_text(text)
    with pytest.raises(GammaRegError, match=r"Expected .*roles\.lock\.json' to be a lock file") as error:
        read_lock(path)
    assert found in str(error.value)


def test_a_missing_lock_and_a_place_that_can_not_be_written(tmp_path):
    with pytest.raises(GammaRegError, match="No such file"):
        read_lock(tmp_path / "none.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(GammaRegError, match="Expected a place to write the lock file"):
        write_lock(tmp_path / "file" / "roles.lock.json", LOCK)
