"""The house: rooms, floors and doors, as the contracts in pyproject.toml have them."""

import importlib
import re
from pathlib import Path

import grimp
import pytest
from importlinter.application import use_cases
from importlinter.configuration import configure

import hf_gammareg

ROOT = Path(__file__).parents[1]
HOUSE = ROOT / "hf_gammareg"
ROOMS = sorted(path.parent.name for path in HOUSE.glob("*/__init__.py"))
DOORS = {"__init__", "__main__", "cli", "timm", "errors", "files", "quiet"}


def test_imports_point_down_and_in_no_circle():
    configure()
    assert use_cases.lint_imports(str(ROOT / "pyproject.toml"), cache_dir=None) == use_cases.SUCCESS


def test_a_contract_that_is_broken_is_told(tmp_path):
    text = (ROOT / "pyproject.toml").read_text()
    floors = ('"cli | timm | trainer",', '"watch",')
    assert all(floor in text for floor in floors)
    swapped = text.replace(floors[0], "FLOOR").replace(floors[1], floors[0]).replace("FLOOR", floors[1])
    (tmp_path / "pyproject.toml").write_text(swapped)
    configure()
    assert use_cases.lint_imports(str(tmp_path / "pyproject.toml"), cache_dir=None) == use_cases.FAILURE


def test_the_ground_floor_knows_nobody():
    graph = grimp.build_graph("hf_gammareg", cache_dir=None)
    for name in ("errors", "files", "quiet"):
        assert not graph.find_modules_directly_imported_by(f"hf_gammareg.{name}")


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_is_in_it(room):
    package = importlib.import_module(f"hf_gammareg.{room}")
    modules = {path.stem for path in (HOUSE / room).glob("*.py")} - {"__init__"}
    assert modules == set(re.findall(r"`(\w+)`", package.__doc__)) & modules
    handed_on = [name for name in vars(package) if not name.startswith("__") and name not in modules]
    assert len(handed_on) <= 5


def test_the_doors_are_all_there_is_outside_the_rooms():
    assert {path.stem for path in HOUSE.glob("*.py")} == DOORS


def test_no_module_is_called_like_a_public_function():
    modules = {path.stem for path in HOUSE.rglob("*.py")}
    assert not modules & set(hf_gammareg.__all__)
    assert "utils" not in modules
    assert not [name for name in modules if name.startswith("hf_")]


def test_tests_mirror_the_rooms():
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == {*ROOMS, "recipes", "tiny"}
