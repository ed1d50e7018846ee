"""The recurrence over time, for any step: padded sequences or packed ones, forwards or backwards."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

State: TypeAlias = tuple[Tensor, ...]
"""(batch, features) tensors; the first one is the output of the step that left it."""

Step: TypeAlias = Callable[[Tensor, State], State]
"""(what the input gives to the gates (batch, gates x hidden), state before) -> state after."""


def scan_padded(step: Step, gates: Tensor, state: State, *, is_reverse: bool) -> tuple[Tensor, State]:
    """Outputs (steps, batch, features) and the last state, from (steps, batch, gates x hidden)."""
    outputs = []
    steps = gates.unbind(0)
    for now in reversed(steps) if is_reverse else steps:
        state = step(now, state)
        outputs.append(state[0])
    return torch.stack(outputs[::-1] if is_reverse else outputs), state


def scan_packed(step: Step, gates: Tensor, sizes: Sequence[int], state: State, *, is_reverse: bool) -> tuple[Tensor, State]:
    """Outputs (all steps of all sequences, features) and the last state of each sequence, from packed (.., gates x hidden).

    `sizes` is the number of sequences that are still there at each step; the longest stand first.
    """
    parts = gates.split(list(sizes))
    return _backwards(step, parts, sizes, state) if is_reverse else _forwards(step, parts, sizes, state)


def _forwards(step: Step, parts: Sequence[Tensor], sizes: Sequence[int], state: State) -> tuple[Tensor, State]:
    outputs = []
    ended: list[State] = []  # the shortest sequences end first
    for now, size in zip(parts, sizes, strict=True):
        if size < state[0].shape[0]:
            ended.append(tuple(part[size:] for part in state))
            state = tuple(part[:size] for part in state)
        state = step(now, state)
        outputs.append(state[0])
    ended.append(state)
    return torch.cat(outputs), tuple(torch.cat(parts[::-1]) for parts in zip(*ended, strict=True))


def _backwards(step: Step, parts: Sequence[Tensor], sizes: Sequence[int], start: State) -> tuple[Tensor, State]:
    outputs = []
    state = tuple(part[: sizes[-1]] for part in start)
    for now, size in zip(reversed(parts), reversed(sizes), strict=True):
        if size > state[0].shape[0]:  # shorter sequences begin here
            state = tuple(torch.cat([part, first[part.shape[0] : size]]) for part, first in zip(state, start, strict=True))
        state = step(now, state)
        outputs.append(state[0])
    return torch.cat(outputs[::-1]), state
