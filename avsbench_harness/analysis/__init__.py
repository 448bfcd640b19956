"""Plots of results, and projections of audio tokens of trained models."""
