"""The Makefile's variables become command-line arguments."""

import pytest

from marctl import makefile
from marctl.errors import UserError


@pytest.fixture
def words_of(monkeypatch):
    """A function that sets variables as make does and returns a command's arguments."""

    def given(command: str, *own: str, **variables: str) -> list[str]:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return makefile.completed([command, *own], command, variables)

    return given


@pytest.mark.parametrize(
    ("command", "variables", "words"),
    [
        ("stop", {}, []),
        ("stop", {"RUN": "my run"}, ["--run=my run"]),
        ("serve", {"MAR": "x.mar", "PORT": "9080"}, ["--port=9080", "--", "x.mar"]),
        ("serve", {"MARS": "a.mar b.mar", "MAR": "x.mar"}, ["--archives=a.mar b.mar"]),
        ("serve", {"NAME": "other", "PORT": ""}, ["--", "model_store/other.mar"]),
        ("serve", {}, ["--", "model_store/convnet.mar"]),
        ("up", {"MAR": "-x.mar", "TLS_CERT": "a b"}, ["--tls-certificate=a b", "--", "-x.mar"]),
        ("verify", {"MAR": "x.mar", "RUN": "1"}, ["--run", "--", "x.mar"]),
        ("verify", {"MAR": "x.mar", "RUN": "run"}, ["--", "x.mar"]),
        ("archive", {"MODEL": "", "LABELS": ""}, ["--labels=", "--", ""]),
        ("predict", {"MAR": "x.mar", "IMAGE": "$(2).png"}, ["--", "x.mar", "$(2).png"]),
        (
            "predict",
            {"URL": "http://x", "IMAGE": "2.png"},
            ["--url=http://x", "--model=convnet", "--", "2.png"],
        ),
        ("predict", {"MAR": "x", "IMAGES": "a*", "OUT": "a.csv"}, ["--out=a.csv", "--", "x", "a*"]),
        ("adopt", {"MAR": "old.mar", "FOLDER": "my mine"}, ["--", "old.mar", "my mine"]),
    ],
    ids=str,
)
def test_variables_are_options_and_files(words_of, command, variables, words):
    """Each is one argument, whatever it contains; an empty one is ignored, except for a build."""
    assert words_of(command, **variables) == [command, *words]


def test_own_words_come_after_and_count(words_of):
    """The last of two values is used; files come after all options."""
    words = words_of("export", "onnx", "--golden=mine", GOLDEN="theirs", MAR="x.mar")
    assert words == ["export", "--golden=theirs", "onnx", "--golden=mine", "--", "x.mar"]


def test_variable_that_was_not_given_is_none(monkeypatch):
    """The environment may have a PORT for other purposes."""
    monkeypatch.setenv("PORT", "1")
    monkeypatch.setenv("NAME", "else")
    words = makefile.completed(["serve"], "serve", ["RUN"])
    assert words == ["serve", "--", "model_store/convnet.mar"]


@pytest.mark.parametrize(
    ("command", "variables", "sentence"),
    [
        ("predict", {"IMAGES": "folder"}, "name an image: make predict IMAGE="),
        ("sign", {}, "name the private key: make sign KEY=private.pem"),
        (
            "adopt",
            {"MAR": "old.mar"},
            "name the archive and the new folder: make adopt MAR=old.mar FOLDER=mine",
        ),
        ("flask", {"TOKENS": "on"}, "the Flask server has no tokens and listens on this machine only"),
    ],
    ids=["predict", "sign", "adopt", "flask"],
)
def test_missing_variable_is_named(words_of, command, variables, sentence):
    """The error comes before anything else is done."""
    with pytest.raises(UserError, match=f"^{sentence}"):
        words_of(command, **variables)
