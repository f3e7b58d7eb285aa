"""What a user's mypy, with no settings of ours, has to know of the installed library."""

from typing import Any, assert_type

import torch
from torch import nn

import hf_gammareg
import hf_gammareg.timm

model = nn.Linear(2, 2)
assert_type(hf_gammareg.find_gammas(model), hf_gammareg.GammaMap)
assert_type(hf_gammareg.param_groups(model, 0.1), list[dict[str, Any]])
assert_type(hf_gammareg.timm.create_optimizer_v2(model), torch.optim.Optimizer)
hf_gammareg.param_groups(model, 0.1, gama_decay=["*"])  # type: ignore[call-arg]
print(hf_gammareg.find_gamma)  # type: ignore[attr-defined]
