"""Partition logs in SQLite databases, one for each log. Nothing here knows the kernel or another plugin."""
