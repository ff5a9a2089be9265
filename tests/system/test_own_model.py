"""Another classifier takes another class, weights and contract: these tests follow the page."""

import json
import re
import shlex
import subprocess

import numpy as np
import pytest
import requests
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision import transforms
from torchvision.models.resnet import BasicBlock, ResNet

from bench.load.images import encoded, opened
from marctl.archive.mar import read_manifest
from marctl.verify.verify import faults
from tests.conftest import DIGITS, IMAGES, ROOT, free_port, make
from tests.support.rows import Engine
from tests.support.sealing import archive_here
from tests.support.waiting import PATIENCE

PAGE = (ROOT / "docs" / "your-own-model.md").read_text()
# float32 sums in another order with another batch size; the outputs are of the order of 1.
TOLERANCE = 2e-5

SMALL_CLASS = """
import torch
from torch import nn


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 10, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)
"""
SMALL_CONTRACT = {
    "input": {"color": "grayscale", "size": [16, 12], "mean": [0.4], "std": [0.25]},
    "labels": ["low", "middle", "high"],
    "minWorkers": 1,
    "maxWorkers": 1,
    "batchSize": 8,
    "maxBatchDelay": 1,
}


def photos():
    """Return images with colours and edges, of different shapes, as PNG files."""
    rng = np.random.default_rng(0)
    files = []
    for height, width in [(300, 400), (400, 300), (224, 224), (50, 700)]:
        coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST)
        files.append(encoded(image, "PNG"))
    return files


def files_of_page():
    """Return the files shown on the page, by the names before them."""
    shown = re.findall(r"`(mine/\S+)`:\n\n```\w+\n(.*?)```", PAGE, re.DOTALL)
    return dict(shown)


def commands_of_page():
    blocks = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]


@pytest.fixture(scope="module")
def own(tmp_path_factory, checkout_in):
    """A checkout in which the page was followed up to the served model, and the server's URL."""
    copy = checkout_in(tmp_path_factory.mktemp("own"))
    for name, text in files_of_page().items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text(text)
    port = free_port()
    environ = {"PORT": str(port), "RUN": str(copy / "run")}
    for command in commands_of_page():
        if command == "make stop":
            break
        words = shlex.split(command.replace("8080", str(port)))
        if words[0] == "make":
            done = make(*words[1:], cwd=copy, **environ)
        else:
            done = subprocess.run(
                ["sh", "-c", command.replace("8080", str(port))],
                cwd=copy, capture_output=True, text=True, check=False,
            )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    yield copy, f"http://127.0.0.1:{port}", done.stdout
    make("stop", cwd=copy, **environ)


def resnet(copy):
    model = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=1000)
    model.load_state_dict(torch.load(copy / "mine" / "resnet18" / "resnet18.pth", weights_only=True))
    return model.eval()


def torchvisions(body, spec):
    """Return torchvision's tensor for an image file, with the contract's own numbers."""
    steps = [transforms.Resize(spec["resize"]), transforms.CenterCrop(spec["size"])]
    steps += [transforms.ToTensor(), transforms.Normalize(spec["mean"], spec["std"])]
    return transforms.Compose(steps)(opened(body).convert("RGB"))


def test_page_serves_a_resnet(own):
    """The page's curl line prints one of the labels; each photo's answer matches eager torchvision."""
    copy, address, answered = own
    spec = yaml.safe_load((copy / "mine" / "resnet18" / "model-config.yaml").read_text())["input"]
    names = json.loads((copy / "mine" / "resnet18" / "index_to_name.json").read_text())
    assert answered in names.values()
    model = resnet(copy)
    for body in [*photos(), *DIGITS.values()]:
        with torch.inference_mode():
            expected = names[str(int(model(torchvisions(body, spec)[None]).argmax()))]
        reply = requests.put(f"{address}/predictions/resnet18", data=body, timeout=PATIENCE)
        assert (reply.status_code, reply.text) == (200, expected)


def test_resnet_outputs_are_eagers(own):
    """The archive's 1,000 outputs match the eager model with torchvision's own transforms."""
    copy, _, _ = own
    spec = yaml.safe_load((copy / "mine" / "resnet18" / "model-config.yaml").read_text())["input"]
    with Engine(copy / "model_store" / "resnet18.mar") as engine:
        outputs = engine.handler.outputs(photos())
        pixels = [engine.handler.preprocess([engine.handler.read_pixels(photo)])[0] for photo in photos()]
    references = [torchvisions(body, spec) for body in photos()]
    for ours, theirs in zip(pixels, references, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    with torch.inference_mode():
        expected = resnet(copy)(torch.stack(references))
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=TOLERANCE)


GOLDEN = {"GOLDEN": str(IMAGES)}


def small_model():
    torch.manual_seed(1)
    namespace: dict = {}
    exec(compile(SMALL_CLASS, "small.py", "exec"), namespace)  # noqa: S102 our own text, above
    return namespace["Small"]().eval()


def write_weights(model: nn.Module, folder, kind):
    """Save the model's weights in one of the formats; return the make variables that name them."""
    file = folder / f"small{kind}"
    (folder / "small.py").write_text(SMALL_CLASS)
    example = torch.zeros(1, 1, 16, 12)
    match kind:
        case ".pth":
            torch.save(model.state_dict(), file)
        case ".safetensors":
            save_file(model.state_dict(), file)
        case ".pt":
            torch.jit.trace(model, example).save(file)
        case ".onnx":
            names = {"input_names": ["input"], "dynamic_axes": {"input": {0: "n"}}}
            torch.onnx.export(model, (example,), file, dynamo=False, **names)
    has_class = kind in (".pth", ".safetensors")
    return {"WEIGHTS": str(file), "MODEL": str(folder / "small.py") if has_class else ""}


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.parametrize("kind", [".pth", ".safetensors", ".pt", ".onnx"])
def test_small_grey_model_in_every_form(kind, tmp_path):
    """Weights in each format give the answers of the eager model with torchvision's transforms."""
    model, mar = small_model(), tmp_path / "small.mar"
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SMALL_CONTRACT))
    weights = write_weights(model, tmp_path, kind)
    built = archive_here(NAME="small", MAR=str(mar), CONFIG=str(tmp_path / "small.yaml"), **GOLDEN, **weights)
    assert built.returncode == 0, built.stderr
    spec = SMALL_CONTRACT["input"]
    steps = [transforms.Grayscale(), transforms.Resize(spec["size"]), transforms.ToTensor()]
    reference = transforms.Compose([*steps, transforms.Normalize(spec["mean"], spec["std"])])
    with torch.inference_mode():
        expected = model(torch.stack([reference(opened(body)) for body in photos()]))
    with Engine(mar) as engine:
        np.testing.assert_allclose(engine.handler.outputs(photos()), expected, rtol=0, atol=TOLERANCE)
        labels = [answer.body for answer in engine.predict(photos())]
    assert labels == [SMALL_CONTRACT["labels"][index] for index in expected.argmax(dim=1)]
    assert faults(mar, run=True) == []


def test_folder_with_several_source_files_answers(tmp_path, checkout_in):
    """The class imports a module named in the contract, which also names the archive."""
    copy = checkout_in(tmp_path / "copy")
    folder = copy / "mine"
    (folder / "golden").mkdir(parents=True)
    for digit in "12":
        (folder / "golden" / f"{digit}.png").write_bytes(DIGITS[digit])
    torch.save(small_model().state_dict(), folder / "small.pth")
    (folder / "blocks.py").write_text("LABELS = 3\n")
    using = SMALL_CLASS.replace("14 * 10, 3", "14 * 10, blocks.LABELS")
    using = using.replace("import torch", "import blocks\nimport torch", 1)
    (folder / "small.py").write_text(using)
    (folder / "requirements.txt").write_text("einops\n")
    section = {"name": "tiny", "version": "3.1", "model": "small.py", "extra_files": ["blocks.py"]}
    config = {**SMALL_CONTRACT, "archive": section}
    (folder / "model-config.yaml").write_text(yaml.safe_dump(config))
    built = make("archive", cwd=copy, MODEL="mine")
    assert built.returncode == 0, built.stderr
    mar = copy / "model_store" / "tiny.mar"
    model = read_manifest(mar)["model"]
    told = (model["modelName"], model["modelVersion"], model["requirementsFile"])
    assert told == ("tiny", "3.1", "requirements.txt")
    answered = make("predict", cwd=copy, MODEL="mine", IMAGE="tests/images/2.png")
    assert answered.stdout.strip() in SMALL_CONTRACT["labels"], answered.stderr
    assert faults(mar, run=True) == []


def test_models_and_versions_serve_side_by_side(own, tmp_path):
    """One TorchServe serves two archives and two versions of one, each at its own address."""
    copy, _, _ = own
    assert make("archive", cwd=copy).returncode == 0
    assert make("archive", cwd=copy, VERSION="2.0", MAR="model_store/convnet-2.0.mar").returncode == 0
    port = free_port()
    mars = "model_store/convnet.mar model_store/convnet-2.0.mar model_store/resnet18.mar"
    environ = {"PORT": str(port), "RUN": str(tmp_path / "run")}
    try:
        served = make("serve", cwd=copy, MARS=mars, **environ)
        assert served.returncode == 0, served.stderr
        address = f"http://127.0.0.1:{port}/predictions"
        for path, answer in (("convnet/1.0", "6"), ("convnet/2.0", "6"), ("resnet18", "class ")):
            reply = requests.put(f"{address}/{path}", data=DIGITS["6"], timeout=PATIENCE)
            assert reply.text.startswith(answer)
        assert "convnet 2.0: 2 of 2 workers ready" in make("status", cwd=copy, **environ).stdout
    finally:
        make("stop", cwd=copy, **environ)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"input.mean": None}, "input.mean is None; write a list of numbers, 1 for grayscale"),
        ({"input.mean": [0.1, 0.2, 0.3]}, "input.mean has 3 numbers; grayscale needs 1"),
        ({"labels": ["a", "b"]}, "an output of shape (1, 3) for one image, but model-config.yaml has 2"),
        ({"batchsize": 4}, "batchsize is not a known key; did you mean 'batchSize'?"),
        ({"labels": "index_to_name.json"}, "the archive has no such file; name it: LABELS="),
    ],
    ids=["no-mean", "three-means", "two-labels", "unknown-key", "no-label-file"],
)
def test_wrong_contract_is_refused_at_build_time(change, sentence, tmp_path):
    """The build names the key and the remedy, and leaves no archive."""
    config = yaml.safe_load(yaml.safe_dump(SMALL_CONTRACT))
    for path, value in change.items():
        place = config["input"] if path.startswith("input.") else config
        place[path.removeprefix("input.")] = value
    contract, mar = tmp_path / "small.yaml", tmp_path / "small.mar"
    contract.write_text(yaml.safe_dump(config))
    weights = write_weights(small_model(), tmp_path, ".pth")
    built = archive_here(NAME="small", MAR=str(mar), CONFIG=str(contract), **GOLDEN, **weights)
    assert built.returncode != 0
    assert sentence in built.stderr
    assert not mar.exists()
