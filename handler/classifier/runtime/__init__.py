"""The runtimes that compute a model's outputs."""

# Of a model's file that ONNX Runtime runs as it is.
ONNX_SUFFIX = ".onnx"
# The members of an archive that hold its model in an exported form, by runtime.
MEMBERS = {"torchscript": "runtime.pt", "onnx": "runtime.onnx", "aoti": "runtime.pt2"}
