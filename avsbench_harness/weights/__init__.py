"""Weights files: readers, the store of pretrained weights, and published weights."""
