"""Factors that a rank method has without reading them in another way: the type alone says that they are taken."""

from torch import nn


class HeldFactors(nn.ParameterList):
    """A weight's parameters under their old names, while a method trains them as they are."""
