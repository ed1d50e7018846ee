"""What torch.compile puts around modules: the names without it, and the module inside."""

from torch import nn


def clean_name(name: str) -> str:
    """A module's name without the parts that torch.compile puts in."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside torch.compile's wrapper, or the module itself."""
    return getattr(model, "_orig_mod", model)


def is_compiled(module: nn.Module) -> bool:
    """Whether a module is the wrapper that torch.compile puts around another one."""
    return "_orig_mod" in module._modules
