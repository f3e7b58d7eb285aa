"""Our optimizer states for those who load them by position: plain Trainer, timm, torch.optim."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from torch import nn

from hf_gammareg.errors import GammaRegError, some
from hf_gammareg.model.layouts import plain_layouts
from hf_gammareg.resume.matching import OWN, named_groups

LIKE = {
    "trainer": ("plain Trainer", "transformers.trainer"),
    "timm": ("plain timm", "timm.optim"),
    "torch": ("torch.optim", "torch"),
}
"""The label of each layout, and what has to be loaded to ask for it."""


def export_plain(state: Mapping[str, Any], model: nn.Module, like: str) -> dict[str, Any]:
    """Arrange an optimizer state by the groups that a library makes without this one, which loads it by position.

    >>> import torch
    >>> from hf_gammareg import param_groups
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    >>> ours = torch.optim.SGD(param_groups(model, 0.1, example_inputs=torch.ones(1, 2)), lr=0.1, momentum=0.9)
    >>> plain = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    >>> plain.load_state_dict(export_plain(ours.state_dict(), model, "torch"))

    Args:
        state: the `state_dict()` of an optimizer whose groups carry `param_names`, as ours do.
        model: the model, with the layers frozen that were.
        like: `"trainer"`, `"timm"` (its default groups) or `"torch"` (all parameters in one group).

    Returns:
        A state without names, for the `load_state_dict` of an optimizer over those groups. What decayed in any group
        decays by the strongest of their strengths in those that decay there.

    Raises:
        GammaRegError: for another `like`, a state without names or of another model, parameters that are to share a
            group and have different learning rates.
    """
    if like not in LIKE:
        raise GammaRegError(f"Expected `like` to be one of {some(LIKE)}, found {like!r}. Name one of these.")
    label, package = LIKE[like]
    importlib.import_module(package)
    layout = next(layout for layout in plain_layouts(model) if layout.label == label)
    wanted = {name for group in layout.groups for name in group}
    groups, names = named_groups(state, wanted)
    home = {
        name: (group, key)
        for group, own in zip(groups, names, strict=True)
        for name, key in zip(own, group["params"], strict=True)
    }
    if home.keys() != wanted:
        raise GammaRegError(
            f"Expected the state of this model's {len(wanted)} trainable parameters, found that only one of the two "
            f"has {some(home.keys() ^ wanted)}. Pass the model that the state was saved with."
        )
    strength = max((group.get("weight_decay", 0.0) for group in groups), default=0.0)
    plain = []
    for members, decays in zip(layout.groups, layout.decays, strict=True):
        sources = [home[name][0] for name in members] or groups[:1]
        rates = {source.get("lr") for source in sources}
        if len(rates) > 1:
            raise GammaRegError(
                f"Expected one learning rate for the parameters that {label} groups together, found "
                f"{some(rates)}. Only an optimizer with groups by rate can go on from this state."
            )
        options = {key: value for key, value in sources[0].items() if key not in OWN}
        decay = {"weight_decay": 0.0 if decays is False else strength} if "weight_decay" in sources[0] else {}
        plain.append(options | decay | {"params": [home[name][1] for name in members]})
    return {**state, "param_groups": plain}
