"""Flask as its documentation deploys it: `gunicorn bench.servers.others.flask_server:app`."""

from flask import Flask, request

from bench.servers.others.classifier import load

app = Flask(__name__)
classifier = load()


@app.put("/predict")
def predict() -> str:
    """Answer the image in the body with its digit."""
    return classifier.label([classifier.read(request.get_data())])[0]
