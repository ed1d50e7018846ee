"""Sizes of a DLRM, three ways: the factorised tables alone, the whole model, and the bytes that its training holds."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from tenfold.recipes.clicks.model import DLRM, TableSpec
from tenfold.weight import FactorizedWeight

ADAM_BYTES = 12  # of a float32 value and its two running means


@dataclass(frozen=True)
class DlrmSizes:
    """table_*: the chosen tables; model_*: all values; *_dense: of the dense model, without the padding of modes.

    training_bytes: values and the optimiser's state, as measured; of the dense model 12 bytes for each value (Adam). Gradients and
    activations are counted in neither.
    """

    table_values: int
    table_dense: int
    model_values: int
    model_dense: int
    training_bytes: int

    @property
    def ratios(self) -> tuple[float, float, float]:
        """How many times fewer than dense: of the chosen tables (0: none is left), of the model, of the bytes in training."""
        tables = self.table_dense / self.table_values if self.table_values else 0.0
        return tables, self.model_dense / self.model_values, ADAM_BYTES * self.model_dense / max(1, self.training_bytes)


def dlrm_sizes(model: DLRM, dense: Sequence[TableSpec], chosen: Sequence[int], training_bytes: int = 0) -> DlrmSizes:
    """The sizes of a model.

    Args:
        dense: the tables that the model stands for.
        chosen: the tables that are factorised, hashed or left out.
    """
    stored = {number: values_of(model.tables[str(number)]) if number in model.kept else 0 for number in chosen}
    model_values = values_of(model)
    n_table = sum(stored.values())
    n_dense = sum(dense[number].rows * model.dim for number in chosen)
    return DlrmSizes(n_table, n_dense, model_values, model_values - n_table + n_dense, training_bytes)


def values_of(module: nn.Module) -> int:
    """Stored values; none for a factorised weight that was removed."""
    removed = [one for one in module.modules() if isinstance(one, FactorizedWeight) and is_removed(one)]
    return sum(one.numel() for one in module.parameters()) - sum(one.network.numel for one in removed)


def is_removed(weight: FactorizedWeight) -> bool:
    """Whether a factor is all zeros: what a decision leaves of a weight that it removes."""
    return any(not bool(one.any()) for one in weight.parameters())
