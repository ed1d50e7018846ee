"""Published rows: accuracy lost against FLOP saved on ImageNet, each with what is known of its source."""

from tenfold.recipes.reproduction import Table

UNCONFIRMED = "unconfirmed"  # remembered from the paper; no text that we could read confirms it
COLUMNS = ("network", "method", "FLOP, times fewer", "top-1, points", "top-5, points", "status")
ROWS = (
    ("VGG-16", "asymmetric (Zhang et al.)", "~5.00", "", "-1.00", UNCONFIRMED),
    ("VGG-16", "Tucker-2 with VBMF ranks (Kim et al.)", "4.93", "", "-0.50", "confirmed by a table of Appl. Sci. 2024, 14(4), 1491"),
    ("VGG-16", "CPD-EPC and TKD-CPD, EPS 0.005", "5.26", "-0.92", "-0.34", UNCONFIRMED),
    ("ResNet-18", "channel gating", "1.61", "-1.62", "-1.03", UNCONFIRMED),
    ("ResNet-18", "discrimination-aware channel pruning", "1.89", "-2.29", "-1.38", UNCONFIRMED),
    ("ResNet-18", "FBS", "1.98", "-2.54", "-1.46", UNCONFIRMED),
    ("ResNet-18", "MUSCO", "2.42", "-0.47", "-0.30", UNCONFIRMED),
    ("ResNet-18", "CPD-EPC and TKD-CPD, EPS 0.00325", "3.09", "-0.69", "-0.15", UNCONFIRMED),
    ("ResNet-50", "CPD-EPC and TKD-CPD, EPS 0.0028", "2.64", "-1.47", "-0.71", UNCONFIRMED),
)
NOTE = (
    "The paper's comparison on ImageNet (arXiv 2008.05441): changes relative to the dense networks of torchvision. unconfirmed: "
    "remembered; no text that we could read confirms it. Networks and images are others than ours, so no row can be compared with ours "
    "point by point."
)


def table() -> Table:
    """The published rows as a table."""
    return Table("Published, on ImageNet", COLUMNS, ROWS, (NOTE,), words=("method", "status"))
