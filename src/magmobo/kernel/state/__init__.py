"""Durable state: keys and values by owner, in one SQLite file."""
