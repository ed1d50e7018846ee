"""ConvTranspose1d, ConvTranspose2d, ConvTranspose3d: torch.nn's transposed convolutions with a factorised weight."""

import abc
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenfold.format import Format
from tenfold.layers.base import check_format
from tenfold.layers.conv import ConvolutionLayer
from tenfold.weight import FactorizedWeight


class _ConvTranspose(ConvolutionLayer, abc.ABC):
    """A transposed convolution of x (N, in, *positions) with W (in, out / groups, *kernel); the groups are slices of the input axis."""

    is_transposed = True

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    output_padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    padding_mode: str

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        format: Format,
        in_modes: Sequence[int] | None = None,
        out_modes: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        options: Any = self.dense_type(
            in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, False, dilation, padding_mode, "meta", dtype
        )
        check_format(type(self).__name__, format)
        fold = format.fold(self.fold_of(options, self.modes_of(format), in_modes, out_modes))
        factorized = FactorizedWeight(format.network(fold), fold, device=device, dtype=dtype)
        self._build(options, factorized, nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """(N, out, *positions) from (N, in, *positions), or one sample of it.

        Args:
            output_size: positions of the output, where the stride leaves a choice; in place of `output_padding`.
        """
        extra = self.output_padding if output_size is None else self._extra(input, output_size)

        def spatial(x: Tensor, weight: Tensor, groups: int) -> Tensor:
            operation = _CONVOLUTION[len(self.kernel_size)]
            return operation(x, weight, None, self.stride, self.padding, extra, groups, self.dilation)

        return self._convolve(input, spatial)

    def _extra(self, x: Tensor, output_size: Sequence[int]) -> tuple[int, ...]:
        """The output padding that gives `output_size`, which may also name the batch and the channels."""
        n_spatial = len(self.kernel_size)
        wanted = tuple(output_size)
        if len(wanted) == x.dim():
            wanted = wanted[-n_spatial:]
        if len(wanted) != n_spatial:
            raise ValueError(
                f"output_size has {len(wanted)} sizes; {type(self).__name__} needs {n_spatial} or {x.dim()}: give the positions"
            )
        least = tuple(
            (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1
            for size, stride, padding, dilation, kernel in zip(
                x.shape[-n_spatial:], self.stride, self.padding, self.dilation, self.kernel_size, strict=True
            )
        )
        extra = tuple(size - smallest for size, smallest in zip(wanted, least, strict=True))
        if any(not 0 <= one < stride for one, stride in zip(extra, self.stride, strict=True)):
            most = tuple(smallest + stride - 1 for smallest, stride in zip(least, self.stride, strict=True))
            raise ValueError(
                f"output_size is {wanted}, but an input with the positions {tuple(x.shape[-n_spatial:])} can give {least} to {most}; "
                "choose sizes between them"
            )
        return extra


_CONVOLUTION: dict[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


class ConvTranspose1d(_ConvTranspose):
    """torch.nn.ConvTranspose1d factorised; the arguments are torch's, and `format`, `in_modes`, `out_modes` as in `Linear`."""

    dense_type = nn.ConvTranspose1d


class ConvTranspose2d(_ConvTranspose):
    """torch.nn.ConvTranspose2d factorised; the arguments are torch's, and `format`, `in_modes`, `out_modes` as in `Linear`."""

    dense_type = nn.ConvTranspose2d


class ConvTranspose3d(_ConvTranspose):
    """torch.nn.ConvTranspose3d factorised; the arguments are torch's, and `format`, `in_modes`, `out_modes` as in `Linear`."""

    dense_type = nn.ConvTranspose3d
