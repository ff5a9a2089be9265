"""The Makefile's variables as words of a command line."""

import pytest

from marctl import makefile
from marctl.errors import UserError


@pytest.fixture
def words_of(monkeypatch):
    """A function that gives variables as make does, and returns the words of a command."""

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
    """Each as one word, whatever is in it; what is empty says nothing, but for a build."""
    assert words_of(command, **variables) == [command, *words]


def test_own_words_come_after_and_count(words_of):
    """The last of two is taken; files stay behind all options."""
    words = words_of("export", "onnx", "--golden=mine", GOLDEN="theirs", MAR="x.mar")
    assert words == ["export", "--golden=theirs", "onnx", "--golden=mine", "--", "x.mar"]


def test_variable_that_was_not_given_is_none(monkeypatch):
    """An environment may have a PORT for other ends."""
    monkeypatch.setenv("PORT", "1")
    monkeypatch.setenv("NAME", "else")
    words = makefile.completed(["serve"], "serve", ["RUN"])
    assert words == ["serve", "--", "model_store/convnet.mar"]


@pytest.mark.parametrize(
    ("command", "variables", "sentence"),
    [
        ("predict", {"IMAGES": "folder"}, "say which image: make predict IMAGE="),
        ("sign", {}, "say which key: make sign KEY=private.pem"),
        (
            "adopt",
            {"MAR": "old.mar"},
            "say of which archive, and where to: make adopt MAR=old.mar FOLDER=mine",
        ),
        ("flask", {"TOKENS": "on"}, "Flask has no tokens; leave TOKENS out"),
    ],
    ids=["predict", "sign", "adopt", "flask"],
)
def test_missing_variable_is_named(words_of, command, variables, sentence):
    """Before anything else is done."""
    with pytest.raises(UserError, match=f"^{sentence}"):
        words_of(command, **variables)
