"""Videos: decoding, windows of a task's length, overlays, and masks as run lengths. Imports no torch."""
