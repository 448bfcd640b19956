"""Competitions: participants, submissions with hidden labels, public and private leaderboards."""
