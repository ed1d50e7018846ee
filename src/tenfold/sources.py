"""Sources: what the command line's MODEL and --weights arguments stand for. Data arguments are in `datasets.py`."""

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

import tenfold
from tenfold.files import read_header, read_tensors
from tenfold.messages import one_line

COLLECTIONS = {"torchvision": "torchvision", "timm": "timm", "hf": "transformers"}
NESTED = ("state_dict", "model_state_dict", "model")  # keys under which checkpoints keep a state_dict
MODEL_FORMS = "path/to/file.py:function, package.module:function, torchvision:NAME, timm:NAME or hf:NAME"


def read_model(text: str, weights: Path | None = None, *, seed: int = 0) -> nn.Module:
    """The model in eval mode that MODEL and --weights name.

    `text` is ``file.py:function`` or ``package.module:function`` (a function without arguments that returns a module), or
    ``torchvision:resnet18``, ``timm:NAME``, ``hf:NAME``: pretrained weights of that collection, or its bare network where `weights`
    are given. `weights` is a .safetensors file, a state_dict file, or a file of `tenfold.save`, which gives the compressed model.

    Raises:
        ValueError: the text names nothing, the function fails, or the weights do not fit.
        TypeError: the function returns something else than a module.
        ImportError: the collection is not installed.
    """
    torch.manual_seed(seed)
    factory = model_factory(text, is_pretrained=weights is None)
    if weights is not None and is_tenfold_file(weights):
        return tenfold.load(weights, factory).eval()
    model = factory()
    if weights is not None:
        load_weights(model, weights)
    return model.eval()


def model_factory(text: str, *, is_pretrained: bool = False) -> Callable[[], nn.Module]:
    """A function without arguments that returns the module named by MODEL; collections download weights where `is_pretrained`."""
    collection, _, name = text.partition(":")
    if collection in COLLECTIONS and name:
        return lambda: _from_collection(collection, name, is_pretrained)
    function = read_function(text, "MODEL", MODEL_FORMS)

    def build() -> nn.Module:
        model = call_function(function, text)
        if not isinstance(model, nn.Module):
            raise TypeError(f"{text} returned a {type(model).__name__}; MODEL needs a function that returns a torch.nn.Module")
        return model

    return build


def _from_collection(collection: str, name: str, is_pretrained: bool) -> nn.Module:
    package = COLLECTIONS[collection]
    try:
        module: Any = importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the model {collection}:{name} needs the package {error.name}, which is not installed; run: pip install {package}"
        ) from error
    except Exception as error:  # a build for another torch fails in ways of its own
        raise ImportError(
            f"the model {collection}:{name} needs the package {package}, which cannot be imported ({type(error).__name__}: "
            f"{one_line(error)}); "
            "a build for the installed torch is needed: install both from the same place"
        ) from error
    try:
        if collection == "torchvision":
            return module.models.get_model(name, weights="DEFAULT" if is_pretrained else None)
        if collection == "timm":
            return module.create_model(name, pretrained=is_pretrained)
        config = module.AutoConfig.from_pretrained(name)
        kind = getattr(module, (config.architectures or ["AutoModel"])[0])
        return kind.from_pretrained(name) if is_pretrained else kind(config)
    except Exception as error:  # the collections raise what they like: unknown name, no network, broken file
        raise ValueError(
            f"{package} has not given the model {name!r} ({type(error).__name__}: {one_line(error)}); a name that it knows is needed, and "
            "for pretrained weights a network or its cache: check the name, or pass --weights FILE"
        ) from error


# -- functions in files and packages ----------------------------------------------------------------------------------


def read_function(text: str, what: str, forms: str) -> Callable[[], Any]:
    """The function that ``file.py:function`` or ``package.module:function`` names.

    Raises:
        ValueError: the file, the module or the function is not there, or the file cannot be run.
    """
    place, colon, name = text.rpartition(":")
    if not colon or not place or not name.isidentifier():
        raise ValueError(f"{what} is {text!r}; it needs to be {forms}: write for instance networks.py:resnet20")
    module = _module_of_file(Path(place)) if place.endswith(".py") else _module_of_package(place, what, forms)
    function = getattr(module, name, None)
    if not callable(function):
        there = [key for key, value in vars(module).items() if _is_offered(module, key, value)]
        raise ValueError(
            f"{place} has no function {name!r}; it has {', '.join(there) or 'no function without arguments'}: name one of these"
        )
    return function


def call_function(function: Callable[[], Any], text: str) -> Any:
    """What a user's function returns; the folder of its file can be imported from while it runs.

    Raises:
        ValueError: it raised.
    """
    file = getattr(sys.modules.get(getattr(function, "__module__", "")), "__file__", None)
    try:
        with _importable(Path(file).parent if file else None):
            return function()
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"{text} raised {type(error).__name__}: {one_line(error)}; it must run without arguments: "
            "try it in Python, or add --debug for the traceback"
        ) from error


def _module_of_file(path: Path) -> ModuleType:
    """The file run as a module of its own name, once; its folder can be imported from while it runs, and is not kept on sys.path."""
    path = path.expanduser().resolve()
    if not path.is_file():
        raise ValueError(f"the file {path} does not exist; a Python file with the function is needed: check the path")
    name = f"tenfold_source_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pickling and dataclasses look classes up by their module's name
    try:
        with _importable(path.parent):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script without a main guard ends the program where it is imported
        del sys.modules[name]
        raise ValueError(
            f"the file {path} raised {type(error).__name__}: {one_line(error)}; it must be importable: "
            'run it with Python and mend what it says, and put what only a script does under if __name__ == "__main__"'
        ) from error
    return module


def _module_of_package(name: str, what: str, forms: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"the module {name!r} cannot be imported ({type(error).__name__}: {one_line(error)}); {what} needs {forms}: "
            "check the name, or write the path of a file with .py"
        ) from error


@contextlib.contextmanager
def _importable(folder: Path | None) -> Iterator[None]:
    if folder is None:
        yield
        return
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(entry)


def _is_offered(module: ModuleType, key: str, value: object) -> bool:
    """Whether a name of a module is a public function of its own that can be called without arguments."""
    if key.startswith("_") or not inspect.isfunction(value) or value.__module__ != module.__name__:
        return False
    return all(
        p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in inspect.signature(value).parameters.values()
    )


# -- weights ----------------------------------------------------------------------------------------------------------


def is_tenfold_file(path: Path) -> bool:
    """Whether a file was written by `tenfold.save`."""
    try:
        return path.suffix == ".safetensors" and "tenfold" in read_header(path).metadata
    except (ValueError, OSError):
        return False


def load_weights(model: nn.Module, path: Path) -> None:
    """Fills the model from a safetensors or state_dict file; every tensor must have its place and every place its tensor.

    Raises:
        ValueError: the file is missing, is no such file, or does not fit the model.
    """
    places = {_clean_key(key, model): value for key, value in model.state_dict(keep_vars=True).items()}
    state = {_clean_key(key, model): value for key, value in _read_state(path).items()}
    wrong = [
        f"{key} is {tuple(value.shape)} in the file and {tuple(places[key].shape)} in the model"
        for key, value in state.items()
        if key in places and value.shape != places[key].shape
    ]
    given = {id(places[key]) for key in state if key in places}
    missing = [key for key, value in places.items() if key not in state and not _may_lack(key, value, given)]
    extra = [key for key in state if key not in places]
    if wrong or missing or extra:
        parts = [f"{wrong[0]} ({len(wrong)} of wrong shape)"] if wrong else []
        parts += [f"{len(missing)} missing: {_some(missing)}"] if missing else []
        parts += [f"{len(extra)} unknown: {_some(extra)}"] if extra else []
        raise ValueError(
            f"the weights {path} do not fit {type(model).__name__}: {'; '.join(parts)}; every tensor of the model is needed with its name "
            "and shape: check that MODEL builds the network that was saved"
        )
    with torch.no_grad():
        for key, value in state.items():
            places[key].copy_(value)


def _may_lack(key: str, value: Tensor, given: set[int]) -> bool:
    """Whether a file may be without a tensor: it is tied to one that is there, or BatchNorm's counter, which old files lack."""
    return key.endswith("num_batches_tracked") or id(value) in given


def _clean_key(key: str, model: nn.Module) -> str:
    """A key without what torch.compile and DataParallel put in."""
    parts = [part for part in key.split(".") if part != "_orig_mod"]
    return ".".join(parts[1:] if parts[0] == "module" and not hasattr(model, "module") else parts)


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"the weights {path} do not exist; a safetensors or state_dict file is needed: check the path")
    if path.suffix == ".safetensors":
        return read_tensors(path)
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ValueError(
            f"the weights {path} cannot be read as tensors only ({type(error).__name__}); code in files is never run, so a safetensors or "
            "state_dict file is needed: write one with torch.save(model.state_dict(), FILE)"
        ) from error
    for key in NESTED:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(
            f"the weights {path} hold a {type(state).__name__} that is no state_dict; a mapping of names to tensors is needed: "
            "write one with torch.save(model.state_dict(), FILE)"
        )
    return dict(state)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
