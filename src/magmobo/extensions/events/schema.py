"""Tables of the event log, jobs and values in schema `mag`: part of namespace `extensions`, beside the registry's.

`extension_event.seq` grows in the order of commits, because writers append under one lock, so a reader that has seen a
number has seen all before it. `extension_log` says how far: what was removed from the log, how large it is, what was
taken from the change stream. `extension_wait` is written by whoever delivers. Times are seconds since 1970 UTC;
`logged_s` is the server's clock and never goes back along `seq`.
"""

from __future__ import annotations

from collections.abc import Sequence

from magmobo.contracts.guests import Migration

_UP = """
create table mag.extension_log (
  one_row boolean primary key default true check (one_row),
  floor_seq bigint not null default 0,
  size_bytes bigint not null default 0,
  epoch text not null default '',
  position text not null default ''
);
insert into mag.extension_log default values;

create table mag.extension_event (
  seq bigint generated always as identity primary key,
  id text not null,
  topic text not null,
  about text not null,
  depth smallint not null,
  time_s double precision not null,
  logged_s double precision not null,
  data bytea not null
);
create index on mag.extension_event (logged_s);

create table mag.extension_source (
  key integer generated always as identity primary key,
  origin text not null,
  alive_s double precision not null
);

create table mag.extension_subscription (
  extension_id text not null,
  name text not null,
  topic text not null,
  tables text[] not null,
  condition bytea not null,
  active boolean not null default true,
  cursor_seq bigint not null,
  replay_to_seq bigint not null default 0,
  rewound bigint not null default 0,
  waiting bigint not null default 0,
  primary key (extension_id, name)
);

create table mag.extension_dead (
  number bigint generated always as identity primary key,
  extension_id text not null,
  handler text not null,
  event_id text not null,
  topic text not null,
  time_s double precision not null,
  data bytea not null,
  tries integer not null,
  error text not null,
  dead_s double precision not null
);
create index on mag.extension_dead (extension_id, number);

create table mag.extension_job (
  id bigint generated always as identity primary key,
  extension_id text not null,
  name text not null,
  cron text not null default '',
  arguments bytea not null,
  planned_s double precision not null,
  due_s double precision not null,
  tries integer not null default 0
);
create unique index on mag.extension_job (extension_id, name) where cron <> '';
create index on mag.extension_job (extension_id, due_s);

create table mag.extension_kv (
  extension_id text not null,
  key text collate "C" not null,
  value bytea not null,
  primary key (extension_id, key)
);

create table mag.extension_kv_total (
  extension_id text primary key,
  entries bigint not null default 0,
  size_bytes bigint not null default 0
);
"""

_DOWN = """
drop table mag.extension_kv_total, mag.extension_kv, mag.extension_job, mag.extension_dead,
  mag.extension_subscription, mag.extension_source, mag.extension_event, mag.extension_log;
"""

_WAITS_UP = """
create table mag.extension_wait (
  extension_id text not null,
  handler text not null,
  capabilities text[] not null,
  kind text not null,
  until_s double precision not null,
  primary key (extension_id, handler)
);
"""
_WAITS_DOWN = "drop table mag.extension_wait;"

MIGRATIONS: Sequence[Migration] = (
    Migration("0002", "events", _UP, _DOWN),
    Migration("0004", "waits", _WAITS_UP, _WAITS_DOWN),
)
"""Those of the event log; the plane runs them together with those of the registry."""
