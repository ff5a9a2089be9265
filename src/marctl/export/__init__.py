"""Exports of an archive's model to TorchScript, ONNX, TensorFlow and AOTInductor."""
