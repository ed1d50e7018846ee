"""Settings of all tests: hypothesis draws the same few examples every time ("ci"), or many new ones with HYPOTHESIS_PROFILE=deep."""

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

_QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
settings.register_profile("ci", max_examples=6, derandomize=True, database=None, deadline=None, suppress_health_check=_QUIET)
settings.register_profile(
    "deep", max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "300")), deadline=None, suppress_health_check=_QUIET, print_blob=True
)
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # there is one worker for each core
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def _same_random_numbers() -> Iterator[None]:
    """Every test starts from the same random state, whatever ran before it."""
    torch.manual_seed(0)
    yield
