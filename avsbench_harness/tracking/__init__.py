"""Logs of a training: one interface, the JSON log, TensorBoard, Weights & Biases and Trackio."""
