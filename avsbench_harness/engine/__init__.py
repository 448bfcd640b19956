"""Training and prediction of one run."""
