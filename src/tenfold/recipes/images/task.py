"""Image task: images in batches for networks that classify them."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenfold.data.images import Images
from tenfold.recipes.images.calibration import Calibration, calibration
from tenfold.running import eval_mode

N_EVAL = 1000  # images at a time


@dataclass(frozen=True)
class ImageTask:
    """Standardised images, flattened or not, and cross-entropy.

    mean, std: (channels,), of the pixels 0..255.
    is_augmented: batches are shifted by up to four pixels and half of their images mirrored.
    """

    images: Images
    mean: Tensor
    std: Tensor
    batch_size: int
    is_flat: bool
    is_augmented: bool = False

    @property
    def n_examples(self) -> int:
        """The number of images."""
        return len(self.images)

    @property
    def n_steps(self) -> int:
        """Full batches in an epoch; at least one."""
        return max(1, len(self.images) // self.batch_size)

    def batches(self, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch, in an order that follows from seed and epoch."""
        generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
        order = torch.randperm(len(self.images), generator=generator)
        for number in range(self.n_steps):
            rows = order[number * self.batch_size : (number + 1) * self.batch_size]
            pixels = self.images.pixels[rows]
            if self.is_augmented:
                pixels = shifted(pixels, generator)
            yield self.inputs(pixels), self.images.labels[rows]

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy."""
        return F.cross_entropy(output, target)

    def inputs(self, pixels: Tensor) -> Tensor:
        """Standardised inputs from uint8 pixels."""
        scaled = (pixels.float() - self.mean[:, None, None]) / self.std[:, None, None]
        return scaled.flatten(1) if self.is_flat else scaled

    def probabilities(self, model: nn.Module, images: Images) -> Tensor:
        """(n, classes) of other images, in eval."""
        with eval_mode(model), torch.no_grad():
            return torch.cat([model(self.inputs(part)).softmax(1) for part in images.pixels.split(N_EVAL)])

    def test(self, model: nn.Module, images: Images) -> Calibration:
        """Accuracy and calibration on other images."""
        return calibration(self.probabilities(model, images), images.labels)

    def second_moment(self, n_images: int = 10_000) -> Tensor:
        """(in, in): the mean of x x' over the first images, for flat inputs."""
        x = self.inputs(self.images.pixels[:n_images]).flatten(1)
        return x.T @ x / len(x)


def shifted(pixels: Tensor, generator: torch.Generator, reach: int = 4) -> Tensor:
    """Images moved by up to `reach` pixels each way, zeros coming in, and mirrored with probability 1/2; one draw for each image."""
    n, _, height, width = pixels.shape
    moves = torch.randint(2 * reach + 1, (2, n), generator=generator)
    is_mirrored = torch.rand(n, generator=generator) < 0.5
    wide = F.pad(pixels, (reach,) * 4)
    rows = moves[0][:, None] + torch.arange(height)
    columns = moves[1][:, None] + torch.arange(width)
    columns = torch.where(is_mirrored[:, None], columns.flip(1), columns)
    batch = torch.arange(n)[:, None, None]
    return wide.movedim(1, -1)[batch, rows[:, :, None], columns[:, None, :]].movedim(-1, 1).contiguous()
