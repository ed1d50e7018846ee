"""mnist-mlp: a 784-512-10 network on handwritten digits, its ranks found by training.

Source: MNIST (LeCun et al. 1998); the network of Hawkins and Zhang 2020, arXiv 2010.08689, whose accuracies on it are not known to us.
Protocol: "test" trains on all 60,000 training images and tests on the test images of the file; "validation" (for choices) keeps 5,000
training images for testing. All networks alike: AdamW, a warm-up and a cosine, the same steps, batches and dropout. Both layers are
factorised; ranks are found from scratch, without a dense teacher. Controls: the dense network, the ranks that were found trained from
scratch, and the null model, which sees no data.
Command: tenfold train mnist-mlp --data mnist/mnist.npz --out mnist
Expected (measured, three seeds, 5,000 test images): KCP at 119 times fewer weights 98.47 +- 0.01 %, CP at 104 to 111 times fewer
98.08 +- 0.16 %, dense 98.56 +- 0.05 %. Other formats on fewer seeds, see docs/automatic_ranks.md.
"""

from tenfold.recipes.automatic_ranks import Training
from tenfold.recipes.images.mlp import CHOICES, ImageMlp, Start
from tenfold.recipes.options import Options
from tenfold.recipes.shown import Table

DATA = ("mnist/mnist.npz", "mnist.npz")
TAKES = CHOICES
TRAINING = Training(epochs=40, batch_size=256, lr=2e-2, dense_lr=4e-3, temperature=4.0)
DROPOUT = 0.15
FORMATS = {  # modes of image rows and columns where the format splits so
    "kcp": Start("kcp:rank=3,in=28x28,out=16x32", "kcp:rank=8,in=16x32,out=5x2", heat=1.8),
    "cp": Start("cp:rank=50,in=28x28,out=16x32", "cp:rank=16,in=16x32,out=10", heat=0.55),
    "ttm": Start("ttm:rank=10,in=4x7x4x7,out=4x4x8x4", "ttm:rank=6,in=16x32,out=5x2", 4e-2, 0.75),
    "tucker": Start("tucker:rank=9x9x8x8,in=28x28,out=16x32", "tucker:rank=8x8x8,in=16x32,out=10", heat=0.5),
    "tr": Start("tr:rank=6,in=28x28,out=16x32", "tr:rank=5,in=16x32,out=10", heat=0.5),
    "tt": Start("tt:rank=10x14x10,in=28x28,out=16x32", "tt:rank=10x10,in=16x32,out=10", heat=0.5),
}


def run(options: Options) -> Table:
    """The images with the dense network and the factorised ones."""
    return ImageMlp("mnist-mlp", DATA, TRAINING, DROPOUT, FORMATS).run(options)
