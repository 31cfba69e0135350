"""The planes; each is a package with `component.py` as its door. They never import each other."""
