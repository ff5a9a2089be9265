"""FastAPI as its documentation deploys it: by uvicorn. `uvicorn fastapi_server:app`."""

from classifier import load
from fastapi import Body, FastAPI
from fastapi.responses import PlainTextResponse

app = FastAPI()
classifier = load()


# Not async: FastAPI then runs it in a thread, as its documentation advises for what computes.
@app.put("/predict", response_class=PlainTextResponse)
def predict(picture: bytes = Body(media_type="application/octet-stream")) -> str:
    """Answer the picture in the body by its digit."""
    return classifier.label([classifier.read(picture)])[0]
