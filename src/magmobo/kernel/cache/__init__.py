"""The cache: bytes by owner, tenant and key, in memory and in Redis behind it."""
