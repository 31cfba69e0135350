create table alerts (
    event_id text primary key,
    carrier text not null,
    flight integer not null,
    origin text not null,
    dest text not null,
    delay_minutes integer not null,
    told_at timestamptz not null default now()
);
create index alerts_told_at on alerts (told_at desc);
