"""Does nothing that it should not. Packages that lie are made of it, and others are measured beside it."""

from magx import Extension

ext = Extension()


@ext.command("hello")
def hello() -> str:
    """Say that it is there."""
    return "hello"
