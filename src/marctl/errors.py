"""The error that an operator sees as one sentence, without a traceback."""


class UserError(Exception):
    """Something that the operator can fix. The message says what came, what was wrong and what to do.

    `cli.py` prints it and exits with 1. There is a subclass only where some code catches it.
    """
