"""Why a request was refused, in the word by which it is counted."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """One of a few words: the sentence that a client gets names sizes and bytes, and could not be counted."""

    EMPTY = "empty"                    # a request without content
    UNKNOWN_FORMAT = "unknown_format"  # bytes that no decoder takes for its own
    DAMAGED = "damaged"                # cut short, broken, or of a kind that cannot be shown
    TOO_LARGE = "too_large"            # in pixels; TorchServe itself refuses too many bytes
    TOO_MANY_SCANS = "too_many_scans"  # a JPEG that is drawn over and over
    TOO_MANY = "too_many_pictures"     # for one request
    SEVERAL_FIELDS = "several_fields"  # more than one picture, where one is explained
    WEB_FORM = "web_form"              # curl --data-binary without a Content-Type
    JSON = "json"                      # that is malformed, or asks in a form that is not known
    OPTION = "option"                  # a wish for the answer's form that is not understood
    NOT_OFFERED = "not_offered"        # an explanation, without EXPLAIN=1 or captum
