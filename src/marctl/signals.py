"""Signals that stop a command: SIGTERM and Ctrl-C."""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

BOTH = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):  # like KeyboardInterrupt, so that no `except Exception` swallows it
    """A signal asked the program to stop."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.number = number


def stop_on(*numbers: signal.Signals) -> None:
    """Raise Stopped on the first of these signals; ignore later SIGTERM and SIGINT.

    The first process of a container needs this: the kernel does not deliver it signals without a handler.
    """
    for number in numbers:
        signal.signal(number, _stop)


def _stop(number: int, _: FrameType | None) -> NoReturn:
    for each in BOTH:
        signal.signal(each, signal.SIG_IGN)  # so that the shutdown is not interrupted
    raise Stopped(signal.Signals(number))
