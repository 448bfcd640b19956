"""Run records -> leaderboards."""
