"""HotRows: the most frequent rows of a factorised table as rows of their own, the rest from the factors."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from tenfold.layers.embedding import Embedding, EmbeddingLayer, check_ids
from tenfold.layers.embedding_bag import Bags, EmbeddingBag, check_no_bags

WATCHED = 4  # ids that are counted for each row that is kept


class HotRows(nn.Module):
    """A factorised Embedding or EmbeddingBag with `n_rows` dense rows for its most frequent ids, which leave the factors' reach.

    During a warm-up call `observe(ids)` in each step, then `fill()` once, which copies the rows of the most frequent ids out of the
    factors; from then on these are trained by themselves. `fill(optimizer)` again replaces them: rows that fall out are lost, the others
    may stand at other places, and the optimiser's state with them. Forward changes nothing. The rows are parameters from the start, so
    that every count and every ratio has them: at 10% of all rows no ratio is above 10.

    Frequencies are counted for 4 x n_rows ids at most, the most frequent so far: memory does not depend on the vocabulary.

    Args:
        layer: it becomes a submodule; bags are sums or means.
        n_rows: c, the number of dense rows.

    Raises:
        TypeError: the layer is no factorised table.
        ValueError: n_rows is not between 1 and the number of rows, or the layer takes maxima.

    Source: Yin et al. 2021 (TT-Rec), arXiv 2101.11714. Deviations: no hash table that lookups write to, exact counts of watched ids.
    """

    def __init__(self, layer: EmbeddingLayer, n_rows: int) -> None:
        super().__init__()
        if not isinstance(layer, (Embedding, EmbeddingBag)):
            raise TypeError(
                f"HotRows got a {type(layer).__name__}; it needs a tenfold.nn.Embedding or EmbeddingBag: factorise the table first"
            )
        if not 0 < n_rows <= layer.num_embeddings:
            raise ValueError(
                f"HotRows got n_rows={n_rows} for a table of {layer.num_embeddings} rows; it needs 1 to all of them: give about 1%"
            )
        if isinstance(layer, EmbeddingBag) and layer.mode == "max":
            raise ValueError("HotRows got an EmbeddingBag of mode 'max'; it adds rows of two kinds: use 'sum' or 'mean'")
        self.layer, like = layer, layer.factorized.factors[0]
        self.rows = nn.Parameter(torch.zeros(n_rows, layer.embedding_dim, device=like.device, dtype=like.dtype))
        nobody = torch.full((n_rows,), layer.num_embeddings, device=like.device)  # an id that never comes, and sorts last
        self.register_buffer("ids", nobody)
        self.register_buffer("watched", nobody.repeat(WATCHED))
        self.register_buffer("counts", torch.zeros_like(nobody).repeat(WATCHED))
        self.ids: Tensor
        self.watched: Tensor
        self.counts: Tensor

    @torch.no_grad()
    def observe(self, ids: Tensor) -> None:
        """Counts the ids (*) of a batch; of more than are watched, the most frequent ones stay, of equal ones those with smaller ids.

        Raises:
            IndexError: an id is none of the rows; nothing of the batch is counted then.
        """
        ids = ids.reshape(-1).to(torch.int64)
        if self.layer.padding_idx is not None:
            ids = ids[ids != self.layer.padding_idx]
        batch, counts = torch.unique(ids, return_counts=True)
        if len(batch) and (batch[0] < 0 or batch[-1] >= self.layer.num_embeddings):
            raise IndexError(
                f"HotRows.observe got the id {int(batch[0] if batch[0] < 0 else batch[-1])}, but the table has {self.layer.num_embeddings} "
                f"rows; ids must be 0 to {self.layer.num_embeddings - 1}: check the vocabulary"
            )
        known = self.counts > 0
        every, place = torch.unique(torch.cat([self.watched[known], batch]), return_inverse=True)
        total = torch.zeros_like(every).index_add_(0, place, torch.cat([self.counts[known], counts]))
        best = torch.sort(total, descending=True, stable=True).indices[: len(self.watched)]
        self.counts.zero_()
        self.watched.fill_(self.layer.num_embeddings)
        self.counts[: len(best)], self.watched[: len(best)] = total[best], every[best]

    @torch.no_grad()
    def fill(self, optimizer: Optimizer | None = None) -> int:
        """The number of rows that are dense now: those of the most frequent ids, with the values that the table has there.

        Args:
            optimizer: that of the rows, where they have been trained already: its state goes with the rows that stay, and is zero for
                those that are new.

        Raises:
            ValueError: the optimiser does not have the rows.
        """
        found = self.watched[: len(self.ids)][self.counts[: len(self.ids)] > 0].sort().values
        if optimizer is not None:
            self._move_state(optimizer, found)
        values = self._current(found)
        self.rows.zero_()
        self.rows[: len(found)] = values
        self.ids.fill_(self.layer.num_embeddings)
        self.ids[: len(found)] = found
        return len(found)

    def _move_state(self, optimizer: Optimizer, ids: Tensor) -> None:
        """Gives each row that `ids` are about to have the state that the row of its id has now."""
        if not any(one is self.rows for group in optimizer.param_groups for one in group["params"]):
            raise ValueError(
                f"HotRows.fill got a {type(optimizer).__name__} that does not train the dense rows; it needs the one that does, to move "
                "its state with them: give that one, or none before they are trained"
            )
        places, stays = self._places(ids)
        for one in optimizer.state.get(self.rows, {}).values():
            if isinstance(one, Tensor) and one.dim() and len(one) == len(self.rows):
                moved = torch.zeros_like(one)
                moved[: len(ids)][stays] = one[places[stays]]
                one.copy_(moved)

    def _current(self, ids: Tensor) -> Tensor:
        places, is_hot = self._places(ids)
        return torch.where(is_hot[:, None], self.rows[places], self.layer.factorized.rows(ids))

    def _places(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """For each id the place in the dense rows where it would stand, and whether it does."""
        places = torch.searchsorted(self.ids, ids.to(torch.int64)).clamp_max(len(self.ids) - 1)
        return places, self.ids[places] == ids

    def hit_rate(self, ids: Tensor) -> float:
        """The part of the ids (*) that have a dense row, 0..1."""
        return float(self._places(ids.reshape(-1))[1].double().mean())

    @property
    def ratio(self) -> float:
        """Values of the dense table for each stored one; dense rows are stored."""
        stored = sum(p.numel() for p in self.parameters())
        return self.layer.num_embeddings * self.layer.embedding_dim / stored

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """(*, embedding_dim) from ids (*), or (bags, embedding_dim): what the layer computes, with dense rows for the ids that have one."""
        if isinstance(self.layer, EmbeddingBag):
            return self._bags(self.layer, input, offsets, per_sample_weights)
        check_no_bags("HotRows", offsets, per_sample_weights)
        check_ids(input, self.layer.num_embeddings, IndexError)
        flat = input.reshape(-1)
        places, is_hot = self._places(flat)
        hot, cold = is_hot.nonzero()[:, 0], (~is_hot).nonzero()[:, 0]
        out = self.rows.new_zeros(len(flat), self.layer.embedding_dim)
        out = out.index_copy(0, cold, self.layer.factorized.rows(flat[cold])).index_copy(0, hot, F.embedding(places[hot], self.rows))
        out = out.reshape(*input.shape, -1) if input.numel() else out.reshape(*input.shape, self.layer.embedding_dim)
        return out if self.layer.padding_idx is None else out.masked_fill((input == self.layer.padding_idx)[..., None], 0.0)

    def _bags(self, layer: EmbeddingBag, input: Tensor, offsets: Tensor | None, weights: Tensor | None) -> Tensor:
        check_ids(input, layer.num_embeddings, RuntimeError)
        layer.check_bags(input, offsets, weights)
        bags = Bags.of(input, offsets, weights, padding_idx=layer.padding_idx, include_last_offset=layer.include_last_offset)
        places, is_hot = self._places(bags.ids)
        cold, hot = bags.where(~is_hot), bags.where(is_hot)
        if weights is not None and weights.requires_grad:
            sums = cold.added(layer.factorized.rows(cold.ids))
        else:
            sums = layer.factorized.bags(cold.ids, cold.numbers, cold.n_bags, cold.weights)
        return bags.reduced(hot.added(F.embedding(places[is_hot], self.rows), sums), layer.mode)

    def extra_repr(self) -> str:
        """The dense rows and the ratio with them."""
        n_filled = int((self.ids < self.layer.num_embeddings).sum())
        share = math.ceil(1000 * len(self.ids) / self.layer.num_embeddings) / 10
        return f"dense rows={n_filled} of {len(self.ids)} ({share}% of all), ratio with them={self.ratio:.4g}"
