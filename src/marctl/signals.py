"""What ends a command from outside: SIGTERM, and Ctrl-C."""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

BOTH = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):  # as KeyboardInterrupt: nobody takes it for an error of what it interrupts
    """A signal asks to stop."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.number = number


def stop_on(*numbers: signal.Signals) -> None:
    """Raise Stopped at the first of these signals, whatever is being done; ignore later ones of both kinds.

    The first process of a container needs it: the kernel sends it no signal without a handler.
    """
    for number in numbers:
        signal.signal(number, _stop)


def _stop(number: int, _: FrameType | None) -> NoReturn:
    for each in BOTH:
        signal.signal(each, signal.SIG_IGN)  # stopping is not interrupted
    raise Stopped(signal.Signals(number))
