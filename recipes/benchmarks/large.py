"""Time and memory to find the gammas of the largest models, from their configurations on the meta device.

    python recipes/benchmarks/large.py

One that torch.export can't trace has real weights, and one real run of it is recorded. Each is inspected in a process
of its own; the memory is that process's largest resident size, imports, weights and a forward pass included.
"""

from __future__ import annotations

import resource
import time
from typing import Any

import torch
import typer
from children import in_children, one_line
from rich.console import Console
from rich.progress import track
from rich.table import Table

CONFIGURATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama 3 70B": (
        "llama",
        {
            "hidden_size": 8192,
            "intermediate_size": 28672,
            "num_hidden_layers": 80,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "vocab_size": 128256,
        },
    ),
    "Qwen3 235B, mixture of 128 experts": (
        "qwen3_moe",
        {
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "moe_intermediate_size": 1536,
            "num_hidden_layers": 94,
            "num_attention_heads": 64,
            "num_key_value_heads": 4,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "head_dim": 128,
            "vocab_size": 151936,
        },
    ),
    "Longformer, recorded on real weights": (
        "longformer",
        {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 22, "num_attention_heads": 16},
    ),
}
REAL = "Longformer, recorded on real weights"


def measured(name: str) -> dict[str, Any]:
    """Build one, without weights unless it is to be recorded, and find its gammas."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

    from hf_gammareg import find_gammas

    row: dict[str, Any] = {"source": name, "error": None}
    try:
        model_type, fields = CONFIGURATIONS[name]
        config = AutoConfig.for_model(model_type, **fields, use_cache=False)
        with torch.device("cpu" if name == REAL else "meta"):
            model = (AutoModelForMaskedLM if name == REAL else AutoModelForCausalLM).from_config(config)
        if name == REAL:
            model(torch.ones(1, 512, dtype=torch.long))
            row["forward"] = memory()
        started = time.perf_counter()
        gammas = find_gammas(model)
        row |= {"seconds": time.perf_counter() - started, "roles": gammas.counts, "graph": gammas.source}
        row["parameters"] = sum(parameter.numel() for parameter in model.parameters())
        row["weights"] = sum(p.numel() * p.element_size() for p in model.parameters() if not p.is_meta)
        row["memory"] = memory()
    except Exception as error:
        row["error"] = one_line(error)
    return row


def memory() -> int:
    """The largest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Print the table."""
    table = Table(
        "model", "parameters", "seconds", "weights, GiB", "forward pass, GiB", "memory, GiB", "roles", "graph"
    )
    rows = in_children(measured, list(CONFIGURATIONS), jobs=1, limit=600, memory_gib=16, each=1)
    for row in track(rows, total=len(CONFIGURATIONS), console=Console(stderr=True), transient=True):
        if row["error"]:
            table.add_row(row["source"], row["error"])
            continue
        roles = ", ".join(f"{count} {role}" for role, count in row["roles"].items())
        held = (f"{row[kind] / 2**30:.2f}" if row.get(kind) else "-" for kind in ("weights", "forward", "memory"))
        amounts = (f"{row['parameters'] / 1e9:,.1f} billion", f"{row['seconds']:.1f}", *held)
        table.add_row(row["source"], *amounts, roles, row["graph"])
    Console(width=160).print(table)


if __name__ == "__main__":
    typer.run(main)
