"""The network, alone in its file: TorchServe loads the only class it finds here."""

import torch
from torch import nn
from torch.nn import functional as F


class ConvNet(nn.Module):
    """Classify one handwritten digit.

    Input:  float32 (N, 1, 28, 28), normalised as model-config.yaml says.
    Output: float32 (N, 10) log-probabilities, one column per digit.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cn1 = nn.Conv2d(1, 16, kernel_size=3)
        self.cn2 = nn.Conv2d(16, 32, kernel_size=3)
        self.dp1 = nn.Dropout2d(0.10)
        # Not Dropout2d, which warns on flat input. Neither has parameters, so older weights still load.
        self.dp2 = nn.Dropout(0.25)
        self.fc1 = nn.Linear(32 * 12 * 12, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities (N, 10) for a batch (N, 1, 28, 28)."""
        x = F.relu(self.cn1(x))  # (N, 16, 26, 26)
        x = F.relu(self.cn2(x))  # (N, 32, 24, 24)
        x = self.dp1(F.max_pool2d(x, 2))  # (N, 32, 12, 12)
        x = torch.flatten(x, 1)  # (N, 4608)
        x = self.dp2(F.relu(self.fc1(x)))  # (N, 64)
        return F.log_softmax(self.fc2(x), dim=1)
