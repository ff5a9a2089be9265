"""Train ConvNet on MNIST and save the weights with the figures of the run.

The test set is only looked at when training is over: no epoch and no setting is chosen by it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from contract import Contract
from convnet import ConvNet
from mnist import load_test, load_train

HERE = Path(__file__).parent
EPOCHS = 30
BATCH = 128
PEAK_LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.02
SEED = 20
# How far a training picture may be turned, sheared, scaled and moved: what handwriting itself varies.
MAX_ANGLE = 12.0   # degrees
MAX_SHEAR = 0.15   # as a tangent
MAX_SCALE = 0.12   # relative
MAX_SHIFT = 0.14   # of half the side: two pixels


def main() -> None:
    """Train, then write the weights and, beside them, a JSON file with the figures."""
    arguments = _arguments()
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(mode=True)
    contract = Contract.from_file(HERE / "model-config.yaml")
    images, labels = (torch.from_numpy(a.copy()) for a in load_train())
    model, losses = fit(images, labels.long(), contract, arguments.epochs)
    torch.save(model.state_dict(), arguments.out)
    accuracy = accuracy_on_test_set(model, contract)
    figures = {
        "test_accuracy": accuracy,
        "epochs": arguments.epochs,
        "seed": SEED,
        "training_images": len(images),
        "training_loss_per_epoch": [round(loss, 5) for loss in losses],
        "torch": torch.__version__.split("+")[0],
        "threads": torch.get_num_threads(),
    }
    figures_path = arguments.out.with_suffix(".json")
    figures_path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(f"{accuracy:.2%} of the 10,000 test images are right")
    print(f"wrote {arguments.out} and {figures_path}")


def fit(
    images: torch.Tensor, labels: torch.Tensor, contract: Contract, epochs: int
) -> tuple[ConvNet, list[float]]:
    """Train on uint8 images (N, 28, 28) and labels (N,); return the model and each epoch's loss."""
    model = ConvNet()
    optimizer = torch.optim.AdamW(model.parameters(), PEAK_LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = epochs * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)
    losses = []
    with tqdm(total=steps, unit="batch") as bar:
        for epoch in range(epochs):
            total = 0.0
            for chosen in torch.randperm(len(images)).split(BATCH):
                batch = normalize(distort(images[chosen, None] / 255), contract)
                loss = F.nll_loss(model(batch), labels[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.item() * len(chosen)
                bar.update()
            losses.append(total / len(images))
            bar.set_postfix(epoch=epoch + 1, loss=f"{losses[-1]:.4f}")
    return model.eval(), losses


def distort(images: torch.Tensor) -> torch.Tensor:
    """Turn, shear, scale and move each of the images (N, 1, H, W) at random; black comes in."""
    count = len(images)

    def uniform(limit: float) -> torch.Tensor:
        return (torch.rand(count) * 2 - 1) * limit

    angle = torch.deg2rad(uniform(MAX_ANGLE))
    cos, sin = torch.cos(angle), torch.sin(angle)
    shear = uniform(MAX_SHEAR)
    across, down = 1 + uniform(MAX_SCALE), 1 + uniform(MAX_SCALE)
    matrix = torch.stack(
        [
            torch.stack([across * cos, shear - sin, uniform(MAX_SHIFT)], dim=1),
            torch.stack([sin, down * cos, uniform(MAX_SHIFT)], dim=1),
        ],
        dim=1,
    )  # (N, 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def normalize(images: torch.Tensor, contract: Contract) -> torch.Tensor:
    """Scale images (N, C, H, W) from 0..1 by the contract's mean and standard deviation."""
    mean = torch.tensor(contract.mean).view(-1, 1, 1)
    return (images - mean) / torch.tensor(contract.std).view(-1, 1, 1)


def accuracy_on_test_set(model: ConvNet, contract: Contract) -> float:
    """Return the share of MNIST's 10,000 test images that the model gets right."""
    images, labels = load_test()
    with torch.inference_mode():
        answers = model(torch.from_numpy(contract.normalize(images[..., None]))).argmax(dim=1)
    return float(np.mean(answers.numpy() == labels))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--out", type=Path, default=HERE / "convnet.pth", help="the state_dict")
    return parser.parse_args()


if __name__ == "__main__":
    main()
