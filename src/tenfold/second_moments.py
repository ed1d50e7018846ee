"""Second moments of the inputs of layers, from hooks on a running model; for a convolution the inputs are its patches."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.patches import is_transposed, patch_size, patches
from tenfold.running import NotFinite, first_argument
from tenfold.solvers.diagonal_whitening import DiagonalWhitening
from tenfold.solvers.whitening import Whitening
from tenfold.survey import Found
from tenfold.uses import Uses
from tenfold.wrappers import clean_name

SIZE_LIMIT = 4608  # values in a patch above which only the diagonal of the moment is kept: 4608^2 doubles are 170 MB


class InputMoments:
    """Forward hooks that accumulate the second moment of each layer's inputs in float64, streaming over any number of samples.

    Use as a context; `moments` are then a mapping from layer names to `Whitening`. For a convolution the inputs are its patches. A layer
    with a bias, or whose outputs all go to BatchNorms and nowhere else, is free in the mean of its outputs: its metric is that of
    what varies.
    """

    def __init__(self, model: nn.Module, layers: Sequence[Found]) -> None:
        self._layers = [one for one in layers if is_calibrated(one)]
        self._diagonal = {one.name for one in self._layers if not has_whole_moment(one)}
        self._model, self._norms = model, batch_norms(model)
        self._sums: dict[str, Sums] = {}
        self._biased = {one.name for one in self._layers if getattr(one.module, "bias", None) is not None}
        self._uses = Uses()
        self._handles: list[Any] = []

    def __enter__(self) -> "InputMoments":
        for one in self._layers:
            self._handles.append(one.module.register_forward_pre_hook(self._hook(one.name), with_kwargs=True))
            self._handles.append(one.module.register_forward_hook(self._watch(one.name)))
        for norm in self._norms.values():
            self._handles.append(norm.register_forward_pre_hook(self._enter_norm))
        self._handles.append(self._model.register_forward_hook(self._leave_model))
        self._uses.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._uses.__exit__(*error)
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str) -> Any:
        def accumulate(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            found = finite_rows(name, module, (*arguments, *keywords.values()))
            if found is not None:
                rows, count = found
                self._sums.setdefault(name, Sums(name in self._diagonal)).add(rows, rows, count)

        return accumulate

    def _watch(self, name: str) -> Any:
        def watch(_: nn.Module, arguments: Any, output: Any) -> None:
            self._uses.watch(name, output)

        return watch

    def _enter_norm(self, _: nn.Module, arguments: tuple[Any, ...]) -> None:
        self._uses.norm(arguments)

    def _leave_model(self, _: nn.Module, arguments: Any, output: Any) -> None:
        self._uses.returned(output)

    @cached_property
    def moments(self) -> dict[str, Whitening]:
        """The second moments by layer name; a layer that no input reached has none. Nothing can be added once they were asked for."""
        free = self._biased | self._uses.only_norms
        transposed = {
            one.name for one in self._layers if is_transposed(one.module)
        }  # the means of their outputs differ from place to place
        result = {}
        for name in list(self._sums):
            sums = self._sums.pop(name)  # let go one by one: those of a large model are gigabytes, which would be held twice
            kind = DiagonalWhitening if name in self._diagonal else Whitening
            result[name] = kind(sums.moment) if name in transposed else kind(sums.moment, sums.means[0], name in free, sums.rows)
        return result


class Sums:
    """Running sums over pairs of rows (groups, rows, n): the mean of x y', or its diagonal, and the means of x and of y.

    Rows that are added together count from their mean: in float32 the products of large means would drown what varies around them.
    """

    def __init__(self, is_diagonal: bool = False) -> None:
        self._is_diagonal, self._count, self.rows = is_diagonal, 0, 0
        self._product: Any = 0.0
        self._sums: Any = (0.0, 0.0)

    def add(self, x: Tensor, y: Tensor, count: int = 1) -> None:
        """Counts rows in, each so many times; both have as many."""
        u, a, total_u = _from_mean(x)
        v, b, total_v = (u, a, total_u) if y is x else _from_mean(y)
        total_x, total_y = total_u + x.shape[1] * a, total_v + x.shape[1] * b
        if self._is_diagonal:
            product = (u * v).sum(1, dtype=torch.float64) + a * total_y + total_u * b
        else:
            product = (u.mT @ v).double()  # added to in place, as every result of its own would be as large as what is kept
            product += a[..., :, None] * total_y[..., None, :]
            product += total_u[..., :, None] * b[..., None, :]
        product *= count
        product += self._product
        self._product = product
        self._sums = (self._sums[0] + count * total_x, self._sums[1] + count * total_y)
        self._count += count * x.shape[1]
        self.rows += x.shape[1]

    @property
    def moment(self) -> Tensor:
        """(groups, n, n), or (groups, n)."""
        return self._product / self._count

    @property
    def means(self) -> tuple[Tensor, Tensor]:
        """(groups, n) each."""
        return self._sums[0] / self._count, self._sums[1] / self._count


def _from_mean(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows less their mean, that mean, and what rounding of it leaves as the sum of the rows; the last two (groups, n) in float64."""
    mean = rows.mean(1, keepdim=True)
    left = rows - mean
    return left, mean[:, 0].double(), left.sum(1, dtype=torch.float64)


def is_calibrated(one: Found) -> bool:
    """Whether a second moment of a layer's inputs makes sense."""
    return one.layer is not None and patch_size(one.module) > 0


def has_whole_moment(one: Found) -> bool:
    """Whether the whole second moment of a layer's inputs is kept, and not its diagonal alone."""
    return is_calibrated(one) and patch_size(one.module) <= SIZE_LIMIT


def batch_norms(model: nn.Module) -> dict[str, Any]:
    """The BatchNorms with running statistics by name."""
    found = {clean_name(name): m for name, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    return {name: norm for name, norm in found.items() if norm.running_mean is not None and norm.running_var is not None}


def finite_rows(name: str, module: nn.Module, values: tuple[Any, ...]) -> tuple[Tensor, int] | None:
    """(groups, rows, n): the patches of a layer's first input and how many each row stands for; None where it has none.

    Raises:
        NotFinite: a value is NaN or infinite.
    """
    if (first := first_argument(values)) is None or not first.numel():
        return None
    rows, count = patches(module, first.detach())
    if not bool(torch.isfinite(rows).all()):
        raise NotFinite(
            f"the inputs of {name} have values that are NaN or infinite; calibration needs finite ones: "
            "check that the data are normalised as the model expects"
        )
    return rows, count
