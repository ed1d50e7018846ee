"""fashion-mlp: a 784-512-10 network on articles of clothing, its ranks found by training.

Source: Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747); the network is that of `mnist-mlp` with a BatchNorm, and absolute values
(Jarrett et al. 2009, doi:10.1109/ICCV.2009.5459469) in place of the ReLU: a layer of few directions loses half of what each tells by that.
Protocol: "test" trains on all 60,000 training images and tests on the test images of the file; "validation" (for choices) keeps 5,000
training images for testing. All networks alike: AdamW, a warm-up and a cosine, the same steps, batches and dropout. The first layer
(401,408 weights of 407,050 values) is factorised and made at least 100 times smaller; the second one stays dense. Ranks are found from
scratch, without a dense teacher. Controls: the dense network, the ranks that were found trained from scratch, and the null model, which
sees no data.
Command: tenfold train fashion-mlp --data fashion_mnist/fashion_mnist.npz --format kcp --out fashion
Expected (measured, three seeds, 5,000 test images): KCP at 103.9 times fewer weights 90.03 +- 0.13 %, dense 90.34 +- 0.11 % (with ReLU
90.50 +- 0.13 %); other formats start where they did best with both layers factorised. See docs/automatic_ranks.md.
"""

import torch

from tenfold.recipes.automatic_ranks import Training
from tenfold.recipes.images.mlp import CHOICES, ImageMlp, Start
from tenfold.recipes.options import DENSE, Options
from tenfold.recipes.shown import Table

DATA = ("fashion_mnist/fashion_mnist.npz", "fashion_mnist.npz")
TAKES = CHOICES
TRAINING = Training(epochs=40, batch_size=256, lr=2e-2, dense_lr=4e-3, temperature=4.0, least_ratio=100.0, tuning_lr=1.0)
DROPOUT = 0.1
FORMATS = {  # modes of image rows and columns where the format splits so
    "kcp": Start("kcp:rank=4,in=28x28,out=22x24", DENSE, heat=0.35),
    "cp": Start("cp:rank=50,in=28x28,out=16x32", DENSE, heat=0.55),
    "ttm": Start("ttm:rank=10,in=4x7x4x7,out=4x4x8x4", DENSE, 4e-2, 0.75),
    "tucker": Start("tucker:rank=9x9x8x8,in=28x28,out=16x32", DENSE, heat=0.5),
    "tr": Start("tr:rank=6,in=28x28,out=16x32", DENSE, heat=0.5),
    "tt": Start("tt:rank=10x14x10,in=28x28,out=16x32", DENSE, heat=0.5),
}


def run(options: Options) -> Table:
    """The images with the dense network and the factorised ones."""
    return ImageMlp("fashion-mlp", DATA, TRAINING, DROPOUT, FORMATS, has_norm=True, activation=torch.abs).run(options)
