-- columns.sql: which columns of a trade table mean what.
--
-- A column has a role.  attach() finds it by the mapping that it is given, or by a
-- usual name; columns for outcomes are added where there are none.

CREATE FUNCTION settlement._roles(
    OUT role text, OUT usual_names name[], OUT types regtype[], OUT kind text, OUT add_type text)
    RETURNS SETOF record
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.role, r.usual_names::name[],
           CASE r.holds
               WHEN 'id' THEN '{text,varchar,bpchar,uuid,bigint,integer,smallint}'
               WHEN 'trace' THEN '{text,varchar,bpchar,uuid}'
               WHEN 'text' THEN '{text,varchar,bpchar}'
               WHEN 'amount' THEN '{numeric,bigint,integer,smallint}'
               WHEN 'time' THEN '{timestamptz,timestamp}'
               WHEN 'reference' THEN '{text,varchar,uuid}'
               WHEN 'count' THEN '{integer,bigint,smallint}'
           END::regtype[],
           r.kind, r.add_type
    FROM (VALUES
        ('trade_id',        '{trade_id,id}',                               'id',     'required', NULL),
        ('symbol',          '{symbol,market,pair,instrument}',             'text',   'required', NULL),
        ('buyer_id',        '{buyer_user_id,buyer_id}',                    'id',     'required', NULL),
        ('seller_id',       '{seller_user_id,seller_id}',                  'id',     'required', NULL),
        ('buyer_order_id',  '{buy_order_id,buyer_order_id,bid_order_id}',  'id',     'required', NULL),
        ('seller_order_id', '{sell_order_id,seller_order_id,ask_order_id}', 'id',    'required', NULL),
        ('price',           '{price}',                                     'amount', 'required', NULL),
        ('quantity',        '{quantity,qty,amount,size}',                  'amount', 'required', NULL),
        ('buyer_fee',       '{buyer_fee,buy_fee}',                         'amount', 'fee',      NULL),
        ('seller_fee',      '{seller_fee,sell_fee}',                       'amount', 'fee',      NULL),
        ('trace_id',        '{trace_id,traceparent}',                      'trace',  'optional', NULL),
        ('executed_at',     '{executed_at,traded_at,created_at}',          'time',   'optional', NULL),
        ('status',          '{settlement_status}',                         'text',   'result',   'text'),
        ('settlement_id',   '{settlement_id}',                             'reference', 'result', 'text'),
        ('settled_at',      '{settled_at}',                                'time',   'result',   'timestamptz'),
        ('attempts',        '{settlement_attempts}',                       'count',  'result',   'integer'),
        ('error',           '{settlement_error}',                          'text',   'result',   'text')
    ) AS r (role, usual_names, holds, kind, add_type)
$$;
COMMENT ON FUNCTION settlement._roles() IS 'Internal: the roles a column can have, the names and types looked for, and what becomes of a missing one.';

CREATE FUNCTION settlement._base_type(type oid) RETURNS regtype
    LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE t AS (
        SELECT p.oid, p.typtype, p.typbasetype FROM pg_type p WHERE p.oid = $1
        UNION ALL
        SELECT p.oid, p.typtype, p.typbasetype
        FROM t JOIN pg_type p ON p.oid = t.typbasetype WHERE t.typtype = 'd')
    SELECT t.oid::regtype FROM t WHERE t.typtype <> 'd'
$$;
COMMENT ON FUNCTION settlement._base_type(oid) IS 'Internal: the type below all domains.';

-- Is this column good for this role?  NULL, or why not.
CREATE FUNCTION settlement._column_misfit(relation regclass, col name, role text) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN settlement._base_type(a.atttypid) <> ALL (r.types) THEN
            format('it has type %s; possible are %s', format_type(a.atttypid, a.atttypmod),
                   (SELECT string_agg(t::text, ', ') FROM unnest(r.types) t))
        WHEN r.kind = 'result' AND (a.attgenerated <> '' OR a.attidentity <> '') THEN
            'it is a generated column, and outcomes are written to it'
        WHEN a.attgenerated = 'v' THEN 'it is a virtual generated column'
        WHEN r.role = 'status' AND a.atttypid IN ('varchar'::regtype, 'bpchar'::regtype)
             AND a.atttypmod BETWEEN 0 AND 4 + 7 THEN
            format('it has type %s, too short for a status (8 characters)', format_type(a.atttypid, a.atttypmod))
        WHEN r.role = 'settlement_id' AND a.atttypid = 'varchar'::regtype
             AND a.atttypmod BETWEEN 0 AND 4 + 35 THEN
            format('it has type %s, too short for a settlement id (36 characters)', format_type(a.atttypid, a.atttypmod))
        END
    FROM settlement._roles() r, pg_attribute a
    WHERE r.role = _column_misfit.role AND a.attrelid = relation AND a.attname = col
$$;
COMMENT ON FUNCTION settlement._column_misfit(regclass, name, text) IS 'Internal: why a column cannot have a role; NULL when it can.';

-- The given mapping: known roles, existing columns, no column twice.
CREATE FUNCTION settlement._check_mapping(relation regclass, columns jsonb) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m record;
BEGIN
    IF jsonb_typeof(columns) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'columns must be a JSON object of role to column name'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = format('For example: SELECT settlement.attach(%L, ''{"price": "rate"}'');', relation);
    END IF;
    FOR m IN
        SELECT e.key AS role, e.value, e.value #>> '{}' AS col, r.kind
        FROM jsonb_each(columns) e LEFT JOIN settlement._roles() r ON r.role = e.key
    LOOP
        IF m.kind IS NULL THEN
            RAISE EXCEPTION 'unknown role "%" in columns', m.role
                USING ERRCODE = 'invalid_parameter_value',
                      HINT = 'Roles are ' || (SELECT string_agg(r.role, ', ') FROM settlement._roles() r) || '.';
        ELSIF m.col IS NULL AND m.kind IN ('fee', 'optional') THEN
            CONTINUE;           -- explicitly without
        ELSIF jsonb_typeof(m.value) <> 'string' THEN
            RAISE EXCEPTION 'the column of role "%" must be a name', m.role
                USING ERRCODE = 'invalid_parameter_value',
                      HINT = 'Names are taken as they are, without quotes; null stands for "none" where a role is optional.';
        ELSIF NOT EXISTS (SELECT FROM pg_attribute a
                          WHERE a.attrelid = relation AND a.attname = m.col
                            AND a.attnum > 0 AND NOT a.attisdropped) THEN
            RAISE EXCEPTION 'column "%" of table % does not exist', m.col, relation
                USING ERRCODE = 'undefined_column',
                      HINT = format('Columns are %s.',
                          (SELECT string_agg(a.attname, ', ' ORDER BY a.attnum) FROM pg_attribute a
                           WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped));
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION settlement._check_mapping(regclass, jsonb) IS 'Internal: raises an error for a mapping that names an unknown role or column.';

-- Complete the given mapping with the usual names.  Roles of kind result may be
-- missing from the answer: their columns have to be added.
CREATE FUNCTION settlement._find_columns(relation regclass, columns jsonb) RETURNS jsonb
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_columns jsonb := '{}';
    missing jsonb := '{}';
    r record;
    col name;
    misfit text;
BEGIN
    FOR r IN SELECT * FROM settlement._roles() LOOP
        IF columns ? r.role THEN
            col := columns ->> r.role;
        ELSE
            SELECT a.attname INTO col
            FROM unnest(r.usual_names) WITH ORDINALITY AS u (name, n)
            JOIN pg_attribute a ON a.attrelid = relation AND a.attname = u.name
                               AND a.attnum > 0 AND NOT a.attisdropped
            ORDER BY u.n LIMIT 1;
        END IF;
        IF col IS NULL THEN
            IF r.kind = 'required' THEN
                missing := missing || jsonb_build_object(r.role, '<column>');
            END IF;
            CONTINUE;
        END IF;
        misfit := settlement._column_misfit(relation, col, r.role);
        IF misfit IS NULL THEN
            found_columns := found_columns || jsonb_build_object(r.role, col);
        ELSIF columns ? r.role OR r.kind <> 'optional' THEN
            RAISE EXCEPTION 'column "%" of table % cannot be the %', col, relation, r.role
                USING ERRCODE = 'datatype_mismatch', DETAIL = initcap(left(misfit, 1)) || substr(misfit, 2) || '.',
                      HINT = format('Change its type, or name another column: SELECT settlement.attach(%L, %L);',
                                    relation, columns || jsonb_build_object(r.role, '<column>'));
        END IF;
    END LOOP;
    IF missing <> '{}' THEN
        RAISE EXCEPTION 'cannot find the columns of table % for %', relation,
                (SELECT string_agg(k, ', ') FROM jsonb_object_keys(missing) k)
            USING ERRCODE = 'undefined_column',
                  HINT = format('Name them: SELECT settlement.attach(%L, %L);', relation, columns || missing);
    END IF;
    RETURN found_columns;
END
$$;
COMMENT ON FUNCTION settlement._find_columns(regclass, jsonb) IS 'Internal: which column has which role, by the given mapping and the usual names.';

CREATE FUNCTION settlement._check_no_column_twice(columns jsonb) RETURNS void
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    twice record;
BEGIN
    SELECT e.value AS col, string_agg(e.key, ' and ' ORDER BY e.key) AS roles INTO twice
    FROM jsonb_each_text(columns) e
    WHERE e.key NOT IN ('trace_id', 'executed_at')
    GROUP BY e.value HAVING count(*) > 1 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'column "%" cannot be both %', twice.col, twice.roles
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Give each role a column of its own.';
    END IF;
END
$$;
COMMENT ON FUNCTION settlement._check_no_column_twice(jsonb) IS 'Internal: raises an error when two roles share a column.';

-- Add the missing columns for outcomes; returns the completed mapping.
CREATE FUNCTION settlement._add_columns(relation regclass, columns jsonb) RETURNS jsonb
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r record;
    added name[] := '{}';
    status_default text;
BEGIN
    FOR r IN
        SELECT role, usual_names[1] AS col, add_type FROM settlement._roles()
        WHERE kind = 'result' AND NOT columns ? role
    LOOP
        -- Without a default: old rows are none of our business.
        EXECUTE format('ALTER TABLE %s ADD COLUMN %I %s', relation, r.col, r.add_type);
        columns := columns || jsonb_build_object(r.role, r.col);
        added := added || r.col;
    END LOOP;

    SELECT pg_get_expr(d.adbin, d.adrelid) INTO status_default
    FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
    WHERE d.adrelid = relation AND a.attname = columns ->> 'status';
    IF status_default IS NULL THEN
        EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT %L',
                       relation, columns ->> 'status', 'PENDING');
        IF (columns ->> 'status') <> ALL (added) THEN
            RAISE NOTICE 'column "%" of table % now has the default ''PENDING''', columns ->> 'status', relation;
        END IF;
    ELSIF status_default !~ '^''PENDING''(::[^|()'']+(\(\d+\))?)?$' THEN
        RAISE WARNING 'column "%" of table % has the default %', columns ->> 'status', relation, status_default
            USING HINT = 'Only rows that say PENDING are settled.';
    END IF;
    IF added <> '{}' THEN
        RAISE NOTICE 'added to table %: %', relation, array_to_string(added, ', ')
            USING HINT = format('COPY %s FROM without a list of columns expects them in the file from now on.', relation);
    END IF;
    RETURN columns;
END
$$;
COMMENT ON FUNCTION settlement._add_columns(regclass, jsonb) IS 'Internal: adds the columns for outcomes that are missing, and the default of the status.';
