"""The runtimes that compute a model's outputs."""

# The members of an archive that hold its model in another form than class and weights, by the runtime.
MEMBERS = {"torchscript": "runtime.pt", "onnx": "runtime.onnx", "aoti": "runtime.pt2"}
