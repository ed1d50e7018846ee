"""Clicks: DLRM on click data, the ranks of its largest embedding tables found by training, and always the controls beside it.

Recipes are dlrm (Criteo's format) and dlrm_avazu (Avazu's). They are made of

    model.py       DLRM, each table dense, factorised, hashed or left out; sizes.py how much it stores
    experiment.py  the model and its controls, all seeds
    training.py    one pass over a stream of batches, ranks found on the way; a killed pass goes on
    metrics.py     AUC, log loss and accuracy
"""
