"""Errors of guests, codes MAG-DS-070 to 079."""

from __future__ import annotations

from magmobo.components.magds.errors import StorageError
from magmobo.contracts.planes import TableName


class GuestsRefused(StorageError):
    """This database does not let the node give code of others a login role and a schema of its own."""

    code = "MAG-DS-070"
    http_status = 503
    remedy = "Run the statement that is named with this error, as the role it names."

    def __init__(self, reason: str, step: str) -> None:
        super().__init__(reason, step)
        self.reason, self.step = reason, step

    def __str__(self) -> str:
        return f"no login roles for extensions in this database: {self.reason}"

    def next_step(self) -> str:
        return self.step


class GuestUnknown(StorageError):
    """There is no storage of that name: it was never made, or it was dropped."""

    code = "MAG-DS-071"
    http_status = 404
    remedy = "`mag extension:show ID` tells whether the extension has storage; approve what it asks for."

    def __init__(self, guest: str) -> None:
        super().__init__(guest)
        self.guest = guest

    def __str__(self) -> str:
        return f'there is no storage for "{self.guest}"'


class GuestRightRefused(StorageError):
    """A right on a table that cannot be given, or not be taken back; no right was changed."""

    code = "MAG-DS-072"
    http_status = 422
    remedy = "Name a table of yours, and rights that the node's login role may give."

    def __init__(self, table: TableName, reason: str, step: str = "") -> None:
        super().__init__(table, reason, step)
        self.table, self.reason, self.step = table, reason, step

    def __str__(self) -> str:
        return f"rights on {self.table}: {self.reason}"

    def next_step(self) -> str:
        return self.step or self.remedy


class GuestInUse(StorageError):
    """Something of others depends on the role or the schema that should go; nothing was removed."""

    code = "MAG-DS-073"
    http_status = 409
    remedy = "Drop what is named first, or uninstall without deleting data."

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(what, reason)
        self.what, self.reason = what, reason

    def __str__(self) -> str:
        return f"{self.what} cannot be removed: {self.reason}"
