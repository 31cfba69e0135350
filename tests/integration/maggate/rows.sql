truncate airlines, airline_details, airports, flights, employees, orders, lines, "Weird Table", notes, secrets, partial,
  documents, parts, shop.items, private.items restart identity cascade;
insert into airlines values ('UA', 'United'), ('AA', 'American'), ('ZZ', 'Nobody');
insert into airline_details values ('UA', 'up');
insert into airports values ('SEA', 'Seattle', 47.4), ('JFK', 'New York', 40.6), ('LAX', 'Los Angeles', 33.9);
insert into flights (id, carrier, origin, dest, dep_delay, tags, data, price, left_at, mood, code) values
  (1, 'UA', 'JFK', 'SEA', 5, '{a,b}', '{"gate": "B7", "seats": [1, 2], "deep": {"x": 1}}', 10.50, '2013-01-01T05:00:00Z', 'calm', 'c1'),
  (2, 'AA', 'JFK', 'LAX', null, '{}', null, 20.00, '2013-01-02T05:00:00Z', 'busy', 'c2'),
  (3, 'UA', 'LAX', 'SEA', 60, '{"x,y"}', '{"gate": "C1"}', null, null, null, 'c3'),
  (4, null, 'SEA', 'JFK', -3, '{}', '{"gate": null}', 0, '2013-01-04T05:00:00Z', 'calm', 'long');
alter sequence flights_id_seq restart with 100;
insert into employees values (1, 'Ada', null), (2, 'Bob', 1), (3, 'Cyd', 1);
insert into orders values ('eu', 1, 'first'), ('us', 1, 'other');
insert into lines values (1, 'eu', 1, 'nut'), (2, 'eu', 1, 'bolt'), (3, 'us', 1, 'saw');
insert into "Weird Table" values ('a,b', 1, 'd', 'n', 7), ('c', 2, null, null, 8);
insert into notes values (1, 'ann', 'of ann'), (2, 'bob', 'of bob'), (3, 'ann', 'also ann');
insert into secrets values (1, 'do not tell');
insert into partial values (1, 's', 'h');
insert into documents values (1, '{"b": 1, "a": 2}');
insert into parts values (1, 'eu');
insert into shop.items values (1, 'hat');
insert into private.items values (1, 'key');
