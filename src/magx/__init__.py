"""The SDK an extension imports. It depends on msgspec alone and never on `magmobo`.

Boundary: an extension runs in another process, so nothing here may hold a connection, a secret or a kernel object.
"""
