"""The papers' ablation tables, measured vs. reported."""
