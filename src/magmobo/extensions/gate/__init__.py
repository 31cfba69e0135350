"""Who decides what an extension may do, and what is on record about it."""
