"""Static types reach who uses the library: what mypy says of the public names."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import hf_gammareg

ROOT = Path(__file__).parents[1]
USE = """
import hf_gammareg
import hf_gammareg.timm
from torch import nn

reveal_type(hf_gammareg.find_gammas(nn.Linear(2, 2)))
reveal_type(hf_gammareg.param_groups(nn.Linear(2, 2), 0.1))
reveal_type(hf_gammareg.GammaRegArguments("out").gamma_policy)
reveal_type(hf_gammareg.timm.create_optimizer_v2(nn.Linear(2, 2)))
hf_gammareg.find_gamma
hf_gammareg.param_groups(nn.Linear(2, 2), 0.1, gama_decay=["*"])
"""
SAID = [
    'Revealed type is "hf_gammareg.roles.gammas.GammaMap"',
    'Revealed type is "list[dict[str, Any]]"',
    'Revealed type is "str"',
    'Revealed type is "torch.optim.optimizer.Optimizer"',
    'Module has no attribute "find_gamma"',
    'Unexpected keyword argument "gama_decay" for "param_groups"',
]


@pytest.mark.slow
def test_types_reach_mypy(tmp_path):
    (tmp_path / "use.py").write_text(USE)
    # With the project's settings, so that what they have cached (`mypy` runs before `pytest`) serves here too.
    settings = [f"--config-file={ROOT / 'pyproject.toml'}", f"--cache-dir={ROOT / '.mypy_cache'}"]
    command = [sys.executable, "-m", "mypy", *settings, str(tmp_path / "use.py")]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()
    assert len(told) >= len(SAID), told
    for line, said in zip(told, SAID, strict=False):
        assert said in line.replace("builtins.", ""), told


def test_every_public_name_is_there_and_named_once():
    names = hf_gammareg.__all__
    assert len(set(names)) == len(names)
    assert set(names) <= set(dir(hf_gammareg))
    for name in names:
        home = importlib.import_module(getattr(hf_gammareg, name).__module__)
        assert getattr(home, name) is getattr(hf_gammareg, name)


def test_other_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="find_gamma"):
        hf_gammareg.find_gamma  # noqa: B018
