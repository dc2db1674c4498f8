"""Judges, metrics, benchmark tasks, statistics and reports."""
