"""Train ConvNet on MNIST's digits as people send them, and save the weights with the figures of the run.

55,000 of the 60,000 training images are learned from. The other 5,000 say, as they are and as people may
send them, how it goes and how sure the model should be. The test set is looked at when training is over.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset
from tqdm import tqdm

from classifier.contract import Contract
from model.convnet import ConvNet
from training.augmentation import as_sent, distort, negated, taken
from training.calibration import best_temperature, expected_calibration_error, fold
from training.hands import written
from training.mnist import load_test, load_train
from training.outliers import outliers

MODEL = Path(__file__).parents[1] / "model"
BATCH = 128
# So many images without a digit come with each batch.
OUTLIERS = 12
WEIGHT_DECAY = 0.02
# The share of the truth that is given to all labels alike: it keeps the logits small, so that float32 sums in
# another order, in other runtimes, differ by less.
SMOOTHING = 0.02
SEED = 20
# The last 5,000 of the training images are held out.
LEARNED, HELD_OUT = slice(0, 55_000), slice(55_000, 60_000)


@dataclass(frozen=True)
class Stage:
    """A part of the training, with a learning rate that rises and falls once."""

    epochs: int
    plain: int  # of a batch: MNIST's own, but a little distorted; the others are as anybody may send them
    often: float  # the share of those others that have each of the faults
    rate: float  # the highest
    written: int  # of each other way of writing (hands.py), so many digits are learned from besides
    hands: int  # and so many of the ways


# The last ways of writing were drawn when the first stage had been measured. The weights are the mean of
# those with which the later stages end, which have seen all ways.
STAGES = (
    Stage(36, 56, 0.3, 2e-3, 240, 29),
    Stage(9, 64, 0.25, 1e-3, 480, 40),
    Stage(9, 80, 0.25, 1e-3, 480, 40),
    Stage(9, 80, 0.25, 1e-3, 480, 40),
)


@dataclass
class Course:
    """What a training went through, epoch by epoch; the accuracies are of the images held out."""

    loss: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    as_sent: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Labelled:
    """Images float32 (N, 1, 28, 28), 0 black and 1 white, and their labels int64 (N,)."""

    images: torch.Tensor
    labels: torch.Tensor


def main() -> None:
    """Train, then write the weights and, beside them, a JSON file with the figures."""
    arguments = _arguments()
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(mode=True)
    # One here and one in the process that makes the batches: the same weights on any number of cores.
    torch.set_num_threads(1)
    contract = Contract.from_file(MODEL / "model-config.yaml")
    images, truth = load_train()
    ink, labels = torch.from_numpy(images[:, None] / np.float32(255)), torch.tensor(truth, dtype=torch.long)
    learned, plain = (Labelled(ink[part], labels[part]) for part in (LEARNED, HELD_OUT))
    first = with_hands(learned, STAGES[0])
    sent = torch.cat([as_sent(some) for some in plain.images.split(100)])
    held_out = [plain, Labelled(sent, plain.labels)]
    model, course = fit(learned, first, held_out, contract, STAGES)
    temperature = calibrate(model, held_out, contract)
    torch.save(model.state_dict(), arguments.out)
    accuracy, calibration_error = on_test_set(model, contract)
    figures = {
        "test_accuracy": accuracy,
        "test_calibration_error": round(calibration_error, 5),
        "epochs": sum(stage.epochs for stage in STAGES),
        "seed": SEED,
        "training_images": len(learned.labels),
        "validation_images": len(plain.labels),
        "temperature": round(temperature, 4),
        "validation_accuracy_per_epoch": course.plain,
        "validation_accuracy_as_sent_per_epoch": course.as_sent,
        "torch": torch.__version__.split("+")[0],
        "threads": torch.get_num_threads(),
    }
    figures_path = arguments.out.with_suffix(".json")
    figures_path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(f"{accuracy:.2%} of the 10,000 test images are right")
    print(f"wrote {arguments.out} and {figures_path}")


def with_hands(learned: Labelled, stage: Stage) -> Labelled:
    """Return the digits, and behind them those that the stage's other hands have written."""
    images, labels = written(stage.written, stage.hands)
    return Labelled(torch.cat([learned.images, images]), torch.cat([learned.labels, labels]))


def fit(
    learned: Labelled, first: Labelled, held_out: list[Labelled], contract: Contract, stages: Sequence[Stage]
) -> tuple[ConvNet, Course]:
    """Train on digits as MNIST has them, stage by stage; return the model and its course.

    `first` are those digits with the first stage's other hands; the later stages' are written here.
    `held_out` are the plain images and those as sent, by which the course, and nothing else, is measured.
    """
    # Without dropout: of endless variants none is learned by heart, and the small network needs all it has.
    # The channels come last while it trains: a fifth of the time less.
    model = ConvNet().eval().to(memory_format=torch.channels_last)
    course, ends = Course(), []
    for number, stage in enumerate(stages):
        if number:  # from a seed of its own, so that it can be repeated alone
            torch.manual_seed(SEED + number)
        digits = with_hands(learned, stage) if number else first
        for loss in epochs_of(stage, model, digits, contract):
            course.loss.append(loss)
            for part, accuracies in zip(held_out, (course.plain, course.as_sent), strict=True):
                accuracies.append(accuracy_of(model, part, contract))
        ends.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    model.load_state_dict(mean_of(ends[1:]))
    return model.to(memory_format=torch.contiguous_format), course


def mean_of(ends: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Return the mean of the weights with which stages ended: the errors of each are its own.

    (Wortsman et al., Model soups: averaging weights of multiple fine-tuned models, 2022.)
    """
    return {name: torch.stack([end[name] for end in ends]).mean(dim=0) for name in ends[0]}


def epochs_of(stage: Stage, model: ConvNet, learned: Labelled, contract: Contract) -> Iterator[float]:
    """Train for one stage; yield the mean loss of each epoch when it is over."""
    optimizer = torch.optim.AdamW(model.parameters(), stage.rate, weight_decay=WEIGHT_DECAY)
    batches = Batches(learned, contract, stage)
    steps = stage.epochs * len(batches)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, stage.rate, total_steps=steps)
    losses: list[float] = []
    # A process of its own makes the next batches while one is learned from.
    loader = DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=4)
    for images, truth in tqdm(loader, total=steps, unit="batch", mininterval=1):
        loss = F.cross_entropy(model(normalize(images, contract)), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if len(losses) == len(batches):
            yield sum(losses) / len(losses)
            losses = []


class Batches(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """All batches of a stage, by the random numbers of the process that makes them."""

    def __init__(self, learned: Labelled, contract: Contract, stage: Stage) -> None:
        self.learned, self.contract, self.stage = learned, contract, stage

    def __len__(self) -> int:
        """Return how many an epoch has."""
        return len(self.learned.labels) // BATCH

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for _ in range(self.stage.epochs):
            for chosen in torch.randperm(len(self.learned.labels))[: len(self) * BATCH].split(BATCH):
                digits, labels = self.learned.images[chosen], self.learned.labels[chosen]
                yield varied(digits, labels, self.contract, self.stage)


def varied(
    digits: torch.Tensor, labels: torch.Tensor, contract: Contract, stage: Stage
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images (M, 1, 28, 28) that a batch of digits becomes, and their truth (M, labels).

    M is more than the digits: what holds no digit comes with them; its truth is that all labels are alike.
    """
    plain = distort(digits[: stage.plain])
    half = len(plain) // 2
    sent, no_digits = as_sent(digits[stage.plain :], stage.often), taken(outliers(digits[:OUTLIERS]))
    images = torch.cat([plain[:half], negated(plain[half:]), sent, no_digits])
    columns = len(contract.labels)
    truth = torch.full((len(images), columns), 1 / columns)
    truth[: len(labels)] = (1 - SMOOTHING) * F.one_hot(labels, columns) + SMOOTHING / columns
    return images, truth


def calibrate(model: ConvNet, held_out: list[Labelled], contract: Contract) -> float:
    """Make the probabilities those that fit the images held out; return the temperature."""
    outputs = torch.cat([outputs_of(model, part, contract) for part in held_out])
    temperature = best_temperature(outputs, torch.cat([part.labels for part in held_out]))
    fold(temperature, model.fc2)
    return temperature


def normalize(images: torch.Tensor, contract: Contract) -> torch.Tensor:
    """Scale images (N, C, H, W) from 0..1 by the contract's mean and standard deviation."""
    mean = torch.tensor(contract.mean).view(-1, 1, 1)
    return (images - mean) / torch.tensor(contract.std).view(-1, 1, 1)


def outputs_of(model: ConvNet, part: Labelled, contract: Contract) -> torch.Tensor:
    """Return the log-probabilities (N, labels)."""
    with torch.inference_mode():
        return torch.cat([model(normalize(some, contract)) for some in part.images.split(1000)])


def accuracy_of(model: ConvNet, part: Labelled, contract: Contract) -> float:
    """Return the share of right answers."""
    return float((outputs_of(model, part, contract).argmax(dim=1) == part.labels).double().mean())


def on_test_set(model: ConvNet, contract: Contract) -> tuple[float, float]:
    """Return the share of MNIST's 10,000 test images that are right, and the expected calibration error."""
    images, labels = load_test()
    with torch.inference_mode():
        outputs = model(torch.from_numpy(contract.normalize(images[..., None]))).numpy()
    right = outputs.argmax(axis=1) == labels
    return float(np.mean(right)), expected_calibration_error(np.exp(outputs.max(axis=1)), right)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=MODEL / "convnet.pth", help="the state_dict")
    return parser.parse_args()


if __name__ == "__main__":
    main()
