"""A finding is accepted only with a reason."""

import pytest

from marctl.audit.accepted import Accepted
from marctl.errors import UserError


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[code]\nB1 = ""\n', "accepts B1 without a reason"),
        ("[packages]\n", r"cannot read \[code\]"),
        ("[code", r"cannot read \[code\]"),
    ],
    ids=["no-reason", "no-list", "no-toml"],
)
def test_nothing_is_accepted_without_a_reason(tmp_path, text, sentence):
    """The error names the list and the entry."""
    (tmp_path / "accepted.toml").write_text(text)
    with pytest.raises(UserError, match=sentence):
        Accepted.of("code", tmp_path / "accepted.toml")
