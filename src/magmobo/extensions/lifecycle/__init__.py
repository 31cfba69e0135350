"""Which extensions are there, in which version, what they may do, and how they come, change and go."""
