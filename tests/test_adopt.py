"""From another's .mar to a model folder: what is told of it is right, and nothing of it is run."""

import io
import json
import os
import pickle
import shlex
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

import adoption
import sandbox
from adopt import NotAdopted, adopt
from archiver_mar import MOST_TEXT
from conftest import DIGITS, IMAGES, ROOT, make
from contract import BadContract, Contract
from handler_source import preprocessing_of
from mar import BadArchive

MODEL = (ROOT / "model" / "convnet.py").read_text()
BIN = Path(sys.executable).parent
ARTICLE = """
import io
import torch
from PIL import Image
from torchvision import transforms
from ts.torch_handler.base_handler import BaseHandler


class ConvNetHandler(BaseHandler):
    image_processing = transforms.Compose([
        transforms.Grayscale(num_output_channels=1),
        transforms.Resize((28, 28)),
        transforms.ToTensor(),
        transforms.Normalize((0.1302,), (0.3069,)),
    ])

    def preprocess(self, data):
        images = []
        for row in data:
            image = row.get("data") or row.get("body")
            image = Image.open(io.BytesIO(image))
            images.append(self.image_processing(image))
        return torch.stack(images).to(self.device)

    def postprocess(self, data):
        return data.argmax(1).tolist()
"""
EXPECTED = {"color": "grayscale", "size": [28, 28], "mean": [0.1302], "std": [0.3069]}
IMAGENET = {
    "color": "rgb",
    "resize": 256,
    "size": [224, 224],
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}


def archived(folder: Path, handler: str = ARTICLE, name: str = "convnet", **options: str) -> Path:
    """Return what torch-model-archiver makes of ConvNet and a handler: a source, or a name of its own."""
    folder.mkdir(exist_ok=True)
    (folder / "handler.py").write_text(handler)
    given = {
        "model-name": name,
        "version": "1.0",
        "model-file": str(ROOT / "model" / "convnet.py"),
        "serialized-file": str(ROOT / "model" / "convnet.pth"),
        "export-path": str(folder),
        "handler": handler if handler.isidentifier() else str(folder / "handler.py"),
    } | {key.replace("_", "-"): value for key, value in options.items()}
    words = [word for key, value in given.items() if value for word in (f"--{key}", value)]
    subprocess.run(
        [BIN / "torch-model-archiver", *words], check=True, env=os.environ | {"TMPDIR": str(folder)}
    )
    return folder / f"{name}.mar"


def packed(file: Path, **change: bytes | None) -> Path:
    """Write a small .mar by hand, with members changed, added or, by None, left out."""
    manifest = {
        "model": {
            "modelName": "m",
            "modelVersion": "1.0",
            "handler": "handler.py",
            "modelFile": "model.py",
            "serializedFile": "model.pth",
        }
    }
    members: dict[str, bytes | None] = {
        "MAR-INF/MANIFEST.json": json.dumps(manifest).encode(),
        "handler.py": ARTICLE.encode(),
        "model.py": MODEL.encode(),
        "model.pth": (ROOT / "model" / "convnet.pth").read_bytes(),
    }
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as mar:
        for name, data in (members | change).items():
            if data is not None:
                mar.writestr(name, data)
    return file


def config_of(folder: Path) -> dict:
    config = yaml.safe_load((folder / "model-config.yaml").read_text())
    config.pop("outputs", None)
    return config


def refused(folder: Path) -> str:
    """Return how the build refuses a folder's contract, by the class with which it reads it."""
    labels = folder / "index_to_name.json"
    with pytest.raises(BadContract) as error:
        Contract.from_config(
            yaml.safe_load((folder / "model-config.yaml").read_text()),
            json.loads(labels.read_text()) if labels.exists() else None,
        )
    return str(error.value)


def test_archive_of_the_article_is_adopted_and_answers(checkout_in, tmp_path):
    """Archived by the archiver, adopted, built by the command that is printed: the digits are right."""
    copy = checkout_in(tmp_path / "copy")
    mar = archived(tmp_path / "old")
    program = [sys.executable, "archive/adopt.py", str(mar), "my models/one"]
    environ = os.environ | {"PYTHONPATH": "archive:handler"}
    done = subprocess.run(program, cwd=copy, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "nothing of the archive was run" in done.stdout
    assert not (tmp_path / "copy" / "model_store" / "convnet.mar").exists()
    command = shlex.split(done.stdout.splitlines()[-1])
    assert command[:2] == ["make", "archive"]
    (copy / "my models").rename(copy / "mine")  # until make takes names with spaces
    command = [word.replace("my models", "mine") for word in command]
    assert "holds no pictures" in make(*command[1:], cwd=copy).stderr
    for digit in DIGITS:
        (copy / "mine" / "one" / "golden" / f"{digit}.png").write_bytes(
            (IMAGES / f"{digit}.png").read_bytes()
        )
    built = make(*command[1:], cwd=copy)
    assert built.returncode == 0, built.stderr
    for digit in DIGITS:
        answered = make(
            "predict", cwd=copy, MAR="model_store/convnet.mar", IMAGE=str(IMAGES / f"{digit}.png")
        )
        assert answered.stdout.strip() == digit, answered.stderr
    assert config_of(copy / "mine" / "one")["input"] == EXPECTED


def test_files_are_the_archives_own(tmp_path):
    """Class and weights byte for byte; an empty folder for images; nothing beside the folder."""
    mar = archived(tmp_path / "old")
    before = set(tmp_path.rglob("*"))
    written, found = adopt(mar, tmp_path / "mine", "digits")
    new = {
        str(path.relative_to(tmp_path / "mine"))
        for path in set(tmp_path.rglob("*")) - before - {tmp_path / "mine"}
    }
    assert new == {"digits.py", "digits.pth", "index_to_name.json", "model-config.yaml", "golden"}
    assert {name.rstrip("/") for name in written} == new
    assert (tmp_path / "mine" / "digits.py").read_text() == MODEL
    assert (tmp_path / "mine" / "digits.pth").read_bytes() == (ROOT / "model" / "convnet.pth").read_bytes()
    assert json.loads((tmp_path / "mine" / "index_to_name.json").read_text()) == {
        str(i): str(i) for i in range(10)
    }
    assert found.untold == []
    assert found.model.kind == "log-probabilities"


def handler(
    compose: str, before: str = "", preprocess: str = "self.image_processing(image)", base="VisionHandler"
):
    """Return a handler's source with a Compose of its own."""
    return f"""
import io, torch, torchvision
import torchvision.transforms as T
import torchvision.transforms.functional as TF
from PIL import Image, ImageOps
from torchvision import transforms
from torchvision.transforms import Compose, Resize, ToTensor, Normalize, Grayscale, CenterCrop
from torchvision.transforms import InterpolationMode
from torchvision.transforms import v2
from ts.torch_handler.vision_handler import VisionHandler
from ts.torch_handler.base_handler import BaseHandler
{before}

class MyHandler({base}):
    SIZE = 28
    {compose}

    def preprocess(self, data):
        images = []
        for row in data:
            image = Image.open(io.BytesIO(row["body"]))
            image = {preprocess}
            images.append(image)
        return torch.stack(images)
"""


GREY = "transforms.Grayscale(), transforms.Resize((28, 28)), transforms.ToTensor()"
NORMALIZE = "transforms.Normalize((0.1302,), (0.3069,))"
FUNCTIONAL = "TF.normalize(TF.to_tensor(TF.resize(TF.to_grayscale(image), [28, 28])), [0.1302], [0.3069])"
TOLD = {
    "bare-names": (
        handler(
            "image_processing = Compose([Grayscale(), Resize([28, 28]), ToTensor(), "
            "Normalize([0.1302], [0.3069])])"
        ),
        EXPECTED,
    ),
    "alias": (
        handler(
            "image_processing = T.Compose([T.Grayscale(1), T.Resize(size=(28, 28)), T.ToTensor(), "
            "T.Normalize(mean=(0.1302,), std=(0.3069,))])"
        ),
        EXPECTED,
    ),
    "v2": (
        handler(
            "image_processing = v2.Compose([v2.Grayscale(), v2.Resize((28, 28)), v2.ToImage(), "
            "v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.1302], [0.3069])])"
        ),
        EXPECTED,
    ),
    "whole-path": (
        handler(f"image_processing = torchvision.transforms.Compose([{GREY}, {NORMALIZE}])"),
        EXPECTED,
    ),
    "constants": (
        handler(
            "image_processing = transforms.Compose(STEPS)",
            f"""
MEAN, STD = (0.1302,), (0.3069,)
normalize = transforms.Normalize(MEAN, STD)
STEPS = [{GREY}, normalize]""",
        ),
        EXPECTED,
    ),
    "computed": (
        handler(
            "SIDES = (SIZE, SIZE)\n    image_processing = transforms.Compose([transforms.Grayscale(), "
            "transforms.Resize(SIDES), transforms.ToTensor(), transforms.Normalize((0.1302,), "
            "(0.6138 / 2,))])"
        ),
        EXPECTED,
    ),
    "in-initialize": (
        handler(
            f"""def initialize(self, context):
        super().initialize(context)
        self.mine = transforms.Compose([{GREY}, {NORMALIZE}])
""",
            preprocess="self.mine(image).to(self.device)",
        ),
        EXPECTED,
    ),
    "by-a-function": (
        handler(
            f"""def steps(self):
        return transforms.Compose([{GREY}, {NORMALIZE}])
    transform = steps(None)
""",
            preprocess="self.transform(image)",
        ),
        EXPECTED,
    ),
    "one-of-two": (
        handler(
            f"""training = transforms.Compose([transforms.RandomRotation(9), transforms.ToTensor()])
    mine = transforms.Compose([{GREY}, {NORMALIZE}])
""",
            preprocess="self.mine(image)",
        ),
        EXPECTED,
    ),
    "functional": (handler("pass", preprocess=FUNCTIONAL), EXPECTED),
    "grey-by-opening": (
        handler(
            "image_processing = Compose([Resize((28, 28)), ToTensor(), Normalize((0.1302,), (0.3069,))])",
            preprocess='self.image_processing(image.convert("L"))',
        ),
        EXPECTED,
    ),
    "sequential": (
        handler(
            "image_processing = torch.nn.Sequential(Grayscale(), Resize((28, 28)), ToTensor(), "
            "Normalize((0.1302,), (0.3069,)))"
        ),
        EXPECTED,
    ),
    "no-normalize": (
        handler(f"image_processing = Compose([{GREY}])"),
        {**EXPECTED, "mean": [0.0], "std": [1.0]},
    ),
    "crop": (
        handler(
            "image_processing = Compose([Resize(256, interpolation=InterpolationMode.BILINEAR, "
            "antialias=True), CenterCrop(224), ToTensor(), "
            "Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])"
        ),
        IMAGENET,
    ),
    "one-mean-of-three": (
        handler(
            "image_processing = Compose([Resize(32), ToTensor(), Normalize(0.5, 0.25)])",
            preprocess='self.image_processing(image.convert("RGB"))',
        ),
        {"color": "rgb", "resize": 32, "size": [32, 32], "mean": [0.5] * 3, "std": [0.25] * 3},
    ),
    "torchserves-own-class": (
        """
from ts.torch_handler.image_classifier import ImageClassifier
class Mine(ImageClassifier):
    topk = 1
""",
        IMAGENET,
    ),
    "torchserves-own-preprocess": (
        """
from ts.torch_handler.image_classifier import ImageClassifier
class Mine(ImageClassifier):
    def preprocess(self, data):
        metrics = self.context.metrics
        metrics.add_size("SizeOfImage", len(data[0].get("body")) / 1024, None, "kB")
        return ImageClassifier.preprocess(self, data)
""",
        IMAGENET,
    ),
    "torchserves-own": (None, IMAGENET),
}


@pytest.mark.parametrize("name", TOLD)
def test_transforms_become_the_contracts_numbers(name):
    """However they are written down: the numbers of each, and no doubt."""
    source, expected = TOLD[name]
    told = preprocessing_of("image_classifier", source and source.encode())
    assert told.doubts == []
    assert told.input == expected


NORMAL = f"image_processing = transforms.Compose([{GREY}, {NORMALIZE}])"
DOUBTED = {
    "lambda": (
        handler(
            "image_processing = Compose([transforms.Lambda(lambda image: image.convert('L')), ToTensor()])"
        ),
        "a contract cannot say transforms.Lambda(",
    ),
    "random": (
        handler("image_processing = Compose([transforms.RandomCrop(28), ToTensor()])"),
        "a contract cannot say",
    ),
    "own-class": (
        handler(
            "image_processing = Compose([Resize((28, 28)), ToTensor()])",
            "class Resize:\n    def __init__(self, size):\n        pass\n",
        ),
        "a contract cannot say Resize",
    ),
    "three-greys": (
        handler("image_processing = Compose([Grayscale(3), Resize((28, 28)), ToTensor()])"),
        "a contract cannot say Grayscale(3)",
    ),
    "nearest": (
        handler("image_processing = Compose([Resize((28, 28), InterpolationMode.NEAREST), ToTensor()])"),
        "a contract cannot say Resize((28, 28), InterpolationMode.NEAREST)",
    ),
    "crop-without-resize": (
        handler("image_processing = Compose([CenterCrop(28), ToTensor()])"),
        "a contract cannot say CenterCrop(28)",
    ),
    "crop-after-squeeze": (
        handler("image_processing = Compose([Resize((32, 32)), CenterCrop(28), ToTensor()])"),
        "a contract cannot say CenterCrop(28)",
    ),
    "whole-numbers": (
        handler("image_processing = Compose([Resize((28, 28)), transforms.PILToTensor()])"),
        "stand in an order that a contract cannot say",
    ),
    "twice": (
        handler("image_processing = Compose([Resize((9, 9)), Resize((28, 28)), ToTensor()])"),
        "stand in an order that a contract cannot say",
    ),
    "normalize-first": (
        handler("image_processing = Compose([Normalize(0, 1), ToTensor()])"),
        "in an order that",
    ),
    "by-the-config": (
        handler("image_processing = Compose([Resize(CONFIG['size']), ToTensor()])"),
        "Resize: the value of CONFIG['size'] is not told by the source",
    ),
    "two-values": (
        handler("image_processing = Compose([Resize(SIDES), ToTensor()])", "SIDES = 28\nSIDES = 32"),
        "Resize: the value of SIDES is not told by the source",
    ),
    "circle": (
        handler("image_processing = Compose([Resize(SIDES), ToTensor()])", "SIDES = OTHER\nOTHER = SIDES"),
        "is not told by the source",
    ),
    "spread": (
        handler("image_processing = Compose([*STEPS, ToTensor()])", "STEPS = [Resize(28)]"),
        "a contract cannot say *STEPS",
    ),
    "several": (
        handler(
            f"pass\n    a, b = Compose([{GREY}]), Compose([ToTensor()])", preprocess="choose(a, b)(image)"
        ),
        "the handler has several Compose",
    ),
    "inverted": (
        handler(NORMAL, preprocess="self.image_processing(ImageOps.invert(image))"),
        "the handler also does ImageOps.invert(image)",
    ),
    "inverted-tensor": (
        handler(NORMAL, preprocess="1 - self.image_processing(image)"),
        "the handler also computes 1 - self.image_processing(image)",
    ),
    "divided": (
        handler(NORMAL, preprocess="self.image_processing(image) / 255"),
        "the handler also computes",
    ),
    "flipped": (
        handler(NORMAL, preprocess="self.image_processing(image)[:, ::-1]"),
        "the handler also computes",
    ),
    "threshold": (
        handler(NORMAL, preprocess="(self.image_processing(image) > 0.5).float()"),
        "also computes",
    ),
    "resized-by-pillow": (
        handler(NORMAL, preprocess="self.image_processing(image.resize((9, 9)))"),
        "the handler also does image.resize((9, 9))",
    ),
    "in-a-function": (
        handler(
            NORMAL,
            "def other(image):\n    return ImageOps.invert(image)\n",
            preprocess="self.image_processing(other(image))",
        ),
        "also does ImageOps.invert(image)",
    ),
    "converted-otherwise": (
        handler(NORMAL, preprocess='self.image_processing(image.convert("1"))'),
        "the handler converts images by image.convert('1')",
    ),
    "no-transforms": (handler("pass", preprocess="torch.tensor(image)"), "no torchvision transforms"),
    "base-handler": (
        "from ts.torch_handler.base_handler import BaseHandler\nclass Mine(BaseHandler): pass\n",
        "no torchvision transforms",
    ),
    "no-python": ("class (", "the handler handler.py is no Python"),
    "text": (None, "the handler 'text_classifier' is TorchServe's own"),
}


@pytest.mark.parametrize("name", DOUBTED)
def test_what_a_contract_cannot_say_is_doubted(name):
    """Said in a sentence, and never taken for something near it."""
    source, sentence = DOUBTED[name]
    told = preprocessing_of("text_classifier" if source is None else "handler.py", source and source.encode())
    assert [doubt for doubt in told.doubts if sentence in doubt], told.doubts


def test_doubted_numbers_are_comments_and_the_build_asks_for_them(tmp_path, checkout_in):
    """The whole input: no archive is built that answers by a guess."""
    source, sentence = DOUBTED["inverted"]
    mar = packed(tmp_path / "old.mar", **{"handler.py": source.encode()})
    copy = checkout_in(tmp_path / "copy")
    _, found = adopt(mar, copy / "mine")
    text = (copy / "mine" / "model-config.yaml").read_text()
    assert f"  # {sentence}" in text
    assert "  # size: [28, 28]\n" in text
    assert config_of(copy / "mine")["input"] is None
    assert any(sentence in line for line in found.untold)
    files = {"WEIGHTS": "mine/m.pth", "MODEL": "mine/m.py", "CONFIG": "mine/model-config.yaml"}
    built = make("archive", cwd=copy, NAME="m", LABELS="mine/index_to_name.json", **files)
    assert "there is no section 'input'; it needs color, size, mean and std" in built.stderr
    assert not (copy / "model_store" / "m.mar").exists()


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
    """TorchScript without a label file: nothing tells how many there are, and nothing of it is loaded."""
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
    assert refused(tmp_path / "mine").startswith("labels is None; list one name an output")
    assert any(line.startswith("labels: list one name an output") for line in found.untold)


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
    """Where the source tells it; else it is left to the build."""
    source = CLASS.replace("{forward}", forward)
    _, found = adopt(packed(tmp_path / "old.mar", **{"model.py": source.encode()}), tmp_path / "mine")
    assert found.model.kind == KINDS[forward]


@pytest.mark.parametrize("where", ["class", "handler"])
def test_labels_judged_each_by_itself_are_not_served_as_one(tmp_path, where):
    """A sigmoid, in the class or in the handler: the build ends until somebody decides."""
    change = {
        "class": {"model.py": CLASS.replace("{forward}", "return torch.sigmoid(self.fc(x))")},
        "handler": {"handler.py": ARTICLE.replace("data.argmax(1)", "torch.sigmoid(data)")},
    }[where]
    mar = packed(tmp_path / "old.mar", **{name: text.encode() for name, text in change.items()})
    _, found = adopt(mar, tmp_path / "mine")
    assert refused(tmp_path / "mine").startswith("labels is None")
    assert any("judges each label by itself" in line for line in found.untold)


def test_settings_of_torchserve_are_carried_over(tmp_path):
    """Those that mean the same here; of each other one a line."""
    settings = {
        "minWorkers": 3,
        "maxWorkers": 2,
        "batchSize": 16,
        "maxBatchDelay": 0,
        "responseTimeout": 60,
        "deviceType": "gpu",
        "handler": {"x": 1},
    }
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(settings))
    mar = archived(tmp_path / "old", config_file=str(tmp_path / "old.yaml"), version="2.1")
    _, found = adopt(mar, tmp_path / "mine")
    config = config_of(tmp_path / "mine")
    expected = {"minWorkers": 2, "maxWorkers": 2, "batchSize": 16, "maxBatchDelay": 1, "responseTimeout": 60}
    assert {key: config[key] for key in config if key not in ("input", "labels")} == expected
    assert found.version == "2.1"
    assert [line for line in found.untold if line.startswith("deviceType in the old old.yaml is a setting")]
    assert [
        line for line in found.untold if line.startswith("handler in the old old.yaml is of no meaning here")
    ]
    assert Contract.from_config({**config, "labels": list("0123456789")}).shape == (1, 28, 28)


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
    """And where it cannot be, nothing is made up in its place."""
    mar = packed(tmp_path / "old.mar", **{"index_to_name.json": json.dumps(text).encode()})
    _, found = adopt(mar, tmp_path / "mine")
    assert found.labels == labels
    assert (tmp_path / "mine" / "index_to_name.json").exists() == (labels is not None)
    assert any(line.startswith("labels: index_to_name.json") for line in found.untold) == (labels is None)


class _Touch:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


def test_nothing_of_an_archive_is_run(tmp_path, monkeypatch):
    """Not its handler, its class, its weights, nor a module of a name that is imported here."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    ran = tmp_path / "ran"
    line = f"import os; os.mkdir({str(ran)!r})\n"
    change = {"handler.py": line + ARTICLE, "model.py": line + MODEL, "contract.py": line, "torch.py": line}
    mar = packed(
        tmp_path / "old.mar",
        **{name: text.encode() for name, text in change.items()},
        **{"model.pth": pickle.dumps(_Touch(ran))},
    )
    program = [sys.executable, str(ROOT / "archive" / "adopt.py"), str(mar), str(tmp_path / "mine")]
    environ = os.environ | {"PYTHONPATH": f"{ROOT / 'archive'}:{ROOT / 'handler'}"}
    done = subprocess.run(program, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not ran.exists()
    assert (
        "WEIGHTS: model.pth is no state_dict: it is damaged, or holds Python objects whose code"
        in done.stdout
    )
    assert "save model.state_dict()" in done.stdout
    assert not (tmp_path / "mine" / "m.pth").exists()
    assert "not carried over: contract.py, torch.py" in done.stdout


def test_weights_in_other_forms(tmp_path):
    """A safetensors file tells its shapes in the order of the layers; a checkpoint is said to be one."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 7))
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    named = {"modelName": "m", "modelVersion": "1.0", "handler": "image_classifier", "modelFile": "model.py"}
    for file, data in (
        ("w.safetensors", (tmp_path / "w.safetensors").read_bytes()),
        ("w.pth", _saved({"epoch": 3, "state_dict": model.state_dict()}, tmp_path)),
    ):
        manifest = json.dumps({"model": {**named, "serializedFile": file}}).encode()
        mar = packed(
            tmp_path / f"{file}.mar", **{"MAR-INF/MANIFEST.json": manifest, file: data, "model.pth": None}
        )
        written, found = adopt(mar, tmp_path / f"of {file}")
        if file.endswith(".pth"):
            assert any(
                "holds no state_dict alone, but 'epoch', 'state_dict'" in line for line in found.untold
            )
        else:
            assert "m.safetensors" in written
            assert found.labels == list("0123456")
            assert config_of(tmp_path / f"of {file}")["input"] == IMAGENET


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_are_those_of_the_first_convolution(tmp_path, channels):
    """They tell the colour where the handler does not, and a handler that says another one is doubted."""
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
    """One that is there, be it a link to nowhere, ends it, and nothing else is written."""
    mine = tmp_path / "mine"
    mine.mkdir()
    if name == "link":
        (mine / "m.py").symlink_to(tmp_path / "elsewhere.py")
    else:
        (mine / name).write_text("mine")
    before = sorted(mine.iterdir())
    with pytest.raises(NotAdopted, match="name another folder, or move it away"):
        adopt(packed(tmp_path / "old.mar"), mine)
    assert sorted(mine.iterdir()) == before
    assert not (tmp_path / "elsewhere.py").exists()
    assert name == "link" or (mine / name).read_text() == "mine"


def test_folder_with_other_files_is_gone_on_with(tmp_path):
    """Among them images that are there already."""
    (tmp_path / "mine" / "golden").mkdir(parents=True)
    (tmp_path / "mine" / "golden" / "1.png").write_bytes(DIGITS["1"])
    adopt(packed(tmp_path / "old.mar"), tmp_path / "mine")
    assert (tmp_path / "mine" / "golden" / "1.png").read_bytes() == DIGITS["1"]


def linked(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def manifest(**told) -> bytes:
    """Return a manifest that says so."""
    model = {"modelName": "m", "modelVersion": "1.0", "handler": "handler.py", "serializedFile": "model.pth"}
    return json.dumps({"model": model | told}).encode()


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
    "bomb": {"model.pth": bytes(2**29)},
}


def hostile(folder: Path, name: str) -> Path:
    """Return something that is no archive to adopt."""
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
        ("pipe", "is no file; name a .mar"),
        ("weights-list", "the serializedFile of MAR-INF/MANIFEST.json is no text"),
        ("config-object", "the configFile of MAR-INF/MANIFEST.json is no text"),
        ("version-list", "the modelVersion of MAR-INF/MANIFEST.json is no text"),
        ("gzip", "is a .tar.gz; name a .mar file"),
        ("text", "is no zip, so no .mar"),
        ("cut", "is no zip, so no .mar"),
        ("no-manifest", "has no MAR-INF/MANIFEST.json"),
        ("manifest-list", "names no model and no handler"),
        ("manifest-deep", "MAR-INF/MANIFEST.json is no JSON"),
        ("member-missing", "the manifest names 'model.py' as its modelFile, but there is no such member"),
        ("outside", "'../evil.py' leads out of the folder"),
        ("huge-source", "'model.py' has 4,194,305 bytes, more than the"),
        ("bomb", "is damaged (it unpacks to 53"),
        ("twice", "the member 'model.py' is there more than once"),
        ("link", "'model.py' is a link"),
        ("spoilt", "is damaged in "),
    ],
)
def test_what_is_no_archive_gets_one_sentence(tmp_path, name, sentence):
    """And leaves no file behind."""
    mar = hostile(tmp_path, name)
    with pytest.raises(BadArchive) as error:
        adopt(mar, tmp_path / "mine")
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("mine/*"))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("../x", "the model's name is '../x'; give it one of letters"),
        ("a\x1b[2Jb", "the model's name is 'a\\x1b[2Jb'; give it one"),
        ("contract", "a class file contract.py would stand before a module of that name"),
        ("a\u3164", r"the model's name is 'a\u3164'; give it one"),
        ("torch", "a class file torch.py would stand before"),
        ("canonical", "a class file canonical.py would stand before"),
        ("json", "a class file json.py would stand before"),
    ],
)
def test_name_that_cannot_be_one_asks_for_another(tmp_path, name, sentence):
    """By --name; one with dots and dashes has a class file that Python can import."""
    manifest = {"model": {"modelName": name, "modelVersion": "1.0", "handler": "image_classifier"}}
    mar = packed(tmp_path / "old.mar", **{"MAR-INF/MANIFEST.json": json.dumps(manifest).encode()})
    with pytest.raises(NotAdopted) as error:
        adopt(mar, tmp_path / "mine")
    assert sentence in str(error.value)
    other = packed(tmp_path / "other.mar")
    written, _ = adopt(other, tmp_path / "other", "my-model.v2")
    assert {"my_model_v2.py", "my-model.v2.pth"} <= set(written)


def inflated() -> bytes:
    """Return a .pth whose records are gigabytes of zeros."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bomb:
        with bomb.open("a/data/0", "w") as record:
            for _ in range(200):
                record.write(bytes(2**20))
        bomb.writestr("a/data.pkl", pickle.dumps({}, 2))
    return file.getvalue()


def growing(levels: int) -> str:
    """Return YAML whose merged keys are nine times as many on each line."""
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, levels)]
    return "\n".join(lines)


NORMALIZE = "image_processing = Compose([Grayscale(), Resize((28, 28)), ToTensor(), Normalize({}, [0.5])])"
DOUBLED = "\n".join(["x0 = [0.5]", *(f"x{n} = [{', '.join([f'x{n - 1}'] * 16)}]" for n in range(1, 10))])
UNREAD = {
    "timestamp": ("!!timestamp foo", "the settings of c.yaml are no YAML that can be read"),
    "bool": ("!!bool zz", "the settings of c.yaml are no YAML that can be read"),
    "int": ("!!int ''", "the settings of c.yaml are no YAML that can be read"),
    "digits": ("1\n? 0x" + "f" * 6000 + "\n: 2", "what is no text in the old c.yaml is of no meaning here"),
}
GROWING = {
    "times": handler(NORMALIZE.format("[0.5]" + "*16" * 9)),
    "names": handler(NORMALIZE.format("x9"), DOUBLED),
    "squares": handler(
        NORMALIZE.format("[y9]"), "y0=9\n" + "\n".join(f"y{n}=y{n - 1}*y{n - 1}" for n in range(1, 10))
    ),
    "digits": handler(NORMALIZE.format("[0x" + "f" * 6000 + "]")),
    "nested": handler(NORMALIZE.format("[[0.5]]")),
    "text": handler(NORMALIZE.format("'half'")),
}


@pytest.mark.parametrize("name", UNREAD)
def test_settings_that_the_loader_chokes_on_are_not_carried_over(tmp_path, name):
    """Whatever it raises of them; all else is adopted."""
    value, sentence = UNREAD[name]
    config = {"MAR-INF/MANIFEST.json": manifest(configFile="c.yaml"), "c.yaml": f"a: {value}".encode()}
    _, found = adopt(packed(tmp_path / "old.mar", **config), tmp_path / "mine")
    assert any(line.startswith(sentence) for line in found.untold), found.untold


@pytest.mark.parametrize("name", GROWING)
def test_values_that_grow_are_doubted(name):
    """A line of source that is gigabytes once it is worked out is not worked out."""
    told = preprocessing_of("handler.py", GROWING[name].encode())
    assert told.doubts
    assert "mean" not in told.input


def test_source_that_is_nested_deeply_is_doubted(tmp_path):
    """One deep enough that it is parsed, and not walked; what else there is, is adopted."""
    deep = f"x = a{'.b' * 1500}\n".encode()
    change = {"handler.py": deep + ARTICLE.encode(), "model.py": deep + MODEL.encode()}
    written, found = adopt(packed(tmp_path / "old.mar", **change), tmp_path / "mine")
    assert "m.pth" in written
    assert any(line.startswith("input: the handler") for line in found.untold), found.untold


def test_weights_that_are_a_bomb_are_not_read(tmp_path):
    """They are gigabytes in memory; all else is adopted."""
    _, found = adopt(packed(tmp_path / "old.mar", **{"model.pth": inflated()}), tmp_path / "mine")
    assert any("model.pth is no state_dict: it unpacks to 209,7" in line for line in found.untold)


def test_what_never_ends_is_ended(tmp_path, monkeypatch):
    """A few lines of YAML that are gigabytes: one sentence, and no folder is left behind."""
    monkeypatch.setattr(sandbox, "SECONDS", 10.0)
    monkeypatch.setattr(sandbox, "BYTES_A_SECOND", 2**40)
    config = {"MAR-INF/MANIFEST.json": manifest(configFile="c.yaml"), "c.yaml": growing(12).encode()}
    mar = packed(tmp_path / "old.mar", **config)
    with pytest.raises(NotAdopted) as error:
        adopt(mar, tmp_path / "mine")
    assert "old.mar could not be looked at, within limits of time and memory: it did not" in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "mine").exists()


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
    """Who looked at what strangers made may have been taken over: nothing else gets into a file."""
    good = json.loads(adoption.written(adoption.Found(preprocessing_of("image_classifier", None))))
    adoption.read(json.dumps(good).encode())
    with pytest.raises(ValueError, match="another form"):
        adoption.read(json.dumps(good | change).encode())


def test_what_does_not_print_stays_on_its_line(tmp_path):
    """An archive's own text makes no line of its own in the contract, nor on a terminal."""
    source = handler("image_processing = Compose([Strange('a\\x1b[2J'), Lambda('''x\ninput: y\n''')])")
    change = {"handler.py": source.encode(), "a\x1b[2Jb.txt": b""}
    mar = packed(tmp_path / "old.mar", **change)
    program = [sys.executable, str(ROOT / "archive" / "adopt.py"), str(mar), str(tmp_path / "mine")]
    environ = os.environ | {"PYTHONPATH": f"{ROOT / 'archive'}:{ROOT / 'handler'}"}
    done = subprocess.run(program, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + (tmp_path / "mine" / "model-config.yaml").read_text()
    assert config_of(tmp_path / "mine")["input"] is None
