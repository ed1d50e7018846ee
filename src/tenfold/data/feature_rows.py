"""Feature rows: data sets of recommendation: every row names one feature of each field, and has a target."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

PARTS = (0.8, 0.1, 0.1)


@dataclass(frozen=True)
class FieldGroup:
    """Neighbouring fields whose features are numbered on their own: columns first to last - 1, features from `start`, `size` of them."""

    name: str
    first: int
    last: int
    start: int
    size: int


@dataclass(frozen=True)
class FeatureRows:
    """Rows for factorisation machines and their kin.

    ids: (n, fields) int64, numbers of features; all fields share one numbering, from 0.
    targets: (n) float32.
    n_features: how many numbers there are, those that no row has included.
    fields: a name for each field.
    groups: which fields may share a table; together all columns and all features, in order.

    Raises:
        ValueError: the shapes do not fit together, or a feature has no number from 0 to n_features - 1.
    """

    ids: Tensor
    targets: Tensor
    n_features: int
    fields: tuple[str, ...]
    groups: tuple[FieldGroup, ...]

    def __post_init__(self) -> None:
        if self.ids.dim() != 2 or self.targets.shape != self.ids.shape[:1] or self.ids.shape[1] != len(self.fields):
            raise ValueError(
                f"ids of shape {tuple(self.ids.shape)} were given with targets of shape {tuple(self.targets.shape)} and "
                f"{len(self.fields)} fields; (rows, fields) and (rows) are needed: correct them"
            )
        if len(self.ids) and not 0 <= int(self.ids.min()) <= int(self.ids.max()) < self.n_features:
            raise ValueError(
                f"the features run from {int(self.ids.min())} to {int(self.ids.max())}, but there are {self.n_features}; numbers from 0 to "
                f"{self.n_features - 1} are needed: renumber them, or give the right count"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, positions: Tensor) -> "FeatureRows":
        """The rows at positions (n,)."""
        return FeatureRows(self.ids[positions], self.targets[positions], self.n_features, self.fields, self.groups)

    def split(self, parts: Sequence[float] = PARTS, *, seed: int = 0) -> tuple["FeatureRows", ...]:
        """The rows dealt out at random, the same on every machine: by default training, validation and test rows.

        Raises:
            ValueError: the parts do not sum to 1, or one of them is empty.
        """
        if not parts or min(parts) <= 0 or abs(sum(parts) - 1) > 1e-9:
            raise ValueError(f"the parts are {tuple(parts)}; ratios above 0 that sum to 1 are needed: give for instance {PARTS}")
        order = torch.from_numpy(np.random.RandomState(seed).permutation(len(self)))
        ends = [round(float(end) * len(self)) for end in np.cumsum(parts)]
        found = [order[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        if not all(len(one) for one in found):
            raise ValueError(f"{len(self)} rows cannot be split into {tuple(parts)}; each part needs at least one: give more rows")
        return tuple(self.take(one.sort().values) for one in found)

    def counts(self) -> Tensor:
        """(n_features) how often each feature occurs."""
        return torch.bincount(self.ids.flatten(), minlength=self.n_features)


def joined(*parts: FeatureRows) -> FeatureRows:
    """The rows of several parts of one data set, one part after another."""
    first = parts[0]
    ids, targets = torch.cat([one.ids for one in parts]), torch.cat([one.targets for one in parts])
    return FeatureRows(ids, targets, first.n_features, first.fields, first.groups)
