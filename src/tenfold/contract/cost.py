"""What a step costs on a machine: max(arithmetic, memory) + launches, with a rate that depends on the shape of the product."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """A machine model. The defaults are of the order of two server cores; `Machine.of("cuda")` is of the order of a server GPU.

    peak_flops in FLOP/s, bandwidth in bytes/s, launch in seconds for each operation. `half_size` is the smallest side of a matrix
    product at which half of the peak is reached: measured products with a side of 4 run at about a tenth of the peak.
    """

    peak_flops: float = 150e9
    bandwidth: float = 25e9
    launch: float = 5e-6
    half_size: float = 20.0

    @classmethod
    def of(cls, device_type: str) -> "Machine":
        """The default model for a torch device type."""
        return cls(60e12, 2e12, 8e-6, 64.0) if device_type == "cuda" else cls()

    def product(self, batch: float, m: float, k: float, n: float) -> float:
        """Seconds of arithmetic for `batch` products (m, k) @ (k, n)."""
        side = min(k, n, max(m, 4.0))
        return 2 * batch * m * k * n * (side + self.half_size) / (side * self.peak_flops)

    def depthwise(self, flops: float) -> float:
        """Seconds of arithmetic for a convolution with one channel in each group."""
        return flops / (0.3 * self.peak_flops)

    def step(self, arithmetic: float, values_moved: float, n_ops: int = 1, value_bytes: int = 4) -> float:
        """Seconds for a step: its arithmetic overlaps with its memory traffic, launches do not."""
        return max(arithmetic, values_moved * value_bytes / self.bandwidth) + n_ops * self.launch
