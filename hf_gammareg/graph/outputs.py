"""What of all that a model returns is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils._pytree import SequenceKey, TreeSpec, tree_flatten_with_path, tree_leaves, tree_unflatten

from hf_gammareg.graph.nodes import Node, above_and, nodes_in

LOSS = "loss"
"""What libraries call the loss among what a model returns."""


def trained_on(returned: Sequence[Any], spec: TreeSpec) -> list[Node]:
    """The values that decide: the loss where a model returns one, else its main outputs.

    The loss is what is called so; without names, the numbers without dimensions, if they come first or are computed
    from what is returned with them (a router's own loss beside the logits is not). Of outputs with names, those that
    one before them is computed from are by-products: an encoder's last state beside the decoder's, the features of an
    image beside the logits. Without names all are main: the maps of a backbone are.

    Args:
        returned: the values that a model returns, flat.
        spec: the form that it returns them in.
    """
    entries: dict[Any, list[Node]] = {}
    whole = tree_unflatten(range(len(returned)), spec)
    for path, part in tree_flatten_with_path(whole, is_leaf=lambda part: part is not whole)[0]:
        key = path[0] if path else None
        for place in tree_leaves(part):
            if nodes := nodes_in(returned[place]):
                entries.setdefault(key, []).extend(nodes)
    for key, nodes in entries.items():
        if LOSS in (getattr(key, "key", None), getattr(key, "name", None)):
            return nodes
    if len(entries) < 2:
        return [node for nodes in entries.values() for node in nodes]
    above = {key: above_and(nodes) for key, nodes in entries.items()}
    losses = [key for key, nodes in entries.items() if all(node.activation and node.shape == () for node in nodes)]
    others = {node.index for key, nodes in entries.items() if key not in losses for node in nodes}
    if losses and (losses[0] is next(iter(entries)) or any(not others.isdisjoint(above[key]) for key in losses)):
        return [node for key in losses for node in entries[key]]
    main: list[Node] = []
    before: set[int] = set()
    for key, nodes in entries.items():
        if isinstance(key, SequenceKey) or before.isdisjoint(node.index for node in nodes):
            main += nodes
        before |= above[key]
    return main
