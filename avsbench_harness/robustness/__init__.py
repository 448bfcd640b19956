"""Robustness to the audio: conditions under which a trained model predicts, and the metrics of them."""
