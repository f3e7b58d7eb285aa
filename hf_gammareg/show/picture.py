"""A picture of a network: its blocks in the order of computation, each with its gammas coloured by role."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from hf_gammareg.errors import GammaRegError
from hf_gammareg.graph.capture import capture
from hf_gammareg.roles.residual import Ancestry, find_sums
from hf_gammareg.roles.sites import find_sites
from hf_gammareg.roles.walk import arguments, find_gammas
from hf_gammareg.show.blocks import collapse, find_blocks
from hf_gammareg.show.sheet import Sheet

SUFFIXES = (".svg", ".png")


def check_picture(path: str | Path) -> Path:
    """Tell before any work is done whether a picture can be drawn to a path.

    Raises:
        GammaRegError: if the suffix is neither .svg nor .png, or matplotlib is not installed.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise GammaRegError(
            f"Expected the name of a picture to end in .svg or .png, found {path.name!r}. Give it one of these endings."
        )
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise GammaRegError(
            "Expected matplotlib to draw a picture with, found that it is not installed. Install it, or "
            "hf-gammareg[recipes], which brings it."
        ) from error
    return path


def draw(
    path: str | Path,
    model: nn.Module,
    example_inputs: Any = None,
    *,
    decays: Mapping[str, bool] | None = None,
    title: str = "",
) -> Path:
    """Draw a model's blocks with each gamma coloured by its role.

    The main line is the identity path; above it stand the branches of each residual sum. A projection shortcut's norm
    stands on the main line inside its block. Consecutive blocks that look alike and differ in one number of their
    names are drawn once, with their count, where there are many.

    Args:
        path: a file to write, `.svg` or `.png`.
        model: any model, on any device.
        example_inputs: see `hf_gammareg.find_gammas`.
        decays: `{parameter name: decays}`; gammas that decay get a thick rim.
        title: stands above the picture.

    Returns:
        The path written to.

    Raises:
        GammaRegError: for another suffix, without matplotlib, for a model that can't be traced, or a path that can't be
            written.
    """
    path = check_picture(path)
    args, kwargs = arguments(model, example_inputs)
    gammas = find_gammas(model, (args, kwargs))
    try:
        graph = capture(model, args, kwargs)
    except Exception as error:
        raise GammaRegError(
            f"Expected a model that torch.export can trace, found one that it can't ({error}). There is no picture of "
            "it; the table says what is known of its gammas."
        ) from error
    ancestry = Ancestry(graph)
    sums, _ = find_sums(graph, ancestry)
    looks = {gamma.name: (gamma.role, decays is not None and decays[gamma.name]) for gamma in gammas}
    runs = collapse(find_blocks(sums.values(), find_sites(graph), ancestry), looks)
    figure = Sheet(gammas, decays, title).figure(runs)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
    except OSError as error:
        raise GammaRegError(
            f"Expected a place to write the picture {str(path)!r} to, found {error.strerror or error}. Name another."
        ) from error
    return path
