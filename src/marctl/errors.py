"""The one error that an operator sees as a sentence, without a traceback."""


class UserError(Exception):
    """Something that the operator can put right: what came, what was wrong with it, and what to do.

    `cli.py` prints it and exits with 1. A subclass exists only where somebody catches it by its type.
    """
