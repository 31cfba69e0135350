-- Statements that mean the same after the guard printed them; test_sql_guard_postgres.py runs both.
select 1, 'it''s', $$dollar 'quoted'$$, true, null, 1.5, 1e3, .5, -1, - 2, 5 % 3, 7 / 2, 2 ^ 3 ^ 2, 1 << 3, 6 & 3, 6 |
       1, 6 # 3, ~ 1;
select a - b - 1, a - (b - 1), a * (b + 1), (a + b) * 2, -a ^ 2, not a = b and b > 1 or a < 0, a / b / 2 from t;
select a = b is not null, not a is null, a + b::text::int, a::text || b || 'x', 'a' || 'b' like 'ab'
       from t;
select * from t order by id desc nulls last limit 2 offset 1;
select a, count(*), sum(b), avg(b)::text, min(name), bool_or(a > 10), string_agg(name, ',' order by name desc),
       array_agg(distinct b order by b), count(*) filter (where b > 1) from t group by a having count(*) >= 1 order by
       a;
select id, row_number() over (partition by a order by id desc), lag(id, 1) over w, sum(b) over (order by id rows
       between 1 preceding and current row), first_value(name) over w from t window w as (order by id) order by id;
select id, sum(b) over (order by at range between interval '1 day' preceding and current row) from t order by id;
select distinct on (a) a, id from t order by a, id desc;
select t.id, s.c from t join s using (id) union all select id, 'x' from t where id > 2 order by 1, 2;
select t.id, s.c, o.total from t left join s on s.id = t.id and s.a > 1 full join public.orders o on o.id = t.id order
       by 1, 2;
select x.id, y.c from t x cross join lateral (select c from s where s.id = x.id) y order by 1;
with a as (select id from t where id > 1), b as (select * from a where id < 3) select * from b, a order by 1, 2;
with recursive r(n) as (values (1) union all select n + 1 from r where n < 5) select sum(n), count(*) from r;
with t as (select 99 as id) select id from t union select id from ext_one.t order by 1;
with x as materialized (select * from s) select count(*) from x;
select (select max(id) from s where s.a <= t.a), exists (select 1 from s where s.id = t.id), a in (10, 30), id in
       (select id from s), a not in (10), (a, b) in (select 20, 2), a = any (array[10, 20]), a <> all (array[10]) from
       t order by id;
select case when a > 10 then 'big' when a is null then 'none' else 'small' end, case a when 10 then 1 end,
       coalesce(mood::text, 'none'), nullif(a, 10), greatest(a, b, 15), least(a, b) from t order by id;
select name like 'a%', name ilike 'A%', name not like '%b', name similar to '(ada|bob)', name ~ '^a', name !~ 'b',
       name ~* 'ADA', name !~* 'BOB', name between 'a' and 'b', a not between 1 and 15, name like 'x!%' escape '!'
       from t order by id;
select a is distinct from b, a is not distinct from b, mood is null, (a > 1) is true, (a > 1) is not false from t
       order by id;
select data -> 'a' -> 0, data ->> 'k', data #> '{a,2,b}', data #>> '{a,2,b}', data -> 'a' ->> 1, data ? 'k', data ?|
       array['z', 'k'], data ?& array['a', 'k'], data @> '{"k": "v"}', '{"k": "v"}' <@ data, data - 'k', data #-
       '{a,0}', data || '{"n": 1}', data @? '$.a[*]', data @@ '$.k == "v"', (data ->> 'k') = 'v' and data -> 'a' is
       not null from t order by id;
select jsonb_build_object('a', id, 'b', array[1, 2]), jsonb_agg(name order by id), json_build_array(1, 'x'),
       to_jsonb(max(id)), jsonb_set('{"a": 1}', '{a}', '2'), jsonb_path_query_array('[1, 2, 3]', '$[*] ? (@ > 1)')
       from t group by id order by id;
select e, v from t, jsonb_each(data) as x(e, v) where id = 1 order by e;
select r.x, r.y from jsonb_to_recordset('[{"x": 1, "y": "a"}, {"x": 2}]') as r(x int, y text) order by 1;
select g.n, u.v, u.o from generate_series(1, 2) as g(n), unnest(array['p', 'q']) with ordinality as u(v, o) order by
       1, 3;
select * from generate_series('2026-01-01'::timestamptz, '2026-01-02', interval '12 hours') as h order by 1;
select tags[1], tags[1:1], array[1, 2] || 3, array(select id from s order by id), array_length(tags, 1), 'x' =
       any(tags), cardinality(tags), tags && array['y'], tags @> array['x'], array_to_string(tags, '-'), (array[[1, 2],
       [3, 4]])[2][1], tags[a - 9], tags[-1], tags[$$1$$::int] from t order by id;
select substring(name from 1 for 2), substring(name, 2, 1), substring(name from '.b'), position('b' in name),
       trim(both 'a' from name), trim(name), overlay(name placing 'Z' from 1 for 1), upper(name), left(name, 1),
       right(name, 1), replace(name, 'a', 'o'), split_part('a,b', ',', 2), concat(name, 1, null), concat_ws('-', name,
       a), length(name), md5(name), initcap(name), regexp_replace(name, 'b', 'p', 'g'), starts_with(name, 'a'),
       encode(sha256('x'), 'hex') from t order by id;
select at at time zone 'Europe/Vienna', date_trunc('month', at), extract(epoch from at), extract(dow from at)::int,
       date_part('hour', at), to_char(at, 'YYYY-MM-DD HH24:MI:SS.US IYYY-IW DDD'), at + interval '1 day 2 hours', at -
       interval 'P1M', at::date - date '2026-01-01', interval '2 hours ago', timestamp '2026-01-01 00:00' + time
       '10:00', date '2026-03-01' - 1, age(at, '2025-01-01+00') from t order by id;
select to_char(price, 'FM999,990.00'), round(price, 1), trunc(price), ceil(price), price::int, price::numeric(10,1),
       sqrt(4), power(2, 3), mod(7, 3), to_date('03 Feb 2026', 'DD Mon YYYY'), to_timestamp(0), to_number('1,234',
       '9,999'), abs(-1), sign(price), ln(1), pi()::int from t order by id;
select span @> 3, lower(span), upper(span), span && int4range(4, 6), isempty(span), span * int4range(2, 4),
       int4range(1, 3, '[]') from t order by id;
select mood::text, mood = 'good', 'good'::mood, 'bad'::ext_one.mood, mood in ('good', 'bad') from t order by id;
select percentile_cont(0.5) within group (order by a), mode() within group (order by a), stddev(a)::text, corr(a, b)
       is not null from t;
select a, b, grouping(a), count(*) from t group by grouping sets ((a), (b), ()) order by 1, 2, 3;
select a, count(*) from t group by rollup (a) order by 1;
values (1, 'a'), (2, 'b') order by 1 desc;
(select 1 union select 2) except (select 2) order by 1;
select id from t intersect select id from s order by 1 limit 1;
select t, (t).name, (row(1, 2)), row(1, 'x') = row(1, 'x') from t order by id;
select t.* from t where (a, id) > (10, 1) order by id fetch first 1 rows only;
select "name" as "Weird ""Name""", id as "select", 1 as value, a as type from t order by id;
select count(*) from t where name = 'it''s' -- a comment;
select /* nested /* comment */ ' */ num_nonnulls(variadic array[1, null]), make_interval(days => 3, hours => 1),
       current_date is not null;
select name collate "C" < 'b' from t order by name collate "C" desc;
select to_tsvector('english', name) @@ plainto_tsquery('english', 'bob'), (a, b) overlaps (b, a) is null from (select
       date '2026-01-01' as a, date '2026-02-01' as b, 'bobs' as name) as x;
insert into s (id, a, c) values (5, default, 'x'), (6, 1, default) returning *;
insert into t (id, name) select id + 100, c from s where c is not null returning id, name, b;
insert into s values (1, 9, 'new') on conflict (id) do update set c = excluded.c, a = s.a + excluded.a where s.a > 0
       returning *;
insert into s values (1, 9, 'new') on conflict do nothing;
update t set a = a + 1, b = default, (name, tags) = ('x', array['z']) where id = 1 returning id, a, b, name, tags;
update t as x set name = s.c from s where s.id = x.id and s.c is not null returning x.id, x.name;
update t set data = jsonb_set(coalesce(data, '{}'), '{n}', to_jsonb(id)), price = price * 1.1 where id in (select id
       from s for update) returning data, price;
delete from t using s where s.id = t.id and s.a = 2 returning t.id;
with gone as (delete from s where id > 1 returning *), kept as (insert into t (id) select id + 50 from gone returning
       id) select (select count(*) from gone), id from kept order by id;
select id from t where id > 1 order by id for update skip locked;
select id from t where id = 2 for no key update of t nowait;
