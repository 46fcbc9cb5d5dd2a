-- reference.sql: docs/reference.md, from the comments on the objects and from
-- the settings as the server knows them.
\pset format unaligned
\pset tuples_only on
\pset recordsep '\n'

\echo '# Reference'
\echo
\echo 'Written by `scripts/reference` from the comments on the objects; change it there. All objects are in the schema `settlement`. Names that begin with an underscore are internal.'
\echo
\echo '## Functions and procedures'

SELECT format(E'\n### %s\n\n```\n%s%s(%s)%s\n```\n\n%s', p.proname,
              CASE p.prokind WHEN 'p' THEN 'CALL ' END, p.proname,
              regexp_replace(pg_get_function_arguments(p.oid), ', ', E',\n        ', 'g'),
              E'\n    RETURNS ' || regexp_replace(pg_get_function_result(p.oid), ', ', E',\n        ', 'g'),
              coalesce(obj_description(p.oid, 'pg_proc'), 'NOT COMMENTED'))
FROM pg_proc AS p
WHERE p.pronamespace = 'settlement'::regnamespace AND p.proname NOT LIKE '\_%'
  AND p.prorettype <> 'trigger'::regtype AND p.prokind IN ('f', 'p')
ORDER BY p.proname, pg_get_function_arguments(p.oid);

SELECT format(E'\n## %s', initcap(what)),
       (SELECT string_agg(format(E'\n### %s\n\n%s\n\n| column | type | |\n|---|---|---|\n%s', c.relname,
               coalesce(obj_description(c.oid, 'pg_class'), 'NOT COMMENTED'),
               (SELECT string_agg(format('| `%s` | %s | %s |', a.attname, format_type(a.atttypid, a.atttypmod),
                                         coalesce(col_description(c.oid, a.attnum), '')), E'\n' ORDER BY a.attnum)
                FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)),
               E'\n' ORDER BY c.relname)
        FROM pg_class AS c
        WHERE c.relnamespace = 'settlement'::regnamespace AND c.relkind = ANY (kinds) AND c.relname NOT LIKE '\_%')
FROM (VALUES (1, 'views', '{v}'::"char"[]), (2, 'tables', '{r,p}')) AS w (n, what, kinds)
ORDER BY n
\g (recordsep='\n' fieldsep='\n')

\echo
\echo '## Settings'
\echo
\echo '| setting | default | range | changed by | |'
\echo '|---|---|---|---|---|'
SELECT format('| `%s` | %s | %s | %s | %s |', name,
              coalesce(nullif(boot_val, ''), '(empty)') || coalesce(' ' || unit, ''),
              CASE WHEN vartype IN ('integer', 'real') THEN min_val || ' to ' || max_val
                   WHEN vartype = 'enum' THEN array_to_string(enumvals, ', ')
                   WHEN vartype = 'bool' THEN 'on, off' ELSE 'text' END,
              CASE context WHEN 'postmaster' THEN 'restart' WHEN 'sighup' THEN 'reload'
                   WHEN 'superuser' THEN 'reload, or SET by a superuser' ELSE context END,
              concat_ws(' ', short_desc, extra_desc))
FROM pg_settings WHERE name LIKE 'settlement.%' ORDER BY name;

\echo
\echo '## Metrics'
\echo
\echo 'The view `settlement.metrics` has all of them. `settlement.prometheus()` exports counters as `settlement_NAME_total`, gauges and histograms as `settlement_NAME`; see [monitoring.md](monitoring.md). `value_at_risk`, by `currency`, is there while something is unknown.'
\echo
\echo '| metric | kind | |'
\echo '|---|---|---|'
SELECT format('| `%s` | %s | %s |', m.name, m.kind, m.help)
FROM (SELECT DISTINCT CASE kind WHEN 'histogram' THEN regexp_replace(name, '_(bucket|sum|count)$', '') ELSE name END AS name, kind, help
      FROM settlement.metrics) m
ORDER BY m.kind, m.name;

\echo
\echo '## Kinds of log lines'
\echo
\echo 'SQLSTATEs of what is written to the server log; [logging.md](logging.md) says when, and with which fields.'
\echo
\echo '| name | SQLSTATE |'
\echo '|---|---|'
\! sed -n "s/^#define \(LOG_[A-Z_]*\)[[:space:]]*MAKE_SQLSTATE('\(.\)','\(.\)','\(.\)','\(.\)','\(.\)').*/| \`\1\` | \`\2\3\4\5\6\` |/p" src/shared/logline.h
