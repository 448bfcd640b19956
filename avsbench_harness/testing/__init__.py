"""Test suite and deterministic test data for method plugins."""
