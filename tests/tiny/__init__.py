"""Tiny networks that declare the roles of their gammas, one per hazard.

Each is a subclass of `Tiny`: its docstring names the hazard, `takes` holds its example inputs, and `expected` says of
every gamma, by parameter name, its role and, where it matters, more in a word each: `exact` or `rough` (not exact),
`input` or `output` (the placement), `zero` (multiplies by 1 + w), and the kind. Gammas that are not declared must not
be found.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import torch
from torch import nn

from hf_gammareg import GammaMap, find_gammas

NETWORKS: list[type[Tiny]] = []
"""Every tiny network."""


def image(channels: int = 3, size: int = 8) -> torch.Tensor:
    """A batch of 4 images."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, channels, size, size, generator=generator)


def sequence(length: int = 6, width: int = 8, seed: int = 0) -> torch.Tensor:
    """A batch of 4 sequences of vectors."""
    return torch.randn(4, length, width, generator=torch.Generator().manual_seed(seed))


class Tiny(nn.Module):
    """A network that carries its answer."""

    takes: ClassVar[tuple[Any, ...]] = (image(),)
    expected: ClassVar[dict[str, str]] = {}
    not_gammas: ClassVar[set[str]] = set()
    """Names that must be reported as called norm without being one."""
    computes: ClassVar[bool] = True
    """Whether its forward can be checked with numbers in double precision."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__doc__:
            NETWORKS.append(cls)


def build(network: type[Tiny]) -> Tiny:
    """The network, the same at each call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return network()


@functools.cache
def roles_of(network: type[Tiny]) -> GammaMap:
    """Its gammas, found once."""
    return find_gammas(build(network), network.takes)


def conv(inputs: int, outputs: int, size: int = 3, **options: Any) -> nn.Conv2d:
    """A convolution that keeps the image's size, without bias."""
    return nn.Conv2d(inputs, outputs, size, **{"padding": size // 2, "bias": False} | options)


from tiny import (  # noqa: E402, F401
    attention,
    bends,
    blocks,
    gains,
    honest,
    mechanics,
    mixers,
    parallel,
    recorded,
    residual,
    spelled,
    streams,
    tokens,
    written,
)
