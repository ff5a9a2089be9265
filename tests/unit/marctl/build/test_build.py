"""Options choose what goes into an archive, and a bad one is named."""

import pytest

from marctl.build.recipe import recipe_of
from marctl.errors import UserError
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"model": "none.py"}, "MODEL=none.py is not a file; name one: make archive MODEL=path/to/file"),
        ({"weights": ""}, "an archive needs weights and a contract"),
        ({"version": "../1"}, "VERSION='../1' cannot be part of a URL"),
        (
            {"model": "handler/convnet_handler.py"},
            "the archive already has a file convnet_handler.py of its own; rename yours",
        ),
        ({"config": "golden.json"}, "the archive already has a file golden.json of its own; rename yours"),
    ],
    ids=["no-class", "no-weights", "version", "handlers-file", "seals-file"],
)
def test_bad_option_is_named(tmp_path, monkeypatch, options, sentence):
    """The error says what came and what to write."""
    for folder in ("model", "handler"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    (tmp_path / "golden.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as refused:
        recipe_of("bad", options)
    assert sentence in str(refused.value)
