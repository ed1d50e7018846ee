"""What torch.compile and parallel training put around modules: the names without it, and the module inside."""

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from tenfold.messages import MODULE, check_kind


def clean_name(name: str) -> str:
    """A module's name without the parts that torch.compile puts in."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside the wrappers of torch.compile and of parallel training, or the module itself; TypeError for anything else."""
    check_kind("model", model, nn.Module, MODULE)
    inner = model.module if isinstance(model, DataParallel | DistributedDataParallel) else getattr(model, "_orig_mod", model)
    return model if inner is model else unwrapped(inner)


def is_compiled(module: nn.Module) -> bool:
    """Whether a module is the wrapper that torch.compile puts around another one."""
    return "_orig_mod" in module._modules
