"""A Space: the name of a model or its config.json in, the page about its gammas out (`python recipes/space/app.py`)."""

from __future__ import annotations

import argparse
import html
import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from looking import Limits, Looks, Wish, looks, named

from hf_gammareg.decay.policy import POLICIES

if TYPE_CHECKING:
    import gradio as gr

WAITING = 40
"""Looks that may wait for their turn; more are turned away."""

ABOUT = """# Gammas by role

Which normalization gains (gammas) of a network should weight decay touch? It depends on where in the residual network
each of them stands. Name a model, or upload its `config.json`: only configurations are read here, never weights, and no
code that comes with a model.
"""

Shown = tuple[str, str, list[str]]


def answer(
    source: str, file: str | None, policy: str, others: list[str], *, seeing: Looks, limits: Limits
) -> Iterator[Shown]:
    """What was said about a model, the page about it, and files to keep."""
    source = (source or "").strip()
    config = None
    if file is not None:
        if source:
            yield f"Expected a name or a config.json, found both ({source[:40]!r}). Clear one of them.", "", []
            return
        config = Path(file).read_text(encoding="utf-8", errors="replace")  # of a size that `launch` limits
        source = named(config)
    seen = seeing.see(Wish(source=source, config=config, policy=policy, others=tuple(others)))
    if seen.page is None:
        yield seen.told, "", []
        return
    with tempfile.TemporaryDirectory() as folder:  # gradio takes copies before this goes on, and lets them go later
        name = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in source)[:60]
        files = {f"{name}.html": seen.page, f"{name}.svg": seen.picture}
        paths = [Path(folder, file) for file, text in files.items() if text is not None]
        for path in paths:
            path.write_text(files[path.name] or "", encoding="utf-8")
        yield seen.told, framed(seen.page), [str(path) for path in paths]


def framed(page: str) -> str:
    """The page in a frame of its own, in which it can reach nothing of this one."""
    style = "width: 100%; height: 85vh; border: 1px solid #8884; border-radius: 12px"
    return f'<iframe title="The page" sandbox="allow-scripts" style="{style}" srcdoc="{html.escape(page)}"></iframe>'


def made(seeing: Looks, limits: Limits) -> gr.Blocks:
    """The app."""
    import gradio as gr

    policies = list(POLICIES)
    with gr.Blocks(title="Gammas by role", delete_cache=(600, 1800), analytics_enabled=False) as app:
        gr.Markdown(ABOUT)
        with gr.Row():
            with gr.Column():
                source = gr.Textbox(label="Model", placeholder="timm/resnet50, transformers/bert, or a Hub id")
                file = gr.File(label="or its config.json", file_types=[".json"], height=120)
            with gr.Column():
                policy = gr.Dropdown(
                    policies, value="guidelines", label="Policy, or roles: last,absorbed", allow_custom_value=True
                )
                others = gr.CheckboxGroup(policies, value=["trainer", "timm"], label="Side by side with")
        gr.Examples([["timm/resnet50"], ["timm/vit_base_patch16_224"], ["transformers/llama"]], [source])
        button = gr.Button("Look", variant="primary")
        told = gr.Textbox(label="In a line", interactive=False, lines=2)
        kept = gr.Files(label="To keep: the page and the picture", interactive=False, height=150)
        page = gr.HTML()
        _uploads_only(file)
        gr.on(
            [button.click, source.submit],
            partial(answer, seeing=seeing, limits=limits),
            [source, file, policy, others],
            [told, page, kept],
            api_name="look",
            concurrency_limit=limits.at_once,
        )
    return app.queue(max_size=WAITING)


def _uploads_only(file: gr.File) -> None:
    """Have no address fetched that a client sends in a file's place: what is there may have any size."""
    import gradio as gr

    move = file.async_move_resource_to_block_cache

    async def moved(path: str | Path | None) -> str | None:
        if path is not None and not Path(path).is_file():
            raise gr.Error(f"Expected a file that was uploaded, found {str(path)[:80]!r}. Upload the config.json.")
        return await move(path)

    file.async_move_resource_to_block_cache = moved  # type: ignore[method-assign]


def main() -> None:
    """Serve the app until it is stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, help="default: the first one that is free from 7860 on")
    parser.add_argument("--seconds", type=int, default=60, help="that a look may take (default %(default)s)")
    options = parser.parse_args()
    # Before the libraries are loaded: no thread more than there are looks, and nobody's private models.
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["HF_HUB_DISABLE_IMPLICIT_TOKEN"] = "1"
    limits = Limits(seconds=options.seconds)
    with looks(limits) as seeing:
        made(seeing, limits).launch(server_port=options.port, max_file_size=limits.config)


if __name__ == "__main__":
    main()
