"""Layers, one file each. A layer is found by being here: `all_layers` imports every file of this folder."""

import functools
import importlib
import inspect
import pkgutil

from tenfold.layers.base import FactorizedLayer


def all_layers() -> dict[str, type[FactorizedLayer]]:
    """Every layer of this folder by its name, which is torch.nn's."""
    return dict(_layers_in(tuple(__path__)))


@functools.cache
def _layers_in(folders: tuple[str, ...]) -> dict[str, type[FactorizedLayer]]:
    """The layers of folders, which are read once: a survey asks for every module, and reading takes a millisecond."""
    found: dict[str, type[FactorizedLayer]] = {}
    for info in pkgutil.iter_modules(folders):
        module = importlib.import_module(f"{__name__}.{info.name}")
        found |= {
            name: value
            for name, value in vars(module).items()
            if isinstance(value, type)
            and issubclass(value, FactorizedLayer)
            and value.__module__ == module.__name__
            and not (inspect.isabstract(value) or name.startswith("_"))
        }
    return found
