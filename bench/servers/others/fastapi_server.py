"""FastAPI as its documentation deploys it: `uvicorn bench.servers.others.fastapi_server:app`."""

from fastapi import Body, FastAPI
from fastapi.responses import PlainTextResponse

from bench.servers.others.classifier import load

app = FastAPI()
classifier = load()


# Not async: FastAPI then runs it in a thread, as its documentation advises for code that computes.
@app.put("/predict", response_class=PlainTextResponse)
def predict(image: bytes = Body(media_type="application/octet-stream")) -> str:
    """Answer the image in the body with its digit."""
    return classifier.label([classifier.read(image)])[0]
