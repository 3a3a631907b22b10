"""From a trained student to small files that run without torch: ONNX export and static INT8."""
