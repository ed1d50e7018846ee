"""Other code's errors inside our messages."""

from tenfold.messages import one_line


def test_an_error_is_one_line_without_colours():
    assert one_line(ValueError("\x1b[96mstep 3\x1b[0m\n  of it")) == "step 3 of it"
