"""Flask as its documentation deploys it: behind gunicorn. `gunicorn flask_server:app`."""

from classifier import load
from flask import Flask, request

app = Flask(__name__)
classifier = load()


@app.put("/predict")
def predict() -> str:
    """Answer the picture in the body by its digit."""
    return classifier.label([classifier.read(request.get_data())])[0]
