"""Secrets out of files that others wrote: `.env`, age, SOPS."""

from magmobo.admin.secret_files.reading import read_secret_file

__all__ = ["read_secret_file"]
