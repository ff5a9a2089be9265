"""MLServer, with a runtime of our own, its adaptive batches and two workers; images come as V2's base64."""

import argparse
import asyncio
import tempfile
from pathlib import Path

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import Base64Codec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

from bench.servers.others.classifier import load


class Digits(MLModel):
    """Reads and answers a batch of images."""

    async def load(self) -> bool:
        """Load the model, in a worker."""
        self.classifier = load()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return the digits of a batch."""
        images = [self.classifier.read(image) for image in Base64Codec.decode_input(payload.inputs[0])]
        digits = StringCodec.encode_output("digit", self.classifier.label(images))
        return InferenceResponse(model_name=self.name, outputs=[digits])


async def main(port: int, folder: Path) -> None:
    """Serve until a signal ends it; the workers' files go into the folder."""
    settings = Settings(
        host="127.0.0.1",
        http_port=port,
        grpc_port=0,  # MLServer always opens one: any that is free
        metrics_endpoint=None,
        metrics_dir=str(folder / "metrics"),
        environments_dir=str(folder / "environments"),
        parallel_workers=2,
        debug=False,  # its default, True, writes a line for each request
    )
    model = ModelSettings(
        name="digits", implementation="bench.servers.others.mlserver_model.Digits",
        max_batch_size=16, max_batch_time=0.001,
    )  # fmt: skip
    await MLServer(settings).start([model])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(parser.parse_args().port, Path(folder)))
