"""Leaderboards from run records: tables, Markdown, LaTeX and the HTML site."""
