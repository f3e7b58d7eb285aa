"""Networks of PyTorch Geometric on one graph of 24 nodes, tiny: a line for each kind."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from families.recipe import Recipe, Recipes, given, made, normal

NODES, WIDTH = 24, 16
SIZES: dict[str, Any] = {"in_channels": WIDTH, "hidden_channels": WIDTH, "num_layers": 3, "out_channels": 4}


def edges() -> Tensor:
    """A ring with chords, both ways."""
    nodes = torch.arange(NODES)
    ring = torch.stack([nodes, (nodes + 1) % NODES])
    chords = torch.stack([nodes, (nodes + 5) % NODES])
    return torch.cat([ring, ring.flip(0), chords, chords.flip(0)], 1)


def halves() -> Tensor:
    """The graph of each node, of two."""
    return (torch.arange(NODES) >= NODES // 2).long()


GRAPH = given(partial(normal, NODES, WIDTH), edges)
BATCHED = given(partial(normal, NODES, WIDTH), edges, halves)
CONVOLUTIONS = ("GCN", "GraphSAGE", "GIN", "GAT", "EdgeCNN")
NORMS = ["BatchNorm", "GraphNorm", "LayerNorm", "InstanceNorm", "PairNorm", "DiffGroupNorm"]


def torch_geometric() -> Recipes:
    """Each kind of convolution with a batch norm, each norm with GCN, deep networks, and those with attention."""
    import torch_geometric  # noqa: F401

    table = {name: made(f"torch_geometric.nn:{name}", GRAPH, **SIZES, norm="batch_norm") for name in CONVOLUTIONS}
    for norm in NORMS:
        options = {"groups": 2} if norm == "DiffGroupNorm" else {}
        table[f"GCN-{norm}"] = made("torch_geometric.nn:GCN", GRAPH, **SIZES, norm=norm, norm_kwargs=options)
    for block in ("res+", "res", "plain"):
        for norm in ("BatchNorm", "LayerNorm"):
            table[f"DeepGCN-{block}-{norm}"] = Recipe(partial(_Deep, block, norm), GRAPH)
    return table | {
        "PNA": Recipe(_pna, GRAPH),
        "GCN-jk": made("torch_geometric.nn:GCN", GRAPH, **SIZES, norm="layer_norm", jk="cat"),
        "GAT-v2": made("torch_geometric.nn:GAT", GRAPH, **SIZES, norm="graph_norm", v2=True),
        "GPS": Recipe(partial(_Attending, "multihead"), BATCHED),
        "GPS-performer": Recipe(partial(_Attending, "performer"), BATCHED),
        "GraphUNet": made(
            "torch_geometric.nn:GraphUNet", GRAPH, in_channels=WIDTH, hidden_channels=8, out_channels=4, depth=2
        ),
        "MLP": made("torch_geometric.nn:MLP", _rows, channel_list=[WIDTH, WIDTH, WIDTH, 4]),
        "PMLP": made("torch_geometric.nn:PMLP", GRAPH, **SIZES),
        "Polynormer": made(
            "torch_geometric.nn:Polynormer", BATCHED, in_channels=WIDTH, hidden_channels=8, out_channels=4
        ),
        "SGFormer": made("torch_geometric.nn:SGFormer", BATCHED, in_channels=WIDTH, hidden_channels=8, out_channels=4),
        "AttentiveFP": made(
            "torch_geometric.nn:AttentiveFP",
            given(partial(normal, NODES, WIDTH), edges, partial(normal, 4 * NODES, 4), halves),
            in_channels=WIDTH,
            hidden_channels=8,
            out_channels=4,
            edge_dim=4,
            num_layers=2,
            num_timesteps=2,
        ),
        "NeuralFingerprint": made(
            "torch_geometric.nn:NeuralFingerprint",
            GRAPH,
            in_channels=WIDTH,
            hidden_channels=8,
            out_channels=4,
            num_layers=2,
        ),
        "LINKX": made(
            "torch_geometric.nn:LINKX",
            given(partial(normal, NODES, WIDTH), edges),
            num_nodes=NODES,
            in_channels=WIDTH,
            hidden_channels=8,
            out_channels=4,
            num_layers=2,
        ),
        "PointTransformer": Recipe(_Points, given(partial(normal, NODES, WIDTH), partial(normal, NODES, 3), edges)),
        "TransformerConv": Recipe(_Transformer, GRAPH),
        "ResGated": Recipe(_Residual, GRAPH),
    }


def _rows(_: nn.Module) -> Tensor:
    return normal(NODES, WIDTH)


def _pna() -> nn.Module:
    from torch_geometric.nn import PNA

    kinds: dict[str, Any] = {"aggregators": ["mean", "max"], "scalers": ["identity", "amplification"]}
    return PNA(**SIZES, **kinds, deg=torch.tensor([0, 0, 0, 0, NODES]), norm="batch_norm")


class _Deep(nn.Module):
    """A stack of DeepGCN's layers."""

    def __init__(self, block: str, norm: str) -> None:
        super().__init__()
        from torch_geometric.nn import DeepGCNLayer, GENConv
        from torch_geometric.nn import norm as norms

        self.encode = nn.Linear(WIDTH, WIDTH)
        self.layers = nn.ModuleList()
        for _ in range(3):
            conv = GENConv(WIDTH, WIDTH, learn_t=True, num_layers=2, norm="batch" if norm == "BatchNorm" else "layer")
            made = getattr(norms, norm)(WIDTH)
            self.layers.append(DeepGCNLayer(conv, made, nn.ReLU(), block=block, dropout=0.1))
        self.head = nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.encode(x)
        for layer in self.layers:
            x = layer(x, edge_index)
        return self.head(x)


class _Attending(nn.Module):
    """Two layers of local convolution and global attention."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        from torch_geometric.nn import GINConv, GPSConv

        self.layers = nn.ModuleList(
            GPSConv(WIDTH, GINConv(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU())), heads=2, attn_type=kind)
            for _ in range(2)
        )
        self.head = nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, edge_index, batch)
        return self.head(x)


class _Points(nn.Module):
    """Attention between points that lie near each other."""

    def __init__(self) -> None:
        super().__init__()
        from torch_geometric.nn import MLP, PointTransformerConv

        self.conv = PointTransformerConv(
            WIDTH, WIDTH, pos_nn=MLP([3, 8, WIDTH], plain_last=False), attn_nn=MLP([WIDTH, 8, WIDTH], plain_last=False)
        )
        self.head = nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor, position: Tensor, edge_index: Tensor) -> Tensor:
        return self.head(x + self.conv(x, position, edge_index).relu())


class _Transformer(nn.Module):
    """Graph transformer layers with gates of their own between input and message."""

    def __init__(self) -> None:
        super().__init__()
        from torch_geometric.nn import LayerNorm, TransformerConv

        self.convs = nn.ModuleList(TransformerConv(WIDTH, 8, heads=2, beta=True) for _ in range(2))
        self.norms = nn.ModuleList(LayerNorm(WIDTH, mode="node") for _ in range(2))
        self.head = nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x, edge_index)).relu()
        return self.head(x)


class _Residual(nn.Module):
    """Gated convolutions with a message norm in each."""

    def __init__(self) -> None:
        super().__init__()
        from torch_geometric.nn import GENConv, GraphNorm, ResGatedGraphConv

        self.convs = nn.ModuleList(
            [ResGatedGraphConv(WIDTH, WIDTH), GENConv(WIDTH, WIDTH, msg_norm=True, learn_msg_scale=True)]
        )
        self.norms = nn.ModuleList(GraphNorm(WIDTH) for _ in range(2))
        self.head = nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = x + norm(conv(x, edge_index)).relu()
        return self.head(x)
