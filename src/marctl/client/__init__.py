"""The Python client. It needs httpx, tenacity and the files in this folder, nothing else of this project.

    from marctl.client import Client

    with Client("http://127.0.0.1:8080") as client:
        print(client.predict("tests/images/2.png").label)

All imports are relative, so a copy of this folder works under any name.
"""

from .client import AsyncClient, Client
from .errors import (
    Answered,
    BadImage,
    BadSetting,
    ClientError,
    NoPrediction,
    NotAllowed,
    Refused,
    TooSlow,
    Unavailable,
    Unreachable,
)
from .prediction import Candidate, Explanation, Model, Prediction
from .retries import Retries

__all__ = [
    "Answered",
    "AsyncClient",
    "BadImage",
    "BadSetting",
    "Candidate",
    "Client",
    "ClientError",
    "Explanation",
    "Model",
    "NoPrediction",
    "NotAllowed",
    "Prediction",
    "Refused",
    "Retries",
    "TooSlow",
    "Unavailable",
    "Unreachable",
]
