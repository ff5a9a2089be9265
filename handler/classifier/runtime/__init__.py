"""The runtimes that compute a model's outputs."""

# The members of an archive that hold its model in an exported form, by runtime.
MEMBERS = {"torchscript": "runtime.pt", "onnx": "runtime.onnx", "aoti": "runtime.pt2"}
