"""Recipes stand on what a user has: the public names of this library, and libraries that are declared."""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from families import FAMILIES
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import hf_gammareg

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path for folder in ("recipes", "recipes/common") for path in (ROOT / folder).glob("*.py"))
FILES = [path.relative_to(ROOT / top) for top in ("recipes", "tests") for path in (ROOT / top).rglob("*.py")]
OWN = {"hf_gammareg", *(path.stem for path in FILES), *(part for path in FILES for part in path.parts[:-1])}
"""Ours, as imports call them."""
EXTRAS = {"hf_gammareg": [], "recipes": ["recipes", "space"], "tests": ["recipes", "clients", "dev"]}
ASKED_FOR = {"deepspeed", "gradio", "gradio_client", "matplotlib"}
"""Imported only where somebody asks for what needs it."""


def imports(path):
    """(module, name) of each import in a file; the name is None where the module itself is imported."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((node.module, alias.name) for alias in node.names)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_imports_public_names_only(path):
    ours = {(module, name) for module, name in imports(path) if module.split(".")[0] == "hf_gammareg"}
    assert {module for module, _ in ours} <= {"hf_gammareg", "hf_gammareg.timm"}
    assert {name for module, name in ours if module == "hf_gammareg"} <= set(hf_gammareg.__all__)


@pytest.mark.parametrize("folder", EXTRAS)
def test_what_is_imported_is_declared(folder):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for extra in EXTRAS[folder] for line in project["optional-dependencies"][extra]]
    declared = {canonicalize_name(Requirement(line).name) for line in project["dependencies"] + extras}
    files = (path for path in (ROOT / folder).rglob("*.py") if path.parent.name != "families")
    used = {module.split(".")[0] for path in files for module, _ in imports(path)}
    found = packages_distributions()
    others = used - OWN - ASKED_FOR - sys.stdlib_module_names
    assert {name for name in others if not {canonicalize_name(one) for one in found[name]} & declared} == set()


def test_every_library_of_the_zoo_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {canonicalize_name(Requirement(line).name) for line in project["optional-dependencies"]["zoo"]}
    assert {canonicalize_name(family.package) for family in FAMILIES.values()} <= declared
