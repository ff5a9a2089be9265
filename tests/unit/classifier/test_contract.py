"""model-config.yaml describes the model's input, or is refused with the key and the remedy."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from torchvision import transforms

from classifier.contract import BadContract, Contract
from tests.conftest import ROOT

CONFIG = yaml.safe_load((ROOT / "model" / "model-config.yaml").read_text())


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("input.color", "gray", "input.color is 'gray'; use one of grayscale, rgb"),
        ("input.size", [28], "input.size is [28]; write [height, width] in pixels"),
        ("input.size", [28, 0], "input.size is [28, 0]; write [height, width] in pixels"),
        ("input.mean", None, "input.mean is None; write a list of numbers, 1 for grayscale"),
        ("input.mean", [0.1, 0.2, 0.3], "input.mean has 3 numbers; grayscale needs 1"),
        ("input.std", ["x"], "input.std is ['x']; write a list of numbers, 1 for grayscale"),
        ("input.std", [float("nan")], "input.std is [nan]; write a list of numbers, 1 for grayscale"),
        ("input.size", [True, 28], "input.size is [True, 28]; write [height, width] in pixels"),
        (
            "input.resize",
            20,
            "input.resize is 20; write the length in pixels of the shorter side before "
            "the crop, at least 28, or leave it out",
        ),
        ("input.std", [0.0], "input.std is [0.0]; each deviation must be above 0"),
        ("input.maen", [0.1], "input.maen is not a known key; did you mean 'mean'?"),
        ("input.crop", 224, "input.crop is not a known key; use one of color, size, resize, ink, mean, std"),
        ("labels", [], "labels is []; list one name per output, or write index_to_name.json"),
        ("labels", [0, 1], "the label 0 is not text; put it in quotes"),
        ("outputs", "logprobs", "outputs is 'logprobs'; did you mean 'log-probabilities'?"),
        ("outputs", "Logits", "outputs is 'Logits'; did you mean 'logits'?"),
        ("outputs", "log_probabilities", "outputs is 'log_probabilities'; did you mean 'log-probabilities'?"),
        ("outputs", "softmax", "outputs is 'softmax'; use one of logits, log-probabilities, probabilities"),
        ("outputs", None, "outputs is None; use one of logits, log-probabilities, probabilities"),
        ("outputs", ["logits"], "outputs is ['logits']; use one of logits, log-probabilities, probabilities"),
        ("output", 495, "output is 495; write the name of one output of the ONNX file, in quotes"),
        ("output", None, "output is None; write the name of one output of the ONNX file, in quotes"),
        ("outputt", "x", "outputt is not a known key; did you mean 'output'?"),
        ("batchSize", 0, "batchSize is 0; write a whole number of 1 or more"),
        ("batchSize", "16", "batchSize is '16'; write a whole number of 1 or more"),
        ("batchSize", True, "batchSize is True; write a whole number of 1 or more"),
        ("input", None, "there is no section 'input'; it needs color, size, mean and std"),
    ],
)
def test_wrong_contract_is_refused(path, value, sentence):
    """The error gives the key, its value and what to write."""
    config = copy.deepcopy(CONFIG)
    *sections, key = path.split(".")
    place = config[sections[0]] if sections else config
    place[key] = value
    with pytest.raises(BadContract) as refused:
        Contract.from_config(config)
    assert str(refused.value) == sentence


def test_empty_file_is_refused(tmp_path):
    """An empty YAML file is not a contract."""
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(BadContract, match="there is no section 'input'"):
        Contract.from_file(tmp_path / "empty.yaml")


def test_every_grey_level_is_scaled_as_torchvision_does(contract):
    """All 256 levels have exactly torchvision's value: both compute in float32, in the same order."""
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    reference = transforms.Compose([transforms.ToTensor(), transforms.Normalize(contract.mean, contract.std)])
    assert torch.equal(torch.from_numpy(contract.normalize(levels)), reference(levels))


def test_three_channels_are_scaled_each_by_its_own():
    """An RGB contract gives (N, 3, H, W) with a mean and deviation for each channel."""
    rgb = {"color": "rgb", "size": [4, 5], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    contract = Contract.from_config({"input": rgb, "labels": ["a", "b"]})
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    reference = transforms.Compose([transforms.ToTensor(), transforms.Normalize(rgb["mean"], rgb["std"])])
    scaled = torch.from_numpy(contract.normalize(np.stack([pixels, pixels])))
    assert scaled.shape == (2, *contract.shape)
    assert torch.equal(scaled[1], reference(pixels))


def test_contract_is_read_from_what_it_tells(contract):
    """Also from older dicts, which lack ink (then nothing is centred) and the kind of the outputs."""
    told = contract.to_dict()
    assert told["outputs"] == contract.outputs == "log-probabilities"
    assert Contract.from_dict(told) == contract
    del told["ink"], told["outputs"]
    older = replace(contract, ink=None, outputs=None)
    assert Contract.from_dict(told) == older
    assert Contract.from_dict(older.to_dict()) == older
    del told["size"]
    with pytest.raises(KeyError, match="size"):
        Contract.from_dict(told)
