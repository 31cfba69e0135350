-- What the change stream needs in a database besides its slot: schema mag, one small table of state, and functions that
-- decide in which publication a table may be. Nothing here touches a user's table.
create schema if not exists mag;
revoke all on schema mag from public;

create table if not exists mag.state (key text primary key, value jsonb not null);
revoke all on mag.state from public;

-- Whether UPDATE and DELETE on a table (on every partition of it) still work once they are published: Postgres refuses
-- them on a published table without replica identity (CheckCmdReplicaIdentity in execReplication.c). A deferrable primary
-- key does not count, nor does FULL on a table with a virtual generated column.
create or replace function mag.has_identity(relation oid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp as $$
  select coalesce(bool_and(
           case c.relreplident
             when 'f' then not exists (select from pg_attribute a where a.attrelid = c.oid and a.attgenerated = 'v'
                                       and not a.attisdropped)
             when 'n' then false
             else exists (select from pg_index i where i.indrelid = c.oid and i.indislive and i.indisvalid
                          and i.indimmediate
                          and case c.relreplident when 'd' then i.indisprimary else i.indisreplident end)
           end), false)
  from pg_class c
  where c.oid in (select relid from pg_partition_tree(relation) where isleaf)
     or (c.oid = relation and not exists (select from pg_partition_tree(relation) where isleaf))
$$;

-- Puts every published table into the publication that fits its present identity and says so in the log, in the same
-- transaction, so that the reader learns of it in stream order and again after a restart.
create or replace function mag.move_tables() returns integer
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  moved record;
  count integer := 0;
begin
  for moved in
    select n.nspname, c.relname, p.pubname = 'mag_changes' as loses
    from pg_publication p
    join pg_publication_rel r on r.prpubid = p.oid
    join pg_class c on c.oid = r.prrelid
    join pg_namespace n on n.oid = c.relnamespace
    where p.pubname in ('mag_changes', 'mag_inserts')
      and (p.pubname = 'mag_changes') is distinct from mag.has_identity(c.oid)
    order by 1, 2
  loop
    if not moved.loses then  -- a transaction that wrote before would commit its updates unseen; see publication.py
      begin
        execute format('lock table %I.%I in share mode', moved.nspname, moved.relname);
      exception when lock_not_available then
        continue;
      end;
    end if;
    execute format('alter publication %I drop table only %I.%I',
                   case when moved.loses then 'mag_changes' else 'mag_inserts' end, moved.nspname, moved.relname);
    execute format('alter publication %I add table only %I.%I',
                   case when moved.loses then 'mag_inserts' else 'mag_changes' end, moved.nspname, moved.relname);
    perform pg_logical_emit_message(true, 'mag', json_build_object(
      'schema', moved.nspname, 'table', moved.relname, 'lost', true)::text);
    count := count + 1;
  end loop;
  return count;
end
$$;
revoke all on function mag.has_identity(oid), mag.move_tables() from public;
