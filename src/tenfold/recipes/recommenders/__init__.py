"""Recommenders: films and apps, by factorisation machines and NCF's MLP with small tables.

Recipes are ml100k and frappe (a factorisation machine, the ranks of its table found by training) and ml1m (the tables of a trained NCF-MLP
made smaller without training). They are made of

    models.py       factorisation machines and NCF's MLP, with tables that are dense, factorised, hashed, narrow or left out
    experiment.py   a factorisation machine and its controls, all seeds
    training.py     training of factorisation machines on feature rows, and of their ranks
    tower_fit.py    smaller tables for a trained NCF-MLP, closest in their scores
    ranking_fit.py  the same, closest in the order of each user's items; ranking_step.py its Gauss-Newton step
    sparse_fit.py   the same with rows of few values, each row's at places of its own; sparse_rows.py an embedding that stores them
    ranking.py      HR@k and NDCG@k of a ranking test, RMSE and AUC of ratings
"""
