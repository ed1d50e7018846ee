"""Names and modules as they are without torch.compile's wrapper."""

from typing import Any

import torch
from torch import nn

from tenfold.wrappers import clean_name, is_compiled, unwrapped


def test_names_and_modules_inside_the_wrapper():
    model = nn.Sequential(nn.Linear(3, 4))
    compiled: Any = torch.compile(model, backend="eager")
    assert clean_name("_orig_mod.a._orig_mod.b") == "a.b"
    assert unwrapped(compiled) is model and unwrapped(model) is model
    assert unwrapped(torch.compile(nn.DataParallel(model), backend="eager")) is unwrapped(nn.DataParallel(compiled)) is model
    assert is_compiled(compiled) and not is_compiled(model)
