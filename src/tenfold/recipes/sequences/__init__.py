"""Sequences: videos, spoken digits, time series and text, read by recurrent networks whose maps are dense or factorised.

Recipes are charlm_lstm, clips_lstm, series_lstm, speech_gru, speech_lstm, ucf11_lstm, ucf50_lstm and ytc_lstm. They are made of

    experiment.py  all formats, seeds and folds of a recipe; finished runs are kept and not repeated
    training.py    one run: start values, `tenfold.finetune`, test
    models.py      recurrent networks with a head, dense and factorised
    results.py     runs -> mean and spread, as data, JSON and tables
    speech.py, video.py  what the recipes on spoken digits share, and those on folders of videos
"""
