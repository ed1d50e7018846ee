"""Pillow, which is optional: imported where images of a file format are read."""

import importlib
from typing import Any


def image_module(given: str) -> Any:
    """PIL.Image.

    Args:
        given: what needs it, for the message: "the data FOLDER is an image folder".

    Raises:
        ImportError: Pillow is not installed.
    """
    try:
        return importlib.import_module("PIL.Image")
    except ImportError as error:
        raise ImportError(f"{given}; that needs Pillow, which is not installed: run pip install pillow") from error
