create table slow_queries (
    sql_hash text primary key,
    sql text not null,
    times bigint not null default 1,
    worst_s double precision not null,
    total_s double precision not null,
    last_event text not null,
    seen_at timestamptz not null default now()
);
