"""What a step costs on a machine: max(arithmetic, memory) + launches, with a rate that depends on the shape of the product."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """A machine model. The defaults were fitted to one server core with AVX-512; `Machine.of("cuda")` is of the order of a server GPU.

    What counts is the ratio of two predictions: where all rates are twice as high, as on two cores, the same plans are chosen.

    peak_flops in FLOP/s, bandwidths in bytes/s, launch in seconds for each operation, matrix in seconds for each small product of
    a batch. Columns of a product are computed `lanes` at a time; at a depth of `depth` half of the peak is reached, and a matrix
    that few rows are multiplied with costs as if there were `rows` more, because it is packed first. In a batch, products of
    fewer than `tiny` multiply-adds run in plain loops, at `tiny_flops`. A copy into another order costs `run` seconds for each run
    of values that stay together, or `value` for each value where none do.
    """

    peak_flops: float = 180e9
    bandwidth: float = 22e9
    cache_bandwidth: float = 45e9
    cache_bytes: float = 1e6
    launch: float = 4e-6
    matrix: float = 6e-8
    lanes: float = 16.0
    depth: float = 5.0
    rows: float = 16.0
    tiny: float = 400.0
    tiny_flops: float = 2e9
    run: float = 3e-9
    value: float = 1e-9

    @classmethod
    def of(cls, device_type: str) -> "Machine":
        """The default model for a torch device type."""
        return _CUDA if device_type == "cuda" else _CPU

    def __hash__(self) -> int:
        return hash((self.peak_flops, self.bandwidth, self.launch))  # a key of every call: equal machines have equal hashes

    def product(self, batch: float, m: float, k: float, n: float) -> float:
        """Seconds of arithmetic for `batch` products (m, k) @ (k, n)."""
        if batch > 1:
            if m * k * n < self.tiny:
                return 2 * batch * m * k * n / self.tiny_flops
            return batch * (self._dense(m, k, math.ceil(n / self.lanes) * self.lanes) + self.matrix)
        return self._dense(m, k, math.ceil(n / self.lanes) * self.lanes) * (1 + min(self.rows / m, self.rows / 2))

    def front(self, m: float, k: float, n: float) -> float:
        """Seconds of arithmetic for the transpose of a product: its few columns become rows, which need not fill lanes."""
        return 1.35 * self._dense(m, k, n) * (1 + min(self.rows / m, self.rows / 2))

    def _dense(self, m: float, k: float, columns: float) -> float:
        return 2 * m * k * (columns + self.lanes / 3) * (1 + self.depth / k) / self.peak_flops

    def depthwise(self, flops: float) -> float:
        """Seconds of arithmetic for a convolution with one channel in each group."""
        return flops / (0.3 * self.peak_flops)

    def step(self, arithmetic: float, values_moved: float, n_ops: int = 1, value_bytes: int = 4) -> float:
        """Seconds for a step: its arithmetic overlaps with its memory traffic, launches do not."""
        return max(arithmetic, self.traffic(values_moved * value_bytes)) + n_ops * self.launch

    def copy(self, values: float, run: float, value_bytes: int = 4) -> float:
        """Seconds to copy values into another order, in which `run` of them stay together."""
        return self.traffic(2 * values * value_bytes) + values * (self.run / run if run > 1 else self.value) + self.launch

    def traffic(self, size_bytes: float) -> float:
        """Seconds to read or write so much: what is beyond the cache goes to memory."""
        cached = min(size_bytes, self.cache_bytes)
        return cached / self.cache_bandwidth + (size_bytes - cached) / self.bandwidth


_CPU = Machine()
_CUDA = Machine(60e12, 2e12, 4e12, 40e6, 8e-6, matrix=1e-9, lanes=64.0, depth=64.0, rows=64.0, tiny=0.0, run=0.0, value=0.0)
