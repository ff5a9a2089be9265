"""Weights as training programs save them are loaded if they fit, and otherwise refused in a sentence."""

import argparse
import re

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from classifier.contract import BadContract
from classifier.runtime.torch import load_weights

SAVE = r"; save the weights alone: torch\.save\(model\.state_dict\(\), 'w\.pth'\)"
FIT = r"; save model\.state_dict\(\) of this class, made with the same arguments"


class Net(nn.Module):
    """A few layers, one of them with a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(4, 3)


class Wrapped(nn.Module):
    """A model whose own names begin like a prefix."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Net()


@pytest.fixture(scope="module")
def state():
    """The state_dict of a trained model."""
    torch.manual_seed(1)
    return Net().state_dict()


def prefixed(prefix: str, state):
    return {prefix + name: tensor for name, tensor in state.items()}


def loaded(tmp_path, saved, model: type[nn.Module] = Net) -> nn.Module:
    torch.save(saved, tmp_path / "w.pth")
    return load_weights(model(), tmp_path / "w.pth")


def assert_same(model: nn.Module, state) -> None:
    got = model.state_dict()
    assert got.keys() == state.keys()
    for name, tensor in state.items():
        assert got[name].dtype == tensor.dtype
        assert got[name].numpy().tobytes() == tensor.numpy().tobytes(), name


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_state_dict_is_loaded_bit_by_bit(tmp_path, state, suffix):
    """Each file format keeps every bit, even of the smallest float and infinity."""
    changed = {name: tensor.clone() for name, tensor in state.items()}
    changed["fc.bias"][:] = torch.tensor([1e-45, float("inf"), -0.0])
    file = tmp_path / f"w{suffix}"
    save_file(changed, file) if suffix == ".safetensors" else torch.save(changed, file)
    assert_same(load_weights(Net(), file), changed)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_checkpoint_is_opened(tmp_path, state, key):
    """The state_dict is found, whatever else a training program saved with it."""
    optimizer = torch.optim.SGD(Net().parameters(), 0.1, momentum=0.9).state_dict()
    assert_same(loaded(tmp_path, {"epoch": 3, key: state, "optimizer": optimizer}), state)


@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.", "model.model."]
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_prefix_of_every_name_is_left_out(tmp_path, state, prefix, suffix):
    """The prefixes are those of DataParallel, Lightning and torch.compile, also nested."""
    file = tmp_path / f"w{suffix}"
    names = prefixed(prefix, state)
    save_file(names, file) if suffix == ".safetensors" else torch.save({"state_dict": names}, file)
    assert_same(load_weights(Net(), file), state)


def test_own_name_is_no_prefix(tmp_path, state):
    """No prefix is removed from names that fit, and no more than needed from others."""
    own = prefixed("model.", state)
    assert_same(loaded(tmp_path, own, Wrapped), own)
    assert_same(loaded(tmp_path, prefixed("model.", own), Wrapped), own)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_batch_norm_of_an_old_torch_is_loaded(tmp_path, state, prefix):
    """An old BatchNorm has no counter; torch sees that from the state_dict's version, which is kept."""
    new = (nn.DataParallel(Net()) if prefix else Net()).state_dict()
    del new[f"{prefix}norm.num_batches_tracked"]
    with pytest.raises(BadContract, match=r"Missing key\(s\).*num_batches_tracked"):
        loaded(tmp_path, new)
    old = prefixed(prefix, without(state, "norm.num_batches_tracked"))
    assert torch.equal(loaded(tmp_path, old).norm.running_var, state["norm.running_var"])


def test_model_without_weights_needs_none(tmp_path):
    """An empty state_dict fits it."""
    assert_same(loaded(tmp_path, {}, nn.ReLU), {})


def without(state, *names: str):
    return {name: tensor for name, tensor in state.items() if name not in names}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda state: without(state, "fc.weight", "fc.bias"), "missing fc.bias, fc.weight"),
        (lambda state: prefixed("module.", without(state, "fc.bias")), "missing fc.bias"),
        (lambda state: state | {"a.b": torch.zeros(1)}, "unexpected a.b"),
        (
            lambda state: prefixed("model.", state) | {"loss.weight": torch.zeros(1)},
            "missing conv.bias, conv.weight, fc.bias and 5 more; unexpected loss.weight, model.conv.bias, .*",
        ),
        (
            lambda state: state | {"fc.weight": torch.zeros(10, 4)},
            r"fc.weight is \(10, 4\) and not \(3, 4\)",
        ),
        (lambda _: {}, "missing conv.bias, conv.weight, fc.bias and 5 more"),
    ],
    ids=["missing", "missing-behind-a-prefix", "unexpected", "prefix-of-some", "shape", "empty"],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, state, change, why):
    """The error names the tensors and says what to save."""
    with pytest.raises(BadContract) as refusal:
        loaded(tmp_path, dict(change(state)))
    assert re.fullmatch(f"w.pth does not fit Net: {why}{FIT}", str(refusal.value))


@pytest.mark.parametrize(
    ("saved", "why"),
    [
        (Net(), rf"Python objects \({__name__}.Net\), whose code would run"),
        ({"model": Net()}, rf"Python objects \({__name__}.Net\), whose code would run"),
        (
            {"state_dict": {}, "args": argparse.Namespace()},
            r"Python objects \(argparse.Namespace\), whose code would run",
        ),
        ({"epoch": 3, "weights": [1], "a": 1, "b": 2}, "epoch, weights, a and 1 more, but no state_dict"),
        ([1, 2], "a list, not a state_dict"),
        (torch.zeros(3), "a Tensor, not a state_dict"),
    ],
    ids=["module", "module-in-a-checkpoint", "arguments", "no-state-dict", "list", "tensor"],
)
def test_file_of_something_else_is_refused(tmp_path, saved, why):
    """Nothing in it runs; the error says what it holds and what to save instead."""
    with pytest.raises(BadContract) as refusal:
        loaded(tmp_path, saved)
    assert re.fullmatch(f"w.pth holds {why}{SAVE}", str(refusal.value))


def test_checkpoint_that_holds_itself_is_refused(tmp_path):
    """The search for a state_dict ends."""
    endless = {}
    endless["model"] = endless
    with pytest.raises(BadContract, match=r"w\.pth holds model, but no state_dict"):
        loaded(tmp_path, endless)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
def test_torchscript_needs_no_class(tmp_path):
    """TorchScript is a program, not just weights."""
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "w.pth")
    with pytest.raises(BadContract, match=f"w.pth holds TorchScript, which needs no class{SAVE}"):
        load_weights(Net(), tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("body", [b"", b"hello", b"PK\x03\x04" + bytes(100)], ids=["empty", "text", "zip"])
def test_damaged_file_is_refused(tmp_path, name, body):
    """The error names the file and the remedy."""
    (tmp_path / name).write_bytes(body)
    with pytest.raises(
        BadContract, match=rf"^{name} cannot be read as weights \(.*\); save [^\n]*'{name}'\)$"
    ):
        load_weights(Net(), tmp_path / name)
