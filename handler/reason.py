"""Why a picture was refused, in the word by which it is counted."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """One of a few words: the sentence that a client gets names sizes and bytes, and could not be counted."""

    EMPTY = "empty"                    # a request without content
    UNKNOWN_FORMAT = "unknown_format"  # bytes that no decoder takes for its own
    DAMAGED = "damaged"                # cut short, broken, or of a kind that cannot be shown
    TOO_LARGE = "too_large"            # in pixels; TorchServe itself refuses too many bytes
    TOO_MANY_SCANS = "too_many_scans"  # a JPEG that is drawn over and over
    SEVERAL_FIELDS = "several_fields"  # a form with more than one picture
    WEB_FORM = "web_form"              # curl --data-binary without a Content-Type
    JSON = "json"
