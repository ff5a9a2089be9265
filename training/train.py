"""Train ConvNet on MNIST's digits as people send them, and save the weights and the figures of the run.

The model is trained on 55,000 of the 60,000 training images. The other 5,000, as they are and as people may
send them, measure its progress and calibrate its probabilities. The test set is used only after training.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from tqdm import tqdm

from classifier.contract import Contract
from classifier.image.centring import centred
from model.convnet import ConvNet
from training.augmentation import as_sent, distort, negated, prepared, taken
from training.calibration import best_temperature, expected_calibration_error, fold
from training.hands import written
from training.mnist import load_test, load_train
from training.other_digits import written_by_pen
from training.outliers import outliers

MODEL = Path(__file__).parents[1] / "model"
BATCH = 128
# Images without a digit that are added to each batch.
OUTLIERS = 24
WEIGHT_DECAY = 0.02
# The share of the target that is spread over all labels: it keeps the logits small, so that float32 sums in
# another order, as in other runtimes, differ by less.
SMOOTHING = 0.02
SEED = 20
# Processes that make batches. The weights depend on their number: each has random numbers of its own.
MAKERS = 2
# The last 5,000 of the training images are held out.
LEARNED, HELD_OUT = slice(0, 55_000), slice(55_000, 60_000)


@dataclass(frozen=True)
class Stage:
    """A part of the training, with a learning rate that rises and falls once."""

    epochs: int
    plain: int  # images of a batch that are only a little distorted; the others are as people may send them
    often: float  # the share of those others that have each fault
    rate: float  # the highest learning rate
    written: int  # extra digits of each other way of writing (hands.py)
    pens: int  # how often each digit of other_digits.py is written, with another pen each time


# The weights are the mean of the final weights of the later stages.
STAGES = (
    Stage(16, 56, 0.3, 2e-3, 240, 2),
    Stage(4, 64, 0.25, 1e-3, 240, 2),
    Stage(4, 80, 0.25, 1e-3, 240, 2),
    Stage(4, 80, 0.25, 1e-3, 240, 2),
)


@dataclass
class Course:
    """The figures of a training, by epoch; the accuracies are those on the held-out images."""

    loss: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    as_sent: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Labelled:
    """Images float32 (N, 1, 28, 28), 0 black and 1 white, and their labels int64 (N,)."""

    images: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class Material:
    """What a training learns from, and what measures its course."""

    learned: Labelled  # digits like MNIST's
    first: Labelled  # those with the first stage's other hands; the later stages' are written on the way
    held_out: list[Labelled]  # the plain images and those as sent


def main() -> None:
    """Train, then write the weights and, beside them, a JSON file with the figures."""
    arguments = _arguments()
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(mode=True)
    # One thread here and one in the process that makes the batches: the same weights on any number of cores.
    torch.set_num_threads(1)
    contract = Contract.from_file(MODEL / "model-config.yaml")
    side = ink_side(contract)
    images, truth = load_train()
    ink, labels = torch.from_numpy(images[:, None] / np.float32(255)), torch.tensor(truth, dtype=torch.long)
    learned, plain = (Labelled(ink[part], labels[part]) for part in (LEARNED, HELD_OUT))
    first = with_hands(learned, STAGES[0])
    sent = torch.cat([as_sent(some, side) for some in plain.images.split(100)])
    held_out = [plain, Labelled(sent, plain.labels)]
    model, course = fit(Material(learned, first, held_out), contract, STAGES)
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
    print(f"{accuracy:.2%} of the 10,000 test images are classified correctly")
    print(f"wrote {arguments.out} and {figures_path}")


def with_hands(learned: Labelled, stage: Stage) -> Labelled:
    """Return the digits, followed by those that the stage's other hands have written."""
    more = [written(stage.written)]
    if stage.pens:
        more.append(written_by_pen(stage.pens))
    images, labels = (
        torch.cat([first, *others])
        for first, others in zip((learned.images, learned.labels), zip(*more, strict=True), strict=True)
    )
    return Labelled(images, labels)


def ink_side(contract: Contract) -> int:
    """Return how many pixels long a drawing is. Raises ValueError if the contract does not say."""
    if contract.ink is None:
        raise ValueError("training needs a contract with input.ink")
    return contract.ink


def fit(material: Material, contract: Contract, stages: Sequence[Stage]) -> tuple[ConvNet, Course]:
    """Train stage by stage; return the model and its course."""
    # No dropout: endless variants cannot be memorised, and the small network needs all its capacity.
    # With channels last, training takes a fifth less time.
    model = ConvNet().eval().to(memory_format=torch.channels_last)
    course, ends = Course(), []
    for number, stage in enumerate(stages):
        if number:  # with its own seed, so that a stage can be repeated alone
            torch.manual_seed(SEED + number)
        digits = with_hands(material.learned, stage) if number else material.first
        for loss in epochs_of(stage, model, digits, contract):
            course.loss.append(loss)
            for part, accuracies in zip(material.held_out, (course.plain, course.as_sent), strict=True):
                accuracies.append(accuracy_of(model, part, contract))
        ends.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    model.load_state_dict(mean_of(ends[1:]))
    return model.to(memory_format=torch.contiguous_format), course


def mean_of(ends: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Return the mean of the stages' final weights: each stage has errors of its own.

    (Wortsman et al., Model soups: averaging weights of multiple fine-tuned models, 2022.)
    """
    return {name: torch.stack([end[name] for end in ends]).mean(dim=0) for name in ends[0]}


def epochs_of(stage: Stage, model: ConvNet, learned: Labelled, contract: Contract) -> Iterator[float]:
    """Train for one stage; yield each epoch's mean loss at its end."""
    optimizer = torch.optim.AdamW(model.parameters(), stage.rate, weight_decay=WEIGHT_DECAY)
    batches = Batches(learned, contract, stage)
    steps = stage.epochs * len(batches)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, stage.rate, total_steps=steps)
    losses: list[float] = []
    # Separate processes make the next batches during a training step.
    loader = DataLoader(batches, batch_size=None, num_workers=MAKERS, prefetch_factor=4)
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
    """All batches of a stage; each process that makes them takes its share, in turn."""

    def __init__(self, learned: Labelled, contract: Contract, stage: Stage) -> None:
        self.learned, self.contract, self.stage = learned, contract, stage
        self.order = torch.Generator().manual_seed(int(torch.randint(2**31, ())))

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self.learned.labels) // BATCH

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        maker = get_worker_info()
        makers, place = (maker.num_workers, maker.id) if maker else (1, 0)
        for chosen in islice(self._chosen(), place, None, makers):
            digits, labels = self.learned.images[chosen], self.learned.labels[chosen]
            yield varied(digits, labels, self.contract, self.stage)

    def _chosen(self) -> Iterator[torch.Tensor]:
        """Yield the places of each batch's digits, the same in all processes."""
        for _ in range(self.stage.epochs):
            places = torch.randperm(len(self.learned.labels), generator=self.order)
            yield from places[: len(self) * BATCH].split(BATCH)


def varied(
    digits: torch.Tensor, labels: torch.Tensor, contract: Contract, stage: Stage
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images (M, 1, 28, 28) made from a batch of digits, and their targets (M, labels).

    M exceeds the number of digits: images without a digit are added, whose target is the same for all labels.
    """
    side = ink_side(contract)
    plain = distort(digits[: stage.plain])
    # Half of these are learned where distort() moved them. Weights from a run that prepared all of them read
    # other people's digits worse: 96 % of scikit-learn's instead of 98.
    half = len(plain) // 2
    files = prepared(negated(plain[half:]).clamp(0, 1), side)
    sent = as_sent(digits[stage.plain :], side, stage.often)
    no_digits = prepared(taken(outliers(digits[:OUTLIERS])), side)
    images = torch.cat([plain[:half], files, sent, no_digits])
    columns = len(contract.labels)
    truth = torch.full((len(images), columns), 1 / columns)
    truth[: len(labels)] = (1 - SMOOTHING) * F.one_hot(labels, columns) + SMOOTHING / columns
    return images, truth


def calibrate(model: ConvNet, held_out: list[Labelled], contract: Contract) -> float:
    """Fit the probabilities to the held-out images; return the temperature."""
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
    """Return the share of correct answers."""
    return float((outputs_of(model, part, contract).argmax(dim=1) == part.labels).double().mean())


def on_test_set(model: ConvNet, contract: Contract) -> tuple[float, float]:
    """Return the accuracy on MNIST's 10,000 test images, and the expected calibration error."""
    images, labels = load_test()
    with torch.inference_mode():
        outputs = model(torch.from_numpy(as_served(images, contract))).numpy()
    right = outputs.argmax(axis=1) == labels
    return float(np.mean(right)), expected_calibration_error(np.exp(outputs.max(axis=1)), right)


def as_served(images: np.ndarray, contract: Contract) -> np.ndarray:
    """Return what the handler makes of uint8 images (N, H, W): float32 (N, 1, 28, 28), normalized."""
    size, side = (contract.width, contract.height), ink_side(contract)
    pixels = [centred(Image.fromarray(image), size, side) for image in images]
    return contract.normalize(np.stack(pixels)[..., None])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=MODEL / "convnet.pth", help="the state_dict")
    return parser.parse_args()


if __name__ == "__main__":
    main()
