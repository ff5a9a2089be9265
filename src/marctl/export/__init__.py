"""The model of an archive as TorchScript, ONNX, TensorFlow and AOTInductor."""
