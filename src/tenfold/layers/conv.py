"""Conv1d, Conv2d, Conv3d: torch.nn's convolutions with a factorised weight."""

import abc
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from tenfold.buckets import places
from tenfold.contract import ContractionPlan, Positions, nominal_positions
from tenfold.fold import Fold, make_fold
from tenfold.format import Format
from tenfold.layers.base import FactorizedLayer, Workload, check_format, check_tensor, uniform_std
from tenfold.weight import FactorizedWeight

Sizes = int | Sequence[int]


class ConvolutionLayer(FactorizedLayer, abc.ABC):
    """What convolutions and transposed convolutions of one to three dimensions share.

    A torch layer checks the arguments, on the "meta" device, where it costs no memory; `_build` copies what `_OPTIONS` names from it, or
    from the layer that is replaced.
    """

    is_transposed: ClassVar[bool] = False
    in_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Any

    def _build(self, options: nn.Module, factorized: FactorizedWeight, bias: nn.Parameter | None) -> None:
        layer: Any = options
        self.factorized = factorized
        for name in _OPTIONS:
            setattr(self, name, getattr(layer, name))
        self._reversed_padding = list(layer._reversed_padding_repeated_twice)
        self._is_pointwise = self._maps_positions()
        self.register_parameter("bias", bias)

    def _maps_positions(self) -> bool:
        """Whether every position is mapped to itself."""
        stride, padding = ((one,) if isinstance(one, int) else one for one in (self.stride, self.padding))
        is_padded = not isinstance(padding, str) and any(padding)  # a kernel of one value needs none to keep the size
        return not self.is_transposed and {*self.kernel_size, *stride} == {1} and not is_padded

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in ("stride", "padding") and "_is_pointwise" in self.__dict__:  # options can be set later, as torch's can
            self._is_pointwise = self._maps_positions()
            self.factorized.train(self.factorized.training)  # which forgets how earlier calls were done

    def reset_parameters(self) -> None:
        """Start values with the standard deviation of the torch layer's."""
        shape = self.factorized.fold.shape
        fan_in = math.prod(shape[1:])
        self.factorized.init_normal_(uniform_std(fan_in))
        if self.bias is not None:
            nn.init.uniform_(self.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    @classmethod
    def fold_of(cls, dense: nn.Module, n_modes: int, in_modes: Sequence[int] | None = None, out_modes: Sequence[int] | None = None) -> Fold:
        layer: Any = dense
        channels = [("o", layer.out_channels), ("i", layer.in_channels // layer.groups)]
        if cls.is_transposed:
            channels = [("i", layer.in_channels), ("o", layer.out_channels // layer.groups)]
        axes = [*channels, *(("k", size) for size in layer.kernel_size)]
        return make_fold(axes, n_modes, in_modes=in_modes, out_modes=out_modes, groups=layer.groups, grouped_role=channels[0][0])

    @classmethod
    def around(cls, dense: nn.Module, factorized: FactorizedWeight) -> Self:
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        layer.factorized = factorized
        layer._build(dense, factorized, layer._bias_like(dense))
        return layer

    @classmethod
    def workload(cls, dense: nn.Module, inputs: Sequence[int], outputs: Sequence[int]) -> Workload:
        layer: Any = dense
        n_spatial = len(layer.kernel_size)
        n_in, n_out = math.prod(inputs[-n_spatial:]), math.prod(outputs[-n_spatial:])
        positions = Positions(n_in, n_out, tuple(layer.kernel_size), cls.is_transposed, math.prod(layer.stride))
        places = positions.n_in if cls.is_transposed else positions.n_out
        return Workload(1, 2 * places * layer.weight.numel(), positions)

    @classmethod
    def modes_of(cls, format: Format) -> int:
        return format.n_modes if format.n_kernel_modes is None else format.n_kernel_modes

    def to_dense(self) -> nn.Module:
        like = self.factorized.factors[0]
        options = {name: getattr(self, name) for name in _OPTIONS if self.is_transposed or name != "output_padding"}
        dense: Any = self.dense_type(bias=self.bias is not None, device=like.device, dtype=like.dtype, **options)
        with torch.no_grad():
            dense.weight.copy_(self.weight)
            if self.bias is not None:
                dense.bias.copy_(self.bias)
        return dense.train(self.training)

    def _convolve(self, x: Tensor, spatial: Callable[[Tensor, Tensor, int], Tensor]) -> Tensor:
        """The convolution with bias, for a batch or a single sample."""
        if (run := self._recall("convolve", x)) is not None:
            return self._biased(run(x, spatial), True)
        n_spatial = len(self.kernel_size)
        check_tensor(type(self).__name__, x)
        if x.dim() not in (n_spatial + 1, n_spatial + 2) or x.shape[-n_spatial - 1] != self.in_channels:
            raise RuntimeError(
                f"the input has shape {tuple(x.shape)}; {type(self).__name__} needs (N, {self.in_channels}) and {n_spatial} more axes, "
                "or one sample of it"
            )
        if x.dim() == n_spatial + 1:
            return self._convolve(x[None], spatial)[0]
        return self._biased(self.factorized.convolve(x, spatial, self._positions(x)), self.factorized.is_kept())

    def _biased(self, y: Tensor, is_kept: bool) -> Tensor:
        if (bias := self.bias) is None:
            return y
        place = bias.to(y.dtype).view(-1, *[1] * len(self.kernel_size))
        return y.add_(place) if is_kept and type(bias) is nn.Parameter else y + place

    def _positions(self, x: Tensor) -> Positions:
        """The class of the numbers of places read and written."""
        stride = math.prod(self.stride)
        return nominal_positions(places(x.shape[2:]), tuple(self.kernel_size), self.is_transposed, stride, self._is_pointwise)

    def plan(self, batch: int = 16, positions: Sequence[int] = (32, 32)) -> ContractionPlan:
        """How the weight is contracted with a batch of inputs with so many positions, in eval; `print` it."""
        p = self._positions(torch.empty(0, 0, *positions, device="meta"))
        return self.factorized.plan_convolve(batch, True, p.n_in, p.n_out, p.kernel, p.is_transposed, p.stride)


_OPTIONS = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "output_padding", "dilation", "groups", "padding_mode")


class _Conv(ConvolutionLayer, abc.ABC):
    """A convolution: cross-correlation of x (N, in, *positions) with W (out, in / groups, *kernel)."""

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str | tuple[int, ...]
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
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
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
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, False, padding_mode, "meta", dtype
        )
        check_format(type(self).__name__, format)
        fold = format.fold(self.fold_of(options, self.modes_of(format), in_modes, out_modes))
        factorized = FactorizedWeight(format.network(fold), fold, device=device, dtype=dtype)
        self._build(options, factorized, nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        """(N, out, *positions) from (N, in, *positions), or one sample of it."""
        return self._convolve(input, self._spatial)

    def _spatial(self, x: Tensor, weight: Tensor, groups: int) -> Tensor:
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            # all that comes before is pointwise and without bias, so padding here equals padding the input
            x, padding = F.pad(x, self._reversed_padding, mode=self.padding_mode), 0
        return _CONVOLUTION[len(self.kernel_size)](x, weight, None, self.stride, padding, self.dilation, groups)


_CONVOLUTION: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class Conv1d(_Conv):
    """torch.nn.Conv1d with a factorised weight; the arguments are torch's, and `format`, `in_modes`, `out_modes` as in `Linear`."""

    dense_type = nn.Conv1d


class Conv2d(_Conv):
    """torch.nn.Conv2d with a factorised weight; the arguments are torch's, and `format`, `in_modes`, `out_modes` as in `Linear`."""

    dense_type = nn.Conv2d


class Conv3d(_Conv):
    """torch.nn.Conv3d with a factorised weight; the arguments are torch's, and `format`, `in_modes`, `out_modes` as in `Linear`."""

    dense_type = nn.Conv3d
