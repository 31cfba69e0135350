"""What MagGate refuses, one class and one code each, with the PostgREST code its clients look for.

Tree: `GateError` < start (001-008), identity (009-019), request (020-039), names (040-049), database (050-059).
Boundary: facts and texts only; `problem` turns them into responses.
Source: PostgREST's error reference for the PGRST codes and their HTTP status.
"""

from magmobo.components.maggate.errors.base import (
    AnonymousRoleRefused,
    GateError,
    JwtSettingsRefused,
)
from magmobo.components.maggate.errors.database import (
    Conflict,
    DatabaseBusy,
    DatabaseRefused,
    PermissionDenied,
    ReadOnly,
    StatementTimeout,
    UnexpectedFailure,
    ValueRefused,
)
from magmobo.components.maggate.errors.identity import (
    IdentityError,
    RoleRefused,
    TokenExpired,
    TokenForged,
    TokenForOthers,
    TokenMalformed,
    TokenMissing,
    TokenNotYetValid,
    TokenUnverifiable,
)
from magmobo.components.maggate.errors.names import (
    AmbiguousRelationship,
    NotEmbedded,
    UnknownColumn,
    UnknownRelationship,
    UnknownTable,
)
from magmobo.components.maggate.errors.request import (
    BodyTooLarge,
    InvalidBody,
    InvalidPath,
    InvalidPreference,
    InvalidQuery,
    MethodNotAllowed,
    NotAcceptable,
    NotSingular,
    RangeNotSatisfiable,
    RequestRateLimited,
    SchemaNotExposed,
    TooManyAffected,
    TooMuch,
    UnfilteredWrite,
    UnsupportedMediaType,
    UrlTooLong,
)

__all__ = [
    "AmbiguousRelationship",
    "AnonymousRoleRefused",
    "BodyTooLarge",
    "Conflict",
    "DatabaseBusy",
    "DatabaseRefused",
    "GateError",
    "IdentityError",
    "InvalidBody",
    "InvalidPath",
    "InvalidPreference",
    "InvalidQuery",
    "JwtSettingsRefused",
    "MethodNotAllowed",
    "NotAcceptable",
    "NotEmbedded",
    "NotSingular",
    "PermissionDenied",
    "RangeNotSatisfiable",
    "ReadOnly",
    "RequestRateLimited",
    "RoleRefused",
    "SchemaNotExposed",
    "StatementTimeout",
    "TokenExpired",
    "TokenForOthers",
    "TokenForged",
    "TokenMalformed",
    "TokenMissing",
    "TokenNotYetValid",
    "TokenUnverifiable",
    "TooManyAffected",
    "TooMuch",
    "UnexpectedFailure",
    "UnfilteredWrite",
    "UnknownColumn",
    "UnknownRelationship",
    "UnknownTable",
    "UnsupportedMediaType",
    "UrlTooLong",
    "ValueRefused",
]
