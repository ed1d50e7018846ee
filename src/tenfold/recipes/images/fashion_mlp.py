"""fashion-mlp: a 784-512-10 network on articles of clothing, its ranks found by training.

Source: Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747); the network is that of `mnist-mlp`.
Protocol: "test" trains on all 60,000 training images and tests on the test images of the file; "validation" (for choices) keeps 5,000
training images for testing. All networks alike: AdamW, a warm-up and a cosine, the same steps, batches and dropout. Both layers are
factorised; ranks are found from scratch, without a dense teacher. Controls: the dense network, the ranks that were found trained from
scratch, and the null model, which sees no data.
Command: tenfold train fashion-mlp --data fashion_mnist/fashion_mnist.npz --out fashion
Expected (measured, three seeds, 5,000 test images): CP at 126 to 130 times fewer weights 88.27 +- 0.13 %, dense 90.12 +- 0.22 %. See
docs/automatic_ranks.md.
"""

from tenfold.recipes.automatic_ranks import Training
from tenfold.recipes.images.mlp import CHOICES, ImageMlp
from tenfold.recipes.options import Options
from tenfold.recipes.shown import Table

DATA = ("fashion_mnist/fashion_mnist.npz", "fashion_mnist.npz")
TAKES = CHOICES
TRAINING = Training(epochs=40, batch_size=256, lr=2e-2, dense_lr=4e-3, temperature=4.0)
DROPOUT = 0.1


def run(options: Options) -> Table:
    """The images with the dense network and the factorised ones."""
    return ImageMlp("fashion-mlp", DATA, TRAINING, DROPOUT).run(options)
