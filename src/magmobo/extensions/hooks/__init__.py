"""What runs at a hook point: bindings in chains, breakers, the router that puts chains into points."""
