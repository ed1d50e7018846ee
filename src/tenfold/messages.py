"""What an error of somebody else's code says, as a part of our own messages."""

import re

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def one_line(error: BaseException, limit: int = 300) -> str:
    """The text of an error on one line, without a terminal's colours, cut at `limit` characters."""
    text = " ".join(_COLOUR.sub("", str(error)).split())
    return text if len(text) <= limit else text[:limit] + " ..."
