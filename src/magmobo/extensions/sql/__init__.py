"""SQL of extensions: what may run, and running it as the extension's own role."""
