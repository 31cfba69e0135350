-- Keys, indexes, access and explanations of the flights demo, made once the rows are in.
alter table public.airlines add primary key (carrier);
alter table public.airports add primary key (faa);
alter table public.planes add primary key (tailnum);
alter table public.weather add primary key (origin, time_hour);
alter table public.flights add primary key (id);

create index flights_dest on public.flights (dest, dep_delay desc nulls last);
create index flights_carrier on public.flights (carrier);
create index flights_schedule on public.flights (time_hour, minute, id) where dep_delay is not null and id <= 336776;

alter table public.flights add constraint flights_carrier_fkey foreign key (carrier) references public.airlines;
alter table public.flights add constraint flights_origin_fkey foreign key (origin) references public.airports;
alter table public.weather add constraint weather_origin_fkey foreign key (origin) references public.airports;
alter table public.departures add constraint departures_flight_fkey foreign key (flight_id) references public.flights;
alter table public.departures add constraint departures_carrier_fkey foreign key (carrier) references public.airlines;
create index departures_flight on public.departures (flight_id);

comment on column public.flights.dest is
    'FAA code. No foreign key: 7,602 flights go to four airports that airports does not list (BQN, PSE, SJU, STT).';
comment on column public.flights.tailnum is
    'Plane. No foreign key: 52,606 flights have none, or one that planes does not list.';
comment on column public.flights.dep_delay is 'Minutes late, negative when early, null when the flight was cancelled.';
comment on column public.flights.dep_time is 'Local time as a number, hours times 100 plus minutes.';
comment on column public.departures.dep_at is 'Actual departure: scheduled time plus delay.';

-- For the demo only: anybody who reaches the port reads these tables and may add a flight.
grant usage on schema public to mag_demo_anon;
grant select on public.airlines, public.airports, public.planes, public.weather, public.flights, public.departures
    to mag_demo_anon;
grant insert on public.flights to mag_demo_anon;

analyze public.airlines, public.airports, public.planes, public.weather, public.flights;
