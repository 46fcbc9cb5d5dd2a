-- The SQL surface as a whole: documented, closed to PUBLIC, safe to call.
BEGIN;
SELECT plan(14);

CREATE TEMP VIEW routines AS
SELECT p.*, p.oid::regprocedure AS signature, obj_description(p.oid, 'pg_proc') AS comment,
       l.lanname
FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
WHERE p.pronamespace = 'settlement'::regnamespace;

SELECT is_empty($$ SELECT signature FROM routines WHERE comment IS NULL $$,
    'every function has a comment');
SELECT is_empty($$ SELECT signature FROM routines
                   WHERE (proname LIKE '\_%') <> (comment LIKE 'Internal: %')
                     AND prorettype <> 'trigger'::regtype $$,
    'internal functions begin with _ and say so');
SELECT is_empty($$ SELECT oid::regclass FROM pg_class
                   WHERE relnamespace = 'settlement'::regnamespace AND relkind IN ('r', 'v')
                     AND obj_description(oid, 'pg_class') IS NULL $$,
    'every table and view has a comment');
SELECT is_empty($$ SELECT a.attrelid::regclass, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
                   WHERE c.relnamespace = 'settlement'::regnamespace AND c.relkind IN ('r', 'p')
                     AND a.attnum > 0 AND NOT a.attisdropped AND col_description(c.oid, a.attnum) IS NULL $$,
    'and every column of a table');
SELECT is_empty($$ SELECT signature FROM routines
                   WHERE lanname IN ('sql', 'plpgsql') AND prokind = 'f'
                     AND NOT coalesce(proconfig, '{}') @> '{"search_path=pg_catalog, pg_temp"}' $$,
    'every SQL function has a fixed search_path');
SELECT is_empty($$ SELECT signature FROM routines WHERE prosecdef AND lanname = 'c' $$,
    'no C function changes the user');
SELECT is_empty($$ SELECT signature FROM routines WHERE has_function_privilege('public', oid, 'EXECUTE') $$,
    'PUBLIC may execute nothing');
SELECT is_empty($$ SELECT oid::regclass FROM pg_class
                   WHERE relnamespace = 'settlement'::regnamespace AND relkind IN ('r', 'v')
                     AND has_table_privilege('public', oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER') $$,
    'PUBLIC may touch no table');
SELECT is_empty($$ SELECT oid::regclass FROM pg_class
                   WHERE relnamespace = 'settlement'::regnamespace AND relkind = 'S'
                     AND CASE relkind WHEN 'S' THEN has_sequence_privilege('public', oid, 'USAGE, SELECT, UPDATE') END $$,
    'PUBLIC may touch no sequence');
SELECT ok(NOT has_schema_privilege('public', 'settlement', 'USAGE'), 'PUBLIC may not look into the schema');
SELECT is_empty($$ SELECT oid::regclass FROM pg_class
                   WHERE relnamespace = 'settlement'::regnamespace AND relkind = 'v'
                     AND NOT has_table_privilege('pg_monitor', oid, 'SELECT') $$,
    'pg_monitor may read the views');
SELECT is_empty($$ SELECT signature FROM routines
                   WHERE has_function_privilege('pg_monitor', oid, 'EXECUTE')
                     AND proname <> ALL ('{prometheus,doctor}'::name[]) AND proname NOT LIKE '\_%' $$,
    'pg_monitor may not act');
SELECT set_eq($$ SELECT relname FROM pg_class
                 WHERE relnamespace = 'settlement'::regnamespace AND relkind = 'v' $$,
    '{status,workers,in_flight,dlq_summary,metrics,unknown,progress,storage_health,redrive_progress,redrive_policies}'::name[], 'the views');
SELECT set_has($$ SELECT proname FROM routines WHERE proname NOT LIKE '\_%' $$,
    $$ SELECT unnest('{attach,detach,enqueue_pending,explain,timeline,evidence,doctor,prometheus,pause,resume,
        wait_paused,drain,breaker_open,breaker_close,redrive,redrive_where,resolve,resolve_where,
        dlq_purge,dlq_export,redrive_cancel,redrive_policy_set,redrive_policy_drop,lookup,restart_worker,rescan,grant_operator,revoke_operator}'::name[]) $$, 'the public functions');

SELECT * FROM finish();
ROLLBACK;
