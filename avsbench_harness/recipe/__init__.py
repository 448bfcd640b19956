"""Training recipes: their schema, presets and overrides. Imports no torch."""
