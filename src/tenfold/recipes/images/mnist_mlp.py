"""mnist-mlp: a 784-512-10 network on handwritten digits, its ranks found by training.

Source: MNIST (LeCun et al. 1998); the network of Hawkins and Zhang 2020, arXiv 2010.08689, whose accuracies on it are not known to us.
Protocol: "test" trains on all 60,000 training images and tests on the test images of the file; "validation" (for choices) keeps 5,000
training images for testing. All networks alike: Adam, a warm-up and a cosine, the same steps, batches and dropout. Both layers are
factorised; ranks are found from scratch, without a dense teacher. Controls: the dense network, the ranks that were found trained from
scratch, and the null model, which sees no data.
Command: tenfold train mnist-mlp --data mnist/mnist.npz --out mnist
Expected: measured with one or two seeds each (5,000 test images): dense 98.4 to 98.5 %, TTM 97.7 and 98.2 % at 114x and 122x fewer
weights, CP 97.9 and 98.0 % at 100x and 103x; three seeds are not confirmed. See docs/automatic_ranks.md.
"""

from tenfold.recipes.automatic_ranks import Training
from tenfold.recipes.images.mlp import CHOICES, ImageMlp
from tenfold.recipes.options import Options
from tenfold.recipes.shown import Table

DATA = ("mnist/mnist.npz", "mnist.npz")
TAKES = CHOICES
TRAINING = Training(epochs=20, batch_size=256, lr=4e-2, dense_lr=4e-3, temperature=3.5)
DROPOUT = 0.0


def run(options: Options) -> Table:
    """The images with the dense network and the factorised ones."""
    return ImageMlp("mnist-mlp", DATA, TRAINING, DROPOUT).run(options)
