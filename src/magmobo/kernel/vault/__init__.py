"""MagVault: secrets by name and version, in a sealed file of the data folder or on a server."""
