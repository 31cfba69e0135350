"""What hooks are run by, one at a time, and why a component does not run."""
