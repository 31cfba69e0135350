"""The migration runner. See `contracts.guests`."""
