"""Why there is no prediction: each error says what came, and what to do."""

from __future__ import annotations


class ClientError(RuntimeError):
    """There is no prediction; the text says what came and what to do."""


class BadImage(ClientError):
    """A file that cannot be read here: nothing was sent."""


class BadSetting(ClientError):
    """An address or a token that no request can be sent with."""


class Unreachable(ClientError):
    """Nothing answered, however often it was asked."""


class TooSlow(ClientError):
    """The answer did not come in time. It is not asked for again: that would be more of the same work."""


class NoPrediction(ClientError):
    """What came is no answer of this project's server."""


class Answered(ClientError):
    """The server said no: by which status, in which words, and what it wants instead, if it said so."""

    def __init__(self, sentence: str, status: int, message: str, hint: str) -> None:
        super().__init__(sentence)
        self.status, self.message, self.hint = status, message, hint


class Refused(Answered):
    """The request is wrong (4xx): the same one again would be refused again."""


class NotAllowed(Refused):
    """The server wants a token, or another one."""


class Unavailable(Answered):
    """The server cannot answer now (429, 5xx), and could not at the other tries."""
