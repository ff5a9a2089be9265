"""An archive becomes a model folder; a sentence asks for what the archive lacks."""

import json
import os
import stat
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from classifier.contract import BadContract, Contract
from marctl.adopt import adoption
from marctl.adopt.adopt import adopt
from marctl.adopt.archiver_mar import MOST_TEXT
from marctl.adopt.handler_source import preprocessing_of
from marctl.archive.mar import BadArchive
from marctl.errors import UserError
from marctl.sandbox import sandbox
from tests.conftest import DIGITS
from tests.support.archiver_mars import ARTICLE, IMAGENET, MODEL, config_of, handler, manifest, packed


@pytest.fixture(autouse=True)
def looked_at_here(monkeypatch):
    """Inspect the files in this process: the result is the same, and the sandbox has its own tests."""

    def look(_program, folder, request, *_):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return adoption.written(adoption.look(folder, adoption.Question(**json.loads(request)))).encode()

    monkeypatch.setattr(sandbox, "run", look)


def refused(folder: Path) -> str:
    """Return the error with which the build refuses a folder's contract."""
    labels = folder / "index_to_name.json"
    with pytest.raises(BadContract) as error:
        Contract.from_config(
            yaml.safe_load((folder / "model-config.yaml").read_text()),
            json.loads(labels.read_text()) if labels.exists() else None,
        )
    return str(error.value)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (
            handler("image_processing = Compose([Grayscale(), ToTensor()])"),
            "input.size is None; write [height, width]",
        ),
        (handler("image_processing = Compose([Resize((28, 28)), ToTensor()])"), None),
    ],
    ids=["size", "color-by-the-weights"],
)
def test_one_missing_number_is_asked_for_by_its_name(tmp_path, source, sentence):
    """A placeholder in a comment says what belongs there, and the build names the key."""
    _, found = adopt(packed(tmp_path / "old.mar", **{"handler.py": source.encode()}), tmp_path / "mine")
    if sentence is None:
        assert config_of(tmp_path / "mine")["input"]["color"] == "grayscale"
        return
    assert refused(tmp_path / "mine").startswith(sentence)
    assert any(line.startswith("input.size: write [height, width]") for line in found.untold)


def test_labels_without_any_are_asked_for(tmp_path):
    """TorchScript without a label file: the number of labels is unknown, and the file is not loaded."""
    with zipfile.ZipFile(tmp_path / "script", "w") as script:
        script.writestr("model/code/__torch__.py", "what would run")
    manifest = {
        "model": {"modelName": "m", "modelVersion": "2.0", "handler": "handler.py", "serializedFile": "s.pt"}
    }
    change = {
        "MAR-INF/MANIFEST.json": json.dumps(manifest).encode(),
        "s.pt": (tmp_path / "script").read_bytes(),
    }
    written, found = adopt(packed(tmp_path / "old.mar", **change), tmp_path / "mine")
    assert "m.pt" in written
    assert refused(tmp_path / "mine").startswith("labels is None; list one name per output")
    assert any(line.startswith("labels: list one name per output") for line in found.untold)


CLASS = """
import torch
from torch import nn
from torch.nn import functional as F
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)
        self.soft = nn.LogSoftmax(dim=1)
        self.both = nn.Sequential(nn.Linear(4, 2), nn.Softmax(dim=1), nn.Flatten())
    def forward(self, x):
        {forward}
"""
KINDS = {
    "return F.log_softmax(self.fc(x), dim=1)": "log-probabilities",
    "return torch.log_softmax(self.fc(x), 1)": "log-probabilities",
    "x = self.fc(x)\n        output = x.log_softmax(dim=1)\n        return output": "log-probabilities",
    "return self.soft(self.fc(x))": "log-probabilities",
    "return nn.LogSoftmax(dim=1)(self.fc(x))": "log-probabilities",
    "return F.softmax(self.fc(x), dim=1)": "probabilities",
    "return self.both(x)": "probabilities",
    "return self.fc(x)": "logits",
    "return self.fc(x).view(-1, 2)": "logits",
    "x = self.fc(x)\n        return x": "logits",
    "return torch.sigmoid(self.fc(x))": "sigmoid",
    "return torch.exp(F.log_softmax(self.fc(x), dim=1))": None,
    "if self.training:\n            x = self.fc(x)\n        return x": None,
    "if self.training:\n            return self.fc(x)\n        return self.soft(self.fc(x))": None,
    "return self.fc(x), x": None,
}


@pytest.mark.parametrize("forward", KINDS)
def test_kind_of_outputs_is_told_by_the_last_thing_done(tmp_path, forward):
    """The kind is read from the source if possible; otherwise the build finds it."""
    source = CLASS.replace("{forward}", forward)
    _, found = adopt(packed(tmp_path / "old.mar", **{"model.py": source.encode()}), tmp_path / "mine")
    assert found.model.kind == KINDS[forward]


@pytest.mark.parametrize("where", ["class", "handler"])
def test_labels_judged_each_by_itself_are_not_served_as_one(tmp_path, where):
    """With a sigmoid in the class or in the handler, the build fails until the user decides."""
    change = {
        "class": {"model.py": CLASS.replace("{forward}", "return torch.sigmoid(self.fc(x))")},
        "handler": {"handler.py": ARTICLE.replace("data.argmax(1)", "torch.sigmoid(data)")},
    }[where]
    mar = packed(tmp_path / "old.mar", **{name: text.encode() for name, text in change.items()})
    _, found = adopt(mar, tmp_path / "mine")
    assert refused(tmp_path / "mine").startswith("labels is None")
    assert any("scores each label on its own" in line for line in found.untold)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ({"0": "cat", "1": "dog"}, ["cat", "dog"]),
        ({"0": ["n01", "cat"], "1": ["n02", "dog"]}, ["cat", "dog"]),
        ({"object_type_names": ["cat", "dog"]}, ["cat", "dog"]),
        ({"0": "cat", "2": "dog"}, None),
        ({"0": 1}, None),
        (["cat"], None),
    ],
    ids=["text", "lists", "older", "gap", "number", "list"],
)
def test_label_file_is_read_as_torchserve_reads_it(tmp_path, text, labels):
    """If it cannot be read, no labels are made up."""
    mar = packed(tmp_path / "old.mar", **{"index_to_name.json": json.dumps(text).encode()})
    _, found = adopt(mar, tmp_path / "mine")
    assert found.labels == labels
    assert (tmp_path / "mine" / "index_to_name.json").exists() == (labels is not None)
    assert any(line.startswith("labels: index_to_name.json") for line in found.untold) == (labels is None)


def test_weights_in_other_forms(tmp_path):
    """A safetensors file or a checkpoint gives the shapes in layer order; other files are described."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 7))
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    named = {"modelName": "m", "modelVersion": "1.0", "handler": "image_classifier", "modelFile": "model.py"}
    for file, data in (
        ("w.safetensors", (tmp_path / "w.safetensors").read_bytes()),
        ("w.pth", _saved({"epoch": 3, "state_dict": model.state_dict()}, tmp_path)),
        ("x.pth", _saved({"epoch": 3, "weights": model.state_dict()}, tmp_path)),
    ):
        manifest = json.dumps({"model": {**named, "serializedFile": file}}).encode()
        mar = packed(
            tmp_path / f"{file}.mar", **{"MAR-INF/MANIFEST.json": manifest, file: data, "model.pth": None}
        )
        written, found = adopt(mar, tmp_path / f"of {file}")
        if file == "x.pth":
            assert any("contains no state_dict but 'epoch', 'weights'" in line for line in found.untold)
        else:
            assert f"m{Path(file).suffix}" in written
            assert found.labels == list("0123456")
            assert config_of(tmp_path / f"of {file}")["input"] == IMAGENET


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_are_those_of_the_first_convolution(tmp_path, channels):
    """They give the colour if the handler does not; a handler that contradicts them is doubted."""
    weights = _saved(nn.Conv2d(channels, 4, 3).state_dict(), tmp_path)
    for number, (steps, doubted) in enumerate((("", False), ("Grayscale(), ", channels == 3))):
        source = handler(
            f"image_processing = Compose([{steps}Resize((9, 9)), ToTensor(), Normalize(0.5, 0.25)])"
        )
        mar = packed(tmp_path / f"{number}.mar", **{"model.pth": weights, "handler.py": source.encode()})
        _, found = adopt(mar, tmp_path / f"mine{number}")
        told = config_of(tmp_path / f"mine{number}")["input"]
        if doubted:
            assert told is None
            assert (
                "input: the first convolution takes 3 channels, and the transforms make images in grayscale"
                in (found.untold)
            )
        else:
            assert told == {
                "color": {1: "grayscale", 3: "rgb"}[channels],
                "size": [9, 9],
                "mean": [0.5] * channels,
                "std": [0.25] * channels,
            }


def _saved(value, folder: Path) -> bytes:
    torch.save(value, folder / "saved")
    return (folder / "saved").read_bytes()


@pytest.mark.parametrize(
    "name", ["m.py", "m.pth", "model-config.yaml", "index_to_name.json", "link", "golden"]
)
def test_no_file_is_written_over(tmp_path, name):
    """An existing file, even a dangling link, stops the command before anything is written."""
    mine = tmp_path / "mine"
    mine.mkdir()
    if name == "link":
        (mine / "m.py").symlink_to(tmp_path / "elsewhere.py")
    else:
        (mine / name).write_text("mine")
    before = sorted(mine.iterdir())
    with pytest.raises(UserError, match="name another folder, or move it away"):
        adopt(packed(tmp_path / "old.mar"), mine)
    assert sorted(mine.iterdir()) == before
    assert not (tmp_path / "elsewhere.py").exists()
    assert name == "link" or (mine / name).read_text() == "mine"


def test_folder_with_other_files_is_gone_on_with(tmp_path):
    """Images that are there already are kept."""
    (tmp_path / "mine" / "golden").mkdir(parents=True)
    (tmp_path / "mine" / "golden" / "1.png").write_bytes(DIGITS["1"])
    adopt(packed(tmp_path / "old.mar"), tmp_path / "mine")
    assert (tmp_path / "mine" / "golden" / "1.png").read_bytes() == DIGITS["1"]


def linked(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


CHANGES = {
    "weights-list": {"MAR-INF/MANIFEST.json": manifest(serializedFile=["model.pth"])},
    "config-object": {"MAR-INF/MANIFEST.json": manifest(configFile={"a": 1})},
    "version-list": {"MAR-INF/MANIFEST.json": manifest(modelVersion=["1"])},
    "no-manifest": {"MAR-INF/MANIFEST.json": None},
    "manifest-list": {"MAR-INF/MANIFEST.json": b"[]"},
    "manifest-deep": {"MAR-INF/MANIFEST.json": b"[" * 100_000},
    "member-missing": {"model.py": None},
    "outside": {"../evil.py": b""},
    "huge-source": {"model.py": bytes(MOST_TEXT + 1)},
    "bomb": {"model.pth": bytes(2**28)},
}


def hostile(folder: Path, name: str) -> Path:
    """Return something that cannot be adopted."""
    mar = folder / "old.mar"
    if name in CHANGES:
        return packed(mar, **CHANGES[name])
    match name:
        case "folder":
            mar.mkdir()
        case "pipe":
            os.mkfifo(mar)
        case "gzip":
            mar.write_bytes(b"\x1f\x8b\x08 and so on")
        case "text":
            mar.write_text("hello")
        case "cut":
            mar.write_bytes(packed(folder / "whole").read_bytes()[:-100])
        case "twice":
            with (
                pytest.warns(UserWarning, match="Duplicate name"),
                zipfile.ZipFile(packed(mar), "a") as opened,
            ):
                opened.writestr("model.py", "other")
        case "link":
            with zipfile.ZipFile(packed(mar, **{"model.py": None}), "a") as opened:
                opened.writestr(linked("model.py"), "/etc/passwd")
        case "spoilt":
            mar.write_bytes(packed(folder / "whole").read_bytes().replace(b"PK\x03\x04", b"PK\x03\x05", 2))
    return mar


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("missing", "there is no archive"),
        ("folder", "is a folder; name a .mar file"),
        ("pipe", "is not a file; name a .mar"),
        ("weights-list", "the serializedFile of MAR-INF/MANIFEST.json is not a string"),
        ("config-object", "the configFile of MAR-INF/MANIFEST.json is not a string"),
        ("version-list", "the modelVersion of MAR-INF/MANIFEST.json is not a string"),
        ("gzip", "is a .tar.gz; name a .mar file"),
        ("text", "is not a zip, so not a .mar"),
        ("cut", "is not a zip, so not a .mar"),
        ("no-manifest", "has no MAR-INF/MANIFEST.json"),
        ("manifest-list", "names no model or no handler"),
        ("manifest-deep", "MAR-INF/MANIFEST.json is not JSON"),
        ("member-missing", "the manifest names 'model.py' as its modelFile, but there is no such member"),
        ("outside", "'../evil.py' would be unpacked outside the archive's folder"),
        ("huge-source", "'model.py' has 4,194,305 bytes, more than the"),
        ("bomb", "is damaged (it unpacks to 26"),
        ("twice", "the member 'model.py' occurs more than once"),
        ("link", "'model.py' is a link"),
        ("spoilt", "is damaged in "),
    ],
)
def test_what_is_no_archive_gets_one_sentence(tmp_path, name, sentence):
    """No file is left behind."""
    mar = hostile(tmp_path, name)
    with pytest.raises(BadArchive) as error:
        adopt(mar, tmp_path / "mine")
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("mine/*"))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("../x", "the model's name is '../x'; choose another, of letters"),
        ("a\x1b[2Jb", "the model's name is 'a\\x1b[2Jb'; choose another"),
        ("classifier", "a class file classifier.py would shadow the module of that name"),
        ("a\u3164", r"the model's name is 'a\u3164'; choose another"),
        ("torch", "a class file torch.py would shadow"),
        ("convnet_handler", "a class file convnet_handler.py would shadow"),
        ("json", "a class file json.py would shadow"),
    ],
)
def test_name_that_cannot_be_one_asks_for_another(tmp_path, name, sentence):
    """--name gives another; one with dots and dashes gets a class file that Python can import."""
    manifest = {"model": {"modelName": name, "modelVersion": "1.0", "handler": "image_classifier"}}
    mar = packed(tmp_path / "old.mar", **{"MAR-INF/MANIFEST.json": json.dumps(manifest).encode()})
    with pytest.raises(UserError) as error:
        adopt(mar, tmp_path / "mine")
    assert sentence in str(error.value)
    other = packed(tmp_path / "other.mar")
    written, _ = adopt(other, tmp_path / "other", "my-model.v2")
    assert {"my_model_v2.py", "my-model.v2.pth"} <= set(written)


UNREAD = {
    "timestamp": ("!!timestamp foo", "the settings in c.yaml are not valid YAML"),
    "bool": ("!!bool zz", "the settings in c.yaml are not valid YAML"),
    "int": ("!!int ''", "the settings in c.yaml are not valid YAML"),
    "digits": ("1\n? 0x" + "f" * 6000 + "\n: 2", "a key that is not a string in the old c.yaml has no"),
}


@pytest.mark.parametrize("name", UNREAD)
def test_settings_that_the_loader_chokes_on_are_not_carried_over(tmp_path, name):
    """Whatever the loader raises, everything else is adopted."""
    value, sentence = UNREAD[name]
    config = {"MAR-INF/MANIFEST.json": manifest(configFile="c.yaml"), "c.yaml": f"a: {value}".encode()}
    _, found = adopt(packed(tmp_path / "old.mar", **config), tmp_path / "mine")
    assert any(line.startswith(sentence) for line in found.untold), found.untold


def test_source_that_is_nested_deeply_is_doubted(tmp_path):
    """It can be parsed but is too deep to walk; everything else is adopted."""
    deep = f"x = a{'.b' * 1500}\n".encode()
    change = {"handler.py": deep + ARTICLE.encode(), "model.py": deep + MODEL.encode()}
    written, found = adopt(packed(tmp_path / "old.mar", **change), tmp_path / "mine")
    assert "m.pth" in written
    assert any(line.startswith("input: the handler") for line in found.untold), found.untold


@pytest.mark.parametrize(
    "change",
    [
        {"ending": ".py"},
        {"settings": {"a: b\nc": 1}},
        {"settings": {"batchSize": "1\nhandler: x"}},
        {"preprocessing": {"input": {"color": "rgb\nx: y"}, "doubts": [], "has_sigmoid": False}},
        {"preprocessing": {"input": {"mean": ["a"]}, "doubts": [], "has_sigmoid": False}},
        {"preprocessing": {"input": {"os": 1}, "doubts": [], "has_sigmoid": False}},
        {"untold": [1]},
        {"labels": [{}]},
        {"model": {"name": "M", "kind": "a\nb: c"}},
        {"tensors": -1},
    ],
    ids=str,
)
def test_answer_in_another_form_is_none(change):
    """The process that read an untrusted archive may be compromised: any other form is refused."""
    good = json.loads(adoption.written(adoption.Found(preprocessing_of("image_classifier", None))))
    adoption.read(json.dumps(good).encode())
    with pytest.raises(ValueError, match="another form"):
        adoption.read(json.dumps(good | change).encode())
