"""Ray Serve, with its dynamic batches and two replicas, behind HAProxy as in its high-throughput guide.

Ray reads RAY_SERVE_ENABLE_HA_PROXY=1 and RAY_SERVE_THROUGHPUT_OPTIMIZED=1 when it is imported:
set them before.
"""

import argparse
import os
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from bench.servers.others.classifier import load


@serve.deployment(num_replicas=2, max_ongoing_requests=32)
class Digits:
    """Reads each image, answers a batch of them."""

    def __init__(self) -> None:
        self.classifier = load()

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.001)
    async def label(self, images: list[Any]) -> list[str]:
        """Return the digits of a batch."""
        return self.classifier.label(images)

    async def __call__(self, request: Request) -> str:
        """Answer the image in the body with its digit."""
        return await self.label(self.classifier.read(await request.body()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1")
    # Given twice: the first is for the proxy; the replicas only use the second.
    logging = {"enable_access_log": False, "log_level": "WARNING"}
    serve.start(http_options={"host": "127.0.0.1", "port": parser.parse_args().port}, logging_config=logging)
    serve.run(Digits.bind(), blocking=True, route_prefix="/predict", logging_config=logging)
