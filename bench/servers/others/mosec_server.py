"""mosec, with its dynamic batches and two workers."""

from typing import Any

from mosec import Server, Worker

from bench.servers.others.classifier import load


class Answer(Worker):
    """Reads and answers a batch of images."""

    def __init__(self) -> None:
        self.classifier = load()

    def deserialize(self, data: bytes) -> Any:
        """Return the image in the body as the model takes it."""
        return self.classifier.read(data)

    def forward(self, data: list[Any]) -> list[str]:
        """Return the digits of a batch."""
        return self.classifier.label(data)

    def serialize(self, data: str) -> bytes:
        """Return the answer's body."""
        return data.encode()


if __name__ == "__main__":
    server = Server()
    server.append_worker(Answer, num=2, max_batch_size=16, max_wait_time=1)
    server.run()
