"""What goes into an archive is chosen by options, and what cannot be is named."""

import pytest

from marctl.build.build import recipe_of
from marctl.errors import UserError
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"model": "none.py"}, "MODEL=none.py is no file; name one: make archive MODEL=path/to/file"),
        ({"weights": ""}, "an archive needs weights and a contract"),
        ({"version": "../1"}, "VERSION='../1' cannot be part of an address"),
        (
            {"model": "handler/convnet_handler.py"},
            "the archive has a file convnet_handler.py of its own already; rename yours",
        ),
        ({"config": "golden.json"}, "the archive has a file golden.json of its own already; rename yours"),
    ],
    ids=["no-class", "no-weights", "version", "handlers-file", "seals-file"],
)
def test_bad_option_is_named(tmp_path, monkeypatch, options, sentence):
    """Each says what came and what to write."""
    for folder in ("model", "handler"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    (tmp_path / "golden.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as refused:
        recipe_of("bad", options)
    assert sentence in str(refused.value)
