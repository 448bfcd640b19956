"""Leaderboards: tables from records, as Markdown, CSV, LaTeX and a static HTML site."""
