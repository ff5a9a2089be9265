"""Load weights in the forms that TorchServe's own handler does not know, and call any of them alike."""

from __future__ import annotations

from typing import Any

import torch

SAFETENSORS = ".safetensors"


def load_safetensors(model: torch.nn.Module, path: str) -> torch.nn.Module:
    """Fill a model from a safetensors file: tensors alone, nothing in it can run."""
    # Only where an archive has such weights.
    from safetensors.torch import load_file

    model.load_state_dict(load_file(path))
    return model


def as_module(model: Any) -> Any:
    """Return something that maps a tensor to a tensor: ONNX Runtime's sessions do not, by themselves."""
    return OnnxModule(model) if hasattr(model, "get_inputs") else model


class OnnxModule(torch.nn.Module):
    """An ONNX Runtime session of one input and one output, called as a module is."""

    def __init__(self, session: Any) -> None:
        super().__init__()
        self.session = session
        self.input = session.get_inputs()[0].name

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the session's first output for a float32 batch (N, C, H, W)."""
        return torch.from_numpy(self.session.run(None, {self.input: batch.cpu().numpy()})[0])
