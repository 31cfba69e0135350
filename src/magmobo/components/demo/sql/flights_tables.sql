-- Tables of the flights demo, as bare as COPY likes them; flights_finish.sql adds keys and indexes after the load.
create table public.airlines (
    carrier text not null,
    name text not null
);

create table public.airports (
    faa text not null,
    name text not null,
    lat double precision not null,
    lon double precision not null,
    alt integer not null,
    tz integer not null,
    dst text not null,
    tzone text
);

create table public.planes (
    tailnum text not null,
    year integer,
    type text not null,
    manufacturer text not null,
    model text not null,
    engines integer not null,
    seats integer not null,
    speed integer,
    engine text not null
);

create table public.weather (
    origin text not null,
    year integer not null,
    month integer not null,
    day integer not null,
    hour integer not null,
    temp double precision,
    dewp double precision,
    humid double precision,
    wind_dir integer,
    wind_speed double precision,
    wind_gust double precision,
    precip double precision not null,
    pressure double precision,
    visib double precision not null,
    time_hour timestamptz not null
);

create table public.flights (
    id bigint generated always as identity,
    year integer not null,
    month integer not null,
    day integer not null,
    dep_time integer,
    sched_dep_time integer not null,
    dep_delay integer,
    arr_time integer,
    sched_arr_time integer not null,
    arr_delay integer,
    carrier text not null,
    flight integer not null,
    tailnum text,
    origin text not null,
    dest text not null,
    air_time integer,
    distance integer not null,
    hour integer not null,
    minute integer not null,
    time_hour timestamptz not null
);

-- What the replay fills. The columns people look at come first.
create table public.departures (
    id bigint generated always as identity primary key,
    carrier text not null,
    flight integer not null,
    origin text not null,
    dest text not null,
    dep_delay integer not null,
    dep_at timestamptz not null,
    sched_at timestamptz not null,
    flight_id bigint not null
);
