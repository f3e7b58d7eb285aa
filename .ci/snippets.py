"""Runs the snippets of a guide, and the commands whose output it shows, where nothing but the library is installed."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import ViTConfig, ViTForImageClassification

import hf_gammareg

text = Path(sys.argv[1]).read_text(encoding="utf-8")
os.chdir(tempfile.mkdtemp())
assert Path(sys.prefix) in Path(hf_gammareg.__file__).parents, hf_gammareg.__file__

sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
known = {
    "model": ViTForImageClassification(ViTConfig(**sizes, image_size=8, patch_size=4)),
    "train_dataset": [{"pixel_values": torch.zeros(3, 8, 8), "labels": number % 2} for number in range(4)],
}
snippets = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
for snippet in snippets:
    exec(compile(snippet, sys.argv[1], "exec"), known)

shown = re.findall(r"^```console\n\$ ([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
for command, output in shown:
    found = subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout
    assert found.strip() == output.strip(), found

assert snippets
assert shown
print(f"{len(snippets)} snippets and {len(shown)} commands of {sys.argv[1]} do what it says.")
