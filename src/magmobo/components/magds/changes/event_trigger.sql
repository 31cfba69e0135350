-- Tells the node of DDL by anybody, and moves a table that lost its replica identity out of mag_changes inside the
-- user's own transaction, so that the user's next UPDATE works. It must never make a user's DDL fail or wait: every error
-- is swallowed (the node, told of the DDL, repeats the work), and locks are waited for only briefly. A transaction that
-- has sent NOTIFY cannot be prepared, so where transactions may be prepared the node looks at the catalogue instead.
create or replace function mag.on_ddl() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '200ms' as $$
begin
  if tg_tag = 'REFRESH MATERIALIZED VIEW' or (
       exists (select from pg_event_trigger_ddl_commands())
       and not exists (select from pg_event_trigger_ddl_commands()
                       where coalesce(schema_name, '') not in ('pg_temp', 'mag'))) then
    return;
  end if;
  if current_setting('max_prepared_transactions')::integer = 0 then
    perform pg_notify('mag_ddl', '');
  end if;
  if tg_tag not like '% PUBLICATION' then  -- moving a table is itself such a command
    begin
      perform mag.move_tables();
    exception when others then
      null;  -- in a block of its own: what this one undoes must not include the NOTIFY
    end;
  end if;
exception when others then
  return;
end
$$;
revoke all on function mag.on_ddl() from public;

do $$
begin
  if not exists (select from pg_catalog.pg_event_trigger where evtname = 'mag_ddl') then
    create event trigger mag_ddl on ddl_command_end execute function mag.on_ddl();
    alter event trigger mag_ddl enable always;  -- also in sessions with session_replication_role = replica
  end if;
end
$$;
