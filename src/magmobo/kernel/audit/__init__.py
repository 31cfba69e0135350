"""The tamper-evident audit log of a node: one writer, a hash chain, signed checkpoints, an offline judge."""
