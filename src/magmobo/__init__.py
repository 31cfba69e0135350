"""MagMoBo: a self-hosted backend kernel for Python teams: REST and gap-free realtime over any Postgres.

The folders are the architecture; `docs/architecture.md` walks through them in the order data flows.
"""

__version__ = "0.1.0"
