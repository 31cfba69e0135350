-- The tasks demo: teams, members, tasks and comments, 1,000 rows in all, the same on every machine.
-- Row level security shows each member exactly what the member's own team has. The member is the JWT's `sub`.
create table public.teams (
    id bigint generated always as identity primary key,
    name text not null unique
);

create table public.members (
    id bigint generated always as identity primary key,
    team_id bigint not null references public.teams,
    name text not null,
    email text not null unique,
    is_lead boolean not null default false
);

create table public.tasks (
    id bigint generated always as identity primary key,
    team_id bigint not null references public.teams,
    assignee_id bigint references public.members,
    title text not null check (length(title) between 1 and 200),
    status text not null default 'open' check (status in ('open', 'doing', 'done')),
    priority integer not null default 2 check (priority between 1 and 3),
    due_on date,
    created_at timestamptz not null default now()
);

create table public.comments (
    id bigint generated always as identity primary key,
    task_id bigint not null references public.tasks on delete cascade,
    member_id bigint not null references public.members,
    body text not null check (length(body) between 1 and 2000),
    created_at timestamptz not null default now()
);

-- 5 teams + 40 members + 335 tasks + 620 comments.
insert into public.teams (name)
select name from unnest(array['Platform', 'Mobile', 'Data', 'Support', 'Design']) with ordinality as t (name, n)
order by n;

insert into public.members (team_id, name, email, is_lead)
select 1 + (n - 1) % 5, first_names[1 + (n - 1) % 20] || ' ' || last_names[1 + (n - 1) * 7 % 8],
       lower(first_names[1 + (n - 1) % 20]) || '.' || n || '@example.com', n <= 5
from generate_series(1, 40) as n,
     (select array['Ada', 'Bo', 'Chen', 'Dara', 'Eli', 'Fay', 'Gita', 'Hugo', 'Ines', 'Jun', 'Kofi', 'Lena', 'Milo',
                   'Nour', 'Otto', 'Pia', 'Quin', 'Rosa', 'Sami', 'Tove'] as first_names,
             array['Adler', 'Brandt', 'Costa', 'Diaz', 'Eriksen', 'Fofana', 'Garg', 'Hansen'] as last_names) as names;

-- Member m belongs to team 1 + (m - 1) % 5; a task goes to one of its team's eight members, every ninth to nobody.
insert into public.tasks (team_id, assignee_id, title, status, priority, due_on, created_at)
select 1 + (n - 1) % 5, case when n % 9 <> 0 then 1 + (n - 1) % 5 + 5 * (n * 3 / 5 % 8) end,
       verbs[1 + n * 7 % 8] || ' the ' || things[1 + n * 11 % 12],
       (array['open', 'doing', 'done'])[1 + n * 5 % 3], 1 + n * 13 % 3, date '2026-01-05' + n * 17 % 120,
       timestamptz '2026-01-01 08:00+00' + n * interval '97 minutes'
from generate_series(1, 335) as n,
     (select array['Review', 'Write', 'Fix', 'Measure', 'Test', 'Explain', 'Ship', 'Retire'] as verbs,
             array['login page', 'import job', 'invoice export', 'search index', 'error messages', 'backup drill',
                   'release notes', 'status page', 'price table', 'onboarding mail', 'audit report',
                   'mobile menu'] as things) as words;

insert into public.comments (task_id, member_id, body, created_at)
select task.id, 1 + (task.team_id - 1) + 5 * (n * 7 % 8), bodies[1 + n * 3 % 8], task.created_at + n * interval '1 minute'
from generate_series(1, 620) as n
cross join (select array['On it.', 'Can you look at the last case?', 'Done on my side.', 'Waiting for an answer.',
                         'Moved to next week.', 'The numbers look right now.', 'I would do the small one first.',
                         'Thanks!'] as bodies) as words
join public.tasks as task on task.id = 1 + n * 23 % 335
order by n;

create index members_team on public.members (team_id);
create index tasks_team on public.tasks (team_id, status);
create index tasks_assignee on public.tasks (assignee_id);
create index comments_task on public.comments (task_id);
create index comments_member on public.comments (member_id);

-- Who asks. Null for a token without a numeric `sub`, and then no policy lets anything through.
create function public.demo_member_id() returns bigint language sql stable
set search_path = pg_catalog
as $$
    select case when sub ~ '^[0-9]{1,18}$' then sub::bigint end
    from (select nullif(current_setting('request.jwt.claims', true), '')::json ->> 'sub' as sub) as claims
$$;

-- Definer: a policy on members that reads members would otherwise ask itself for ever. Tells only the caller's team.
create function public.demo_team_id() returns bigint language sql stable security definer
set search_path = pg_catalog
as $$ select team_id from public.members where id = public.demo_member_id() $$;

comment on function public.demo_member_id() is 'MagMoBo demo tasks, version 1';
comment on function public.demo_team_id() is 'MagMoBo demo tasks, version 1';
revoke execute on function public.demo_member_id(), public.demo_team_id() from public;
grant execute on function public.demo_member_id(), public.demo_team_id() to mag_demo_member;

alter table public.teams enable row level security;
alter table public.members enable row level security;
alter table public.tasks enable row level security;
alter table public.comments enable row level security;

-- `(select f())` is computed once a statement, a bare `f()` once a row.
create policy own_team on public.teams for select to mag_demo_member using (id = (select public.demo_team_id()));
create policy own_team on public.members for select to mag_demo_member using (team_id = (select public.demo_team_id()));
create policy own_team on public.tasks for all to mag_demo_member
    using (team_id = (select public.demo_team_id())) with check (team_id = (select public.demo_team_id()));
create policy read_own_team on public.comments for select to mag_demo_member
    using (exists (select from public.tasks as task where task.id = task_id));
create policy write_as_oneself on public.comments for insert to mag_demo_member
    with check (member_id = (select public.demo_member_id())
                and exists (select from public.tasks as task where task.id = task_id));
create policy change_own on public.comments for update to mag_demo_member
    using (member_id = (select public.demo_member_id())) with check (member_id = (select public.demo_member_id()));
create policy delete_own on public.comments for delete to mag_demo_member
    using (member_id = (select public.demo_member_id()));

grant usage on schema public to mag_demo_member;
grant select on public.teams, public.members to mag_demo_member;
grant select, insert, update, delete on public.tasks, public.comments to mag_demo_member;

analyze public.teams, public.members, public.tasks, public.comments;
