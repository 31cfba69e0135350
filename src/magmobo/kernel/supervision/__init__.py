"""What the supervision of components is made of: its errors, the restart budget, one hook at a time."""
