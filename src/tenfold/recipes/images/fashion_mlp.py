"""fashion-mlp: a 784-512-10 network on articles of clothing, its ranks found by training.

Source: Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747); the network is that of `mnist-mlp`.
Protocol: "test" trains on all 60,000 training images and tests on the test images of the file; "validation" (for choices) keeps 5,000
training images for testing. All networks alike: Adam, a warm-up and a cosine, the same steps, batches and dropout. Both layers are
factorised; ranks are found from scratch, without a dense teacher. Controls: the dense network, the ranks that were found trained from
scratch, and the null model, which sees no data.
Command: tenfold train fashion-mlp --data fashion_mnist/fashion_mnist.npz --out fashion
Expected: measured with one or two seeds each (5,000 test images): dense 89.7 %, CP 88.5 and 88.6 % at 91x and 97x fewer weights, TTM
87.3 % at 104x; three seeds are not confirmed. See docs/automatic_ranks.md.
"""

from tenfold.recipes.automatic_ranks import Training
from tenfold.recipes.images.mlp import CHOICES, ImageMlp
from tenfold.recipes.options import Options
from tenfold.recipes.shown import Table

DATA = ("fashion_mnist/fashion_mnist.npz", "fashion_mnist.npz")
TAKES = CHOICES
TRAINING = Training(epochs=20, batch_size=256, lr=4e-2, dense_lr=4e-3, temperature=2.0)
DROPOUT = 0.0


def run(options: Options) -> Table:
    """The images with the dense network and the factorised ones."""
    return ImageMlp("fashion-mlp", DATA, TRAINING, DROPOUT).run(options)
