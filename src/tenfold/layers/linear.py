"""Linear: torch.nn.Linear with a factorised weight."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from tenfold.fold import Fold, make_fold
from tenfold.format import Format
from tenfold.layers.base import FactorizedLayer, Workload, check_format, check_tensor, uniform_std
from tenfold.weight import FactorizedWeight


class Linear(FactorizedLayer):
    """y = x W' + b with x (*, in_features), W (out_features, in_features), y (*, out_features); no dense W is ever stored.

    Args:
        format: a format with a rank, e.g. `tenfold.TTM(rank=4)`.
        in_modes, out_modes: sizes that the features are split into; their products may exceed the features (padding).

    Raises:
        ValueError: the rank or the modes do not fit.
    """

    dense_type = nn.Linear

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        format: Format,
        in_modes: Sequence[int] | None = None,
        out_modes: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_format("Linear", format)
        fold = format.fold(
            make_fold([("o", out_features), ("i", in_features)], self.modes_of(format), in_modes=in_modes, out_modes=out_modes)
        )
        self.factorized = FactorizedWeight(format.network(fold), fold, device=device, dtype=dtype)
        self.in_features, self.out_features = in_features, out_features
        self.register_parameter("bias", nn.Parameter(torch.empty(out_features, device=device, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start values with the standard deviation of torch.nn.Linear's."""
        self.factorized.init_normal_(uniform_std(self.in_features))
        if self.bias is not None:
            nn.init.uniform_(self.bias, -1 / math.sqrt(self.in_features), 1 / math.sqrt(self.in_features))

    def forward(self, input: Tensor) -> Tensor:
        """(*, out_features) from (*, in_features)."""
        if (run := self._recall("apply", input)) is None:
            check_tensor("Linear", input)
            run = self.factorized.apply
        output, bias = run(input), self.bias
        return output if bias is None else output + bias.to(output.dtype)

    @classmethod
    def fold_of(cls, dense: nn.Module, n_modes: int, in_modes: Sequence[int] | None = None, out_modes: Sequence[int] | None = None) -> Fold:
        layer: Any = dense
        return make_fold([("o", layer.out_features), ("i", layer.in_features)], n_modes, in_modes=in_modes, out_modes=out_modes)

    @classmethod
    def around(cls, dense: nn.Module, factorized: FactorizedWeight) -> Self:
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        layer.factorized = factorized
        layer.out_features, layer.in_features = factorized.fold.shape
        layer.register_parameter("bias", layer._bias_like(dense))
        return layer

    @classmethod
    def workload(cls, dense: nn.Module, inputs: Sequence[int], outputs: Sequence[int]) -> Workload:
        layer: Any = dense
        n_rows = math.prod(inputs[1:-1])
        return Workload(n_rows, 2 * n_rows * layer.in_features * layer.out_features)

    def to_dense(self) -> nn.Linear:
        like = self.factorized.factors[0]
        dense = nn.Linear(self.in_features, self.out_features, self.bias is not None, like.device, like.dtype)
        with torch.no_grad():
            dense.weight.copy_(self.weight)
            if self.bias is not None:
                dense.bias.copy_(self.bias)
        return dense.train(self.training)
