"""The guides hold: links lead somewhere, snippets run, output is as shown, commands are such as the programs take."""

import argparse
import contextlib
import doctest
import os
import re
import runpy
import shlex
import shutil
import sys
import tomllib
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import typer.core
from accelerate.commands.launch import launch_command_parser
from accelerate.state import AcceleratorState
from markdown_it import MarkdownIt
from sybil import Document
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser
from transformers import ViTConfig, ViTForImageClassification

from hf_gammareg.cli import main
from hf_gammareg.graph.ops import OPS

ROOT = Path(__file__).parents[1]
FOLDERS = ("hf_gammareg", "model_cards", "recipes", "tests")
DOCUMENTS = {
    str(path.relative_to(ROOT)): path
    for path in sorted([*ROOT.glob("*.md"), *(found for folder in FOLDERS for found in (ROOT / folder).rglob("*.md"))])
}
MARKDOWN = {name: MarkdownIt("commonmark").enable("table").parse(path.read_text()) for name, path in DOCUMENTS.items()}
PROVED = ("python", "console", "bash")
PLAIN = ("bibtex",)
"""Languages of blocks that are run or checked here, and of those in which nothing can be wrong."""

each_document = pytest.mark.parametrize("name", DOCUMENTS)


def inline(name):
    """The parts of a document's lines: text, links, images, code."""
    return [child for token in MARKDOWN[name] if token.type == "inline" for child in token.children]


def examples(language, slow=()):
    """Every block of a language, as a test of its own; `slow`: those with these words in them."""
    found = []
    for name, path in DOCUMENTS.items():
        for example in Document.parse(str(path), CodeBlockParser(language, lambda example: None)):
            marks = [pytest.mark.slow] if any(word in example.parsed for word in slow) else []
            found.append(pytest.param(str(example.parsed), id=f"{name}:{example.line}", marks=marks))
    return found


# --- links ----------------------------------------------------------------------------------------------------------


def anchors(name):
    """What GitHub calls the headings of a document."""
    tokens = MARKDOWN[name]
    titles = [inner for token, inner in pairwise(tokens) if token.type == "heading_open"]
    texts = ["".join(child.content for child in title.children) for title in titles]
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in texts}


@each_document
def test_links_lead_somewhere(name):
    targets = [child.attrs.get("href") or child.attrs.get("src") for child in inline(name) if child.attrs]
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (DOCUMENTS[name].parent / path).resolve() if path else DOCUMENTS[name]
        assert found.exists(), target
        assert not anchor or anchor in anchors(str(found.relative_to(ROOT))), target


@each_document
def test_files_that_are_named_exist(name):
    """In code such as `graph/ops.py`, seen from the top, from the package or from where the document lies."""
    places = (ROOT, ROOT / "hf_gammareg", DOCUMENTS[name].parent)
    for child in inline(name):
        if child.type == "code_inline" and re.fullmatch(r"[\w-]+/[\w./-]*(/|\.(py|toml|yaml|md))", child.content):
            assert any((place / child.content).exists() for place in places), child.content


@each_document
def test_no_block_goes_unproved(name):
    assert {token.info for token in MARKDOWN[name] if token.type == "fence"} <= {*PROVED, *PLAIN}


# --- snippets -------------------------------------------------------------------------------------------------------


@pytest.fixture
def presupposed(tmp_path, monkeypatch):
    """What a reader has at hand before a snippet: a model and its data, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    rows = dict(OPS)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = ViTForImageClassification(ViTConfig(**sizes, image_size=8, patch_size=4))
    data = [{"pixel_values": torch.full((3, 8, 8), number / 4), "labels": number % 2} for number in range(4)]
    yield {"model": model, "train_dataset": data}
    OPS.clear()
    OPS.update(rows)
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "hf_gammareg/README.md")) for name in DOCUMENTS]
)
@pytest.mark.usefixtures("same_verbosity")
def test_snippets_run(name, presupposed):
    parser = PythonCodeBlockParser(doctest_optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    document = Document.parse(str(DOCUMENTS[name]), parser)
    document.namespace.update(presupposed)
    for example in document:
        if not set(re.findall(r"^(?:from|import) (\w+)", str(example.parsed), re.MULTILINE)) & missing_clients():
            example.evaluate()


def missing_clients():
    """What of the extra `clients` is not installed, as it is imported."""
    clients = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["clients"]
    names = {re.match(r"[\w-]+", client)[0].replace("-", "_") for client in clients}
    return {name for name in names if find_spec(name) is None}


# --- commands -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", examples("console", slow=["gammareg verify"]))
def test_output_is_as_shown(block, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for shown in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, output = shown.partition("\n")
        (words,) = commands(command)
        assert words[0] == "gammareg", command
        assert main(words[1:]) == 0
        assert capsys.readouterr().out.rstrip() == output.rstrip()


@pytest.mark.parametrize("block", examples("bash", slow=["gammareg inspect"]))
def test_commands_are_taken(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for line in block.replace("\\\n", " ").splitlines():
        for words in commands(line):
            check(words, monkeypatch)


@each_document
def test_commands_in_the_text_are_taken(name, monkeypatch):
    for child in inline(name):
        if child.type == "code_inline" and re.match(r"(\w+=\w+ )*(python3?|accelerate|pytest) [^.]+/", child.content):
            for words in commands(child.content):
                check(words, monkeypatch)


def commands(line):
    """The words of each command in a line of a shell, without comments and settings of the environment."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&")
    lexer.whitespace_split = True
    command = []
    for word in [*lexer, "&&"]:
        if word != "&&":
            if command or not re.match(r"\w+=", word):
                command.append(word)
        elif command:
            yield command
            command = []


def check(words, monkeypatch):
    """Run a command if it is cheap; else see that what it starts is there and takes its arguments."""
    for word in words:
        if word.startswith(tuple(f"{folder}/" for folder in FOLDERS)):
            assert list(ROOT.glob(word)), word
    match words:
        case ["gammareg", *arguments]:
            assert main(arguments) == 0, shlex.join(words)
        case ["accelerate", "launch", *arguments]:
            told = launch_command_parser().parse_args(arguments)
            parsed(told.training_script, told.training_script_args, monkeypatch)
        case ["python", script, *arguments]:
            parsed(script, arguments, monkeypatch)
        case ["pip", "install", "-e", what]:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            assert set(re.findall(r"\w+", what)) <= set(extras)
        case ["." | "python3", *_]:
            assert words[1:] in ([".venv/bin/activate"], ["-m", "venv", ".venv"])
        case [tool, *_]:
            assert tool in ("pytest", "ruff", "mypy", "lint-imports", "pre-commit"), shlex.join(words)
            assert shutil.which(tool), tool


class Taken(BaseException):
    """Ends a script once it has read its arguments, past whatever it does with errors."""


def parsed(script, arguments, monkeypatch):
    """Run a script until its own parser, be it argparse's or typer's, has taken the arguments; no further."""
    plain = argparse.ArgumentParser.parse_known_args

    def parse_known_args(self, *args, **kwargs):
        _, rest = plain(self, *args, **kwargs)
        assert not rest, f"{script} does not know {rest}"
        raise Taken

    def invoke(self, context):
        raise Taken

    path = ROOT / script
    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", parse_known_args)
        patch.setattr(typer.core.TyperCommand, "invoke", invoke)
        patch.setattr(sys, "argv", [str(path), *arguments])
        patch.setattr(sys, "path", [str(path.parent), *sys.path])
        patch.setattr(os, "environ", os.environ.copy())
        with pytest.raises(Taken), contextlib.suppress(SystemExit):
            runpy.run_path(str(path), run_name="__main__")
