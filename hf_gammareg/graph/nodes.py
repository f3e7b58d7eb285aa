"""The records of a graph: values, and which of them are activations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from hf_gammareg.graph.rows import Effect, OpRow

WEIGHT_ARGUMENTS = ("weight", "bias", "running_mean", "running_var", "norm_weight")
"""Where ops of effect MIX and NORM take their weights, by the names of their schemas."""


@dataclass(slots=True, eq=False, kw_only=True)
class Node:
    """One value of the graph."""

    index: int
    """Position in topological order."""
    op: str
    """ATen's name without overload and in-place underscore, or `input`, `parameter`, `buffer`."""
    row: OpRow | None
    """What the table says of the op with these arguments, if it says anything."""
    arguments: dict[str, Any]
    """Arguments by the names that the row gives them; values may be Nodes or lists of them."""
    inputs: tuple[Node, ...]
    """The Nodes whose values it reads, in order: not those that only lend a shape or dtype."""
    shape: tuple[int, ...] | None
    """Shape of a tensor, None for tuples and non-tensors."""
    floating: bool
    """A floating-point or complex tensor, or a tuple that holds one."""
    tensor: bool
    """A tensor or a tuple that holds one, against sizes and None."""
    module: str
    """Path of the module whose forward made it; empty for the model itself."""
    parameter: str | None = None
    """Name of the parameter that it is."""
    name: str = ""
    """Name in the exported program; empty inside subgraphs."""
    users: list[Node] = field(default_factory=list)
    activation: bool = False
    """A value that the network passes on, against weights, masks and constants."""

    def effect(self, *effects: Effect) -> bool:
        """Whether the op's row says one of these effects."""
        return self.row is not None and self.row.effect in effects

    def operands(self, *names: str) -> list[Node]:
        """The Nodes among the arguments of these names."""
        found: list[Node] = []
        for name in names:
            found.extend(nodes_in(self.arguments.get(name)))
        return found

    def __repr__(self) -> str:
        return f"<{self.index}: {self.op} in {self.module or 'the model'}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A model's forward pass."""

    nodes: tuple[Node, ...]
    outputs: frozenset[int]
    """Indices of the nodes that the model returns."""
    source: str
    """How it was had."""

    def returned(self) -> set[int]:
        """Indices of what the outputs depend on; what only an assertion or a branch reads decides nothing."""
        return above_and(self.nodes[index] for index in self.outputs)


def nodes_in(value: Any) -> list[Node]:
    """The Nodes in an argument, however nested."""
    if isinstance(value, Node):
        return [value]
    if isinstance(value, tuple | list):
        return [node for item in value for node in nodes_in(item)]
    if isinstance(value, dict):
        return [node for item in value.values() for node in nodes_in(item)]
    return []


def above_and(nodes: Iterable[Node]) -> set[int]:
    """Indices of nodes, and of all that they are computed from."""
    stack, found = list(nodes), set[int]()
    while stack:
        node = stack.pop()
        if node.index not in found:
            found.add(node.index)
            stack += node.inputs
    return found


def mark_activations(nodes: list[Node]) -> None:
    """Say which values are activations: what the network passes on, from inputs or learned tokens to outputs.

    Integer and boolean tensors, and what is computed from them without a parameter (masks, positions, rotary angles),
    are not. A parameter that takes the place of an input (learned queries) starts activations; one that ends up as
    the weight of a convolution or linear layer (weight standardisation) does not.
    """
    of_input, of_parameter, worked, bare = ([False] * len(nodes) for _ in range(4))
    for node in nodes:
        i = node.index
        of_input[i] = node.op == "input" or any(of_input[n.index] for n in node.inputs)
        of_parameter[i] = node.parameter is not None or any(of_parameter[n.index] for n in node.inputs)
        worked[i] = node.effect(Effect.MIX, Effect.NORM) or any(worked[n.index] for n in node.inputs)
        sole = [n for n in node.inputs if n.floating]
        of_one = len(sole) == 1 and bare[sole[0].index] and (node.shape == sole[0].shape or node.effect(Effect.VIEW))
        bare[i] = node.parameter is not None or (of_one and not node.effect(Effect.MIX, Effect.NORM))
    as_weight, as_token = [False] * len(nodes), [False] * len(nodes)
    for node in reversed(nodes):
        weights = node.operands(*WEIGHT_ARGUMENTS)
        # On whichever side of a product with an activation a parameter stands, it is a weight.
        beside_input = of_input[node.index] and not (node.row and node.row.tokens)
        for read in node.inputs:
            i = read.index
            if of_input[i] or not of_parameter[i]:
                continue
            if not of_input[node.index]:
                as_weight[i] |= as_weight[node.index]
                # A gain multiplies what was made of a token; it is none.
                gains = node.effect(Effect.PRODUCT) and bare[i] and not all(bare[n.index] for n in node.inputs)
                as_token[i] |= as_token[node.index] and not gains
            if node.effect(Effect.MIX, Effect.NORM):
                as_weight[i] |= read in weights
                as_token[i] |= read not in weights and (worked[i] or not beside_input)
            if node.effect(Effect.JOIN):
                as_token[i] |= of_input[node.index]  # a class token, put beside the patches
    for node in nodes:
        i = node.index
        if not node.floating or node.op in ("parameter", "buffer"):
            continue
        follows = any(n.activation for n in node.inputs)
        if of_input[i]:
            node.activation = follows or of_parameter[i] or node.op == "input"
        else:
            node.activation = of_parameter[i] and not as_weight[i] and (follows or as_token[i])
