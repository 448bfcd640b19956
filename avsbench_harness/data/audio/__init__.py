"""Recordings to log-mel examples, and source separation."""
