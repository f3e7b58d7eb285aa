"""A page as one HTML file: the frame that all pages share, and templates in which whatever is written is inert."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from hf_gammareg.errors import GammaRegError
from hf_gammareg.files import write_whole


def check_page(path: str | Path) -> Path:
    """Tell before any work is done whether a page can be written to a path.

    Raises:
        GammaRegError: if the suffix is not .html, or the path is a folder.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm") or path.is_dir():
        found = f"the folder {str(path)!r}" if path.is_dir() else repr(path.name)
        raise GammaRegError(f"Expected the name of a page to end in .html, found {found}. Give it this ending.")
    return path


def save_page(path: str | Path, text: str) -> Path:
    """Write a page, whole or not at all.

    Raises:
        GammaRegError: for another suffix, or a path that can't be written.
    """
    path = check_page(path)
    try:
        return write_whole(path, text)
    except OSError as error:
        raise GammaRegError(
            f"Expected a place to write the page {str(path)!r} to, found {error.strerror or error}. Name another."
        ) from error


def render(template: str, **data: Any) -> str:
    """Fill a template of `show/templates`: text, style and script in one file that asks the network for nothing.

    Args:
        template: its file name.
        data: what it names; a name that is missing is an error. Whatever they hold is written as text, not as markup.
    """
    return _environment().get_template(template).render(**data)


def coded(text: str) -> Markup:
    """A sentence as HTML: what stands between backticks is code, all of it is text.

    >>> coded("Cancelled by `<b>`.")
    Markup('Cancelled by <code>&lt;b&gt;</code>.')
    """
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def dotted(name: str) -> Markup:
    """A parameter's name as HTML that breaks after its dots first.

    >>> dotted("blocks.0.<b>")
    Markup('blocks.<wbr>0.<wbr>&lt;b&gt;')
    """
    return Markup(".<wbr>").join(name.split("."))


@cache
def _environment() -> Environment:
    folder = resources.files(__package__) / "templates"
    environment = Environment(
        loader=FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"coded": coded, "dotted": dotted}
    return environment
