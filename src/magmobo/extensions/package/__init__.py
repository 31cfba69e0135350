"""What an author ships: the manifest, the signed package, versions, trusted keys. Nothing of it is executed here."""
