"""Why there is no prediction. Each message says what came and what to do."""

from __future__ import annotations


class ClientError(RuntimeError):
    """There is no prediction; the message says what came and what to do."""


class BadImage(ClientError):
    """The image file cannot be read; nothing was sent."""


class BadSetting(ClientError):
    """The address, the token, a proxy or the certificates cannot be used."""


class Unreachable(ClientError):
    """The server cannot be reached, retries included."""


class TooSlow(ClientError):
    """No answer came in time. It is not retried: that would only add load."""


class NoPrediction(ClientError):
    """The response does not come from this project's server."""


class Answered(ClientError):
    """The server answered with an error: its status, its message, and a hint, empty if it gave none."""

    def __init__(self, sentence: str, status: int, message: str, hint: str) -> None:
        super().__init__(sentence)
        self.status, self.message, self.hint = status, message, hint


class Refused(Answered):
    """The request is wrong (4xx), and would be refused again."""


class NotAllowed(Refused):
    """The server requires a token, or a different one."""


class Unavailable(Answered):
    """The server cannot answer now (429, 5xx), retries included."""
