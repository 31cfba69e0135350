"""Who may do what: the capability gate. Boundary: it decides and counts; who asks and what is recorded is others'."""
