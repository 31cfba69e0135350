"""Demos: real data and a small schema of our own, for the first minute and for tests.

Boundary: creates only tables and roles it marks as its own with a comment, and refuses to touch any other. Nothing here
runs unless `mag up --demo` asks for it.
"""
