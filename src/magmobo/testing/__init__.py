"""What projects import to test on MagMoBo: a real Postgres for a session, a fresh database for a test, a whole node."""
