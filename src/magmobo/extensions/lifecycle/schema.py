"""The registry's tables in schema `mag`, made when the first extension is installed or the first key is trusted.

Packages are kept whole, so that every node of the database gets the code it runs from there, signature included.
Grants belong to one version of an extension: an upgrade brings its own along and takes nothing from the running one.
`extension_gone` names folders that each node removes, in the order in which their extensions went; `extension_spent`
counts the calls of a day (days since 1970 UTC) by capabilities that have a budget, of all nodes together.
"""

from __future__ import annotations

from collections.abc import Sequence

from magmobo.contracts.guests import Migration

NAMESPACE = "extensions"
TABLE = "mag.extension_plane"
"""The table whose presence says that there may be extensions."""

_UP = """
create table mag.extension_plane (
  one_row boolean primary key default true check (one_row),
  generation bigint not null default 0,
  stopped boolean not null default false
);
insert into mag.extension_plane default values;

create table mag.extension (
  id text primary key,
  state text not null,
  resume_state text not null default '',
  sha256 text not null,
  previous_sha256 text not null default '',
  pending_sha256 text not null default '',
  target_sha256 text not null default '',
  guest text not null default '',
  since timestamptz not null default now(),
  detail text not null default '',
  halt_reason text not null default '',
  guarded boolean not null default false,
  delete_data boolean not null default false,
  watch_until timestamptz
);

create table mag.extension_version (
  sha256 text primary key,
  extension_id text not null references mag.extension on delete cascade,
  version text not null,
  signer text not null,
  manifest jsonb not null,
  package bytea not null,
  added_at timestamptz not null default now()
);
create index on mag.extension_version (extension_id);

create table mag.extension_grant (
  sha256 text not null references mag.extension_version on delete cascade,
  capability text not null,
  state text not null,
  scope jsonb not null,
  rate_per_minute integer not null,
  budget_per_day bigint,
  expires_at timestamptz,
  hours text not null default '',
  decided_by text not null,
  decided_at timestamptz not null default now(),
  primary key (sha256, capability)
);

create table mag.extension_key (
  key_id text primary key,
  public bytea not null,
  label text not null,
  added_at timestamptz not null default now()
);

create table mag.extension_uid (
  extension_id text primary key,
  uid integer not null unique,
  folder text not null default left(replace(gen_random_uuid()::text, '-', ''), 16)
);

create table mag.extension_setting (
  extension_id text primary key,
  settings jsonb not null,
  secrets text[] not null
);

create table mag.extension_kept (
  extension_id text primary key,
  signer text not null,
  since timestamptz not null default now()
);
"""

_DOWN = """
drop table mag.extension_kept, mag.extension_setting, mag.extension_uid, mag.extension_key, mag.extension_grant,
  mag.extension_version, mag.extension, mag.extension_plane;
"""

_NODES_UP = """
create table mag.extension_gone (
  number bigint generated always as identity primary key,
  extension_id text not null,
  folder text not null,
  gone_at timestamptz not null default now()
);

create table mag.extension_spent (
  day integer not null,
  extension_id text not null,
  capability text not null,
  calls bigint not null,
  primary key (day, extension_id, capability)
);
"""
_NODES_DOWN = "drop table mag.extension_spent, mag.extension_gone;"

MIGRATIONS: Sequence[Migration] = (
    Migration("0001", "registry", _UP, _DOWN),
    Migration("0003", "nodes", _NODES_UP, _NODES_DOWN),
)
"""Those of the registry; the plane runs them together with those of the event log, in namespace `NAMESPACE`."""
