"""What this program promises about faults, tried out and counted: python -m tests.scoreboard."""
