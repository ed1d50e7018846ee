"""export: a model for use elsewhere: safetensors (`save`, `load`), dense layers, and torch.export and ONNX, checked against the model."""

import copy
import importlib
import io
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree

from tenfold.files import write_bytes
from tenfold.layers.base import FactorizedLayer
from tenfold.messages import one_line
from tenfold.model_file import load as load
from tenfold.model_file import save as save
from tenfold.places import HOOKS
from tenfold.recurrent.opened import close_recurrent
from tenfold.running import REFUSALS, batch_size, call, eval_mode, tensors_in
from tenfold.wrappers import unwrapped

Inputs: TypeAlias = Tensor | Sequence[Any] | Mapping[str, Any]

TOLERANCE = 1e-4  # largest difference between outputs, relative to the largest output; float32 sums in another order stay below 1e-5
ONNX_LIMIT = 2**31 - 1  # bytes of one protobuf message
MOST_SAMPLES = 2**31 - 1  # in a batch; without a limit torch 2.6 takes the largest integer for "no limit" and refuses it
OLD_ONNX = 'pip install "onnx==1.17.*" "onnxscript==0.2.*" "protobuf<6"'  # what torch 2.6 converts with, as tested; newer ones break it


def to_dense(model: nn.Module) -> nn.Module:
    """A new model in which every factorised layer is the torch layer with the dense weight; the old model is untouched.

    A layer that stands at several places stays one layer; recurrent layers are torch's again. Everything else is copied, hooks too; a
    model from torch.compile comes back uncompiled.
    """
    model = unwrapped(model)
    made = {layer: _dense_of(layer) for layer in model.modules() if isinstance(layer, FactorizedLayer)}
    memo: dict[int, Any] = {id(layer): dense for layer, dense in made.items()}
    result = copy.deepcopy(model, memo)
    for layer, dense in made.items():
        for name in HOOKS:
            setattr(dense, name, copy.deepcopy(getattr(layer, name), memo))  # the memo: a hook may be a method of the model
    return close_recurrent(result)


def _dense_of(layer: FactorizedLayer) -> nn.Module:
    dense: Any = layer.to_dense()
    dense.weight.requires_grad_(any(factor.requires_grad for factor in layer.factorized.factors))
    if layer.bias is not None:
        dense.bias.requires_grad_(layer.bias.requires_grad)
    return dense


def to_exported_program(model: nn.Module, inputs: Inputs, *, dynamic_batch: bool = True) -> ExportedProgram:
    """The model in eval mode as torch.export's graph, checked to give the model's outputs for the inputs and for other batch sizes.

    Args:
        inputs: an example: a tensor, a tuple of arguments or a mapping of keyword arguments.
        dynamic_batch: the program takes any batch size: the first axis of every input that has the first input's size there.

    Raises:
        RuntimeError: torch cannot export the model, or the program gives other outputs.
        TypeError: the inputs are no tensor, tuple or mapping.
    """
    _check_inputs(inputs)
    model = unwrapped(model)
    inputs = _on_device(model, inputs)
    with eval_mode(model), torch.no_grad():
        call(model, inputs)  # what fails in the model itself is no fault of the export
        if dynamic_batch and batch_size(inputs) == 1:
            inputs = _with_batch(inputs, 2)  # torch.export takes a size of 1 for a constant
        program = _exported(model, inputs, dynamic_batch)
        run = program.module()
        for example in _examples(inputs, dynamic_batch):
            _check_same(_wanted(model, example, inputs), lambda example=example: call(run, example), "the exported program", example)
    return program


def _exported(model: nn.Module, inputs: Inputs, dynamic_batch: bool) -> ExportedProgram:
    """Torch's program. Where torch cannot prove all that it assumes of a batch with a name and a range, it is left to find the range."""
    args, kwargs = _arguments(inputs)
    failures: list[Exception] = []
    for batch in (Dim("batch", max=MOST_SAMPLES), Dim.DYNAMIC) if dynamic_batch else (None,):
        try:
            return torch.export.export(model, args, kwargs, dynamic_shapes=_batch_axes(inputs, batch), strict=False)
        except Exception as error:
            failures.append(error)
    raise RuntimeError(
        f"torch.export stopped at {type(model).__name__} with {type(failures[0]).__name__}: {one_line(failures[0])}; a forward is needed "
        "whose steps depend on neither values nor the batch size: change it, or export for one batch size with dynamic_batch=False"
    ) from failures[0]


def export_torch(model: nn.Module, inputs: Inputs, path: str | os.PathLike[str], *, dynamic_batch: bool = True) -> ExportedProgram:
    """Writes the program of `to_exported_program` to a .pt2 file, for torch.export.load, and returns it.

    Raises:
        RuntimeError: see `to_exported_program`.
        OSError: the folder is missing, read-only or full; nothing is left behind.
    """
    program = to_exported_program(model, inputs, dynamic_batch=dynamic_batch)
    file = io.BytesIO()
    torch.export.save(program, file)
    write_bytes(path, file.getbuffer())
    return program


def to_onnx(
    model: nn.Module, inputs: Inputs, path: str | os.PathLike[str], *, opset: int | None = None, dynamic_batch: bool = True
) -> None:
    """Writes the model in eval mode to an ONNX file, after onnx has checked it and onnxruntime has given the model's outputs.

    Outputs are compared for the inputs and for other batch sizes; they may differ by 1e-4 of the largest output.

    Args:
        inputs, dynamic_batch: as in `to_exported_program`.
        opset: the version of the operators; left out, the one that the installed torch recommends.

    Raises:
        ImportError: onnx, onnxscript or onnxruntime is missing.
        RuntimeError: the model cannot be expressed in ONNX, or onnxruntime gives other outputs.
        ValueError: the model is too large for one ONNX file.
        OSError: the folder is missing, read-only or full; nothing is left behind.
    """
    onnx, runtime = _onnx_packages()
    model = unwrapped(model)
    size = sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))
    if size > ONNX_LIMIT:
        raise ValueError(f"{type(model).__name__} has {size:,} bytes; one ONNX file holds {ONNX_LIMIT:,}: use tenfold.export.export_torch")
    program = to_exported_program(model, inputs, dynamic_batch=dynamic_batch)
    try:
        data = _onnx_bytes(program, opset)
        onnx.checker.check_model(data, full_check=True)
        session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    except Exception as error:
        old = f", for this torch {torch.__version__} packages of its time ({OLD_ONNX})" if torch.__version__ < "2.7" else ""
        raise RuntimeError(
            f"{type(model).__name__} did not become ONNX: {type(error).__name__}: {one_line(error)}; operators that both ONNX and "
            f"onnxruntime have are needed: convert the model to float32, try another opset{old}, or use tenfold.export.export_torch"
        ) from error
    with eval_mode(model), torch.no_grad():
        inputs = _on_device(model, inputs)
        for example in _examples(inputs, dynamic_batch):
            _check_same(_wanted(model, example, inputs), lambda example=example: _run_onnx(session, example), "onnxruntime", example)
    write_bytes(path, data)


def _onnx_packages() -> tuple[Any, Any]:
    try:
        importlib.import_module("onnxscript")
        return importlib.import_module("onnx"), importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ImportError(
            f"export to ONNX needs the package {error.name}, which is not installed; onnx, onnxscript and onnxruntime are needed: "
            'pip install "tenfold[onnx]"'
        ) from error


def _onnx_bytes(program: ExportedProgram, opset: int | None) -> bytes:
    """The program as an ONNX model whose free axis is called "batch"."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")  # warns of torchvision, which nothing here needs
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        proto: Any = torch.onnx.export(program, (), dynamo=True, opset_version=opset, verbose=False).model_proto  # pyright: ignore
    finally:
        log.setLevel(level)
    made = next(one.version for one in proto.opset_import if one.domain in ("", "ai.onnx"))
    if opset not in (None, made):
        raise ValueError(f"opset {opset} was asked for, and torch made {made}, as it cannot convert to the other")
    free = {axis.dim_param for value in proto.graph.input for axis in value.type.tensor_type.shape.dim if axis.dim_param}
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if len(free) == 1 and axis.dim_param in free:
                axis.dim_param = "batch"
    return proto.SerializeToString()


def _run_onnx(session: Any, inputs: Inputs) -> list[Tensor]:
    names = [one.name for one in session.get_inputs()]
    if isinstance(inputs, Mapping):
        values = {name: inputs[name] for name in names}
    else:
        values = dict(zip(names, tensors_in(inputs), strict=True))
    return [torch.from_numpy(value) for value in session.run(None, {name: value.detach().cpu().numpy() for name, value in values.items()})]


# -- inputs -----------------------------------------------------------------------------------------------------------


def _check_inputs(inputs: Any) -> None:
    """Raises TypeError where inputs are no arguments of a model."""
    if not isinstance(inputs, Tensor | tuple | list | Mapping):
        raise TypeError(
            f"inputs are a {type(inputs).__name__}; an example is needed that the model can be called with, a tensor, a tuple of arguments "
            "or a mapping of keyword arguments: convert arrays with torch.as_tensor"
        )


def _arguments(inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (inputs,) if isinstance(inputs, Tensor) else tuple(inputs), {}


def _on_device(model: nn.Module, inputs: Inputs) -> Any:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    inputs = dict(inputs) if isinstance(inputs, Mapping) else inputs
    return _pytree.tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, inputs)


def _has_batch(leaf: Any, size: int) -> bool:
    return isinstance(leaf, Tensor) and leaf.dim() > 0 and leaf.shape[0] == size


def _with_batch(inputs: Inputs, size: int) -> Any:
    """The inputs with another batch size: samples repeated or left out."""
    old = batch_size(inputs)
    return _pytree.tree_map(lambda leaf: leaf[torch.arange(size, device=leaf.device) % old] if _has_batch(leaf, old) else leaf, inputs)


def _batch_axes(inputs: Inputs, batch: Any) -> Any:
    """torch.export's dynamic_shapes for the inputs."""
    size = batch_size(inputs)
    axes = _pytree.tree_map(lambda leaf: {0: batch} if _has_batch(leaf, size) else None, inputs)
    return axes if isinstance(inputs, Mapping) else (axes,) if isinstance(inputs, Tensor) else tuple(axes)


def _examples(inputs: Inputs, dynamic_batch: bool) -> Iterator[Any]:
    """The inputs, and where the batch is free also one sample and one more than were given."""
    yield inputs
    if dynamic_batch:
        yield _with_batch(inputs, 1)
        yield _with_batch(inputs, batch_size(inputs) + 1)


# -- outputs ----------------------------------------------------------------------------------------------------------


def _wanted(model: nn.Module, example: Any, inputs: Inputs) -> Any:
    """The model's outputs for an example made of the inputs; RuntimeError where it takes none, as an EmbeddingBag with offsets."""
    try:
        return call(model, example)
    except REFUSALS as error:
        size = batch_size(inputs)
        raise RuntimeError(
            f"{type(model).__name__} does not run for a batch of {batch_size(example)}, made of the {size} given: {one_line(error)}; for a "
            f"free batch every first axis of size {size} has to be that of the samples: export for one batch size with dynamic_batch=False"
        ) from error


def _check_same(wanted: Any, run: Any, what: str, example: Any) -> None:
    """Raises RuntimeError where `run()` fails or gives other tensors than `wanted`."""
    where = f"for a batch of {batch_size(example)}"
    advice = "the export cannot be used: export with dynamic_batch=False, or export tenfold.to_dense(model)"
    try:
        found = tensors_in(run())
    except Exception as error:
        raise RuntimeError(
            f"{what} fails {where} with {type(error).__name__}: {one_line(error)}; it must run as the model does: {advice}"
        ) from error
    expected = tensors_in(wanted)
    if [tuple(t.shape) for t in found] != [tuple(t.shape) for t in expected]:
        shapes = [[tuple(t.shape) for t in some[:4]] for some in (found, expected)]
        raise RuntimeError(
            f"{what} gives outputs of shapes {shapes[0]} {where}, and the model {shapes[1]}; they must be the same: {advice}"
        )
    for one, other in zip(found, expected, strict=True):
        difference, limit = relative_difference(one, other), tolerance(other.dtype)
        if not difference <= limit:  # also where it is NaN
            raise RuntimeError(
                f"{what} differs from the model by {difference:.2e} of the largest output {where}; at most {limit:.0e} is allowed: {advice}"
            )


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """The largest |found - expected| over the largest |expected|; equal infinities and NaN at the same place are no difference."""
    a, b = found.detach().cpu().double(), expected.detach().cpu().double()
    if a.numel() == 0:
        return 0.0
    distance = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a - b).abs())
    largest = torch.where(b.isfinite(), b.abs(), 0.0).max()
    return float(distance.max() / largest.clamp_min(1e-30))


def tolerance(dtype: torch.dtype) -> float:
    """The difference allowed between outputs: 1e-4, and 8 roundings where the dtype is coarser than that."""
    return max(TOLERANCE, 8 * torch.finfo(dtype).eps) if dtype.is_floating_point else 0.0
