"""Storage for code that is not ours: login roles with a schema each. See `contracts.guests`."""
