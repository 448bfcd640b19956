"""Ablation tables of the papers, measured vs. reported."""
