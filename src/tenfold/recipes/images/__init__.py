"""Images: networks that classify them, dense, with ranks found by training, with fixed ones, and trained without data.

Recipes are mnist_mlp, fashion_mlp and cifar_resnet. They are made of

    task.py        images in batches
    mlp.py         784-512-10, which both perceptrons train
    rank_runs.py   a network's training with automatic ranks, and its controls; rank_table.py all of them as a table
    calibration.py how far confidence is from accuracy
"""
