"""A handler as in TorchServe's documentation and many blogs: torchvision's transforms, eager."""

import io

import torch
import yaml
from PIL import Image
from torchvision import transforms
from ts.torch_handler.base_handler import BaseHandler

CONTRACT = "plain.yaml"  # beside it in the archive; those hard-code the numbers


class PlainHandler(BaseHandler):
    """Decodes, transforms, stacks, answers."""

    def initialize(self, context):
        """Load the model as BaseHandler does, and the transforms."""
        super().initialize(context)
        with open(f"{context.system_properties['model_dir']}/{CONTRACT}") as file:
            spec = yaml.safe_load(file)["input"]
        self.transform = transforms.Compose(
            [
                transforms.Grayscale(),
                transforms.Resize(spec["size"]),
                transforms.ToTensor(),
                transforms.Normalize(spec["mean"], spec["std"]),
            ]
        )

    def preprocess(self, data):
        """Return the batch as a tensor."""
        bodies = [row.get("data") or row.get("body") for row in data]
        return torch.stack([self.transform(Image.open(io.BytesIO(body))) for body in bodies]).to(self.device)

    def postprocess(self, data):
        """Return the digits."""
        return [str(digit) for digit in data.argmax(1).tolist()]
