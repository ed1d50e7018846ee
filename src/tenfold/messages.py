"""What an error of somebody else's code says, as a part of our own messages."""


def one_line(error: BaseException, limit: int = 300) -> str:
    """The text of an error on one line, cut at `limit` characters."""
    text = " ".join(str(error).split())
    return text if len(text) <= limit else text[:limit] + " ..."
