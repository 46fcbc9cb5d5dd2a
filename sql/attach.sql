-- attach.sql: which tables hold trades.  What their columns mean is in columns.sql.
--
-- Functions whose names begin with an underscore are internal.

CREATE FUNCTION settlement.enqueue() RETURNS trigger
    AS 'MODULE_PATHNAME', 'settlement_enqueue' LANGUAGE c;
COMMENT ON FUNCTION settlement.enqueue() IS 'Trigger of attached tables: puts a new PENDING trade into the queue in the same transaction.  Never fails the INSERT because of what the trade holds: an invalid one goes to the DLQ.  A DELETE it only notes, so that a row that moves to another partition is not queued twice.';

CREATE FUNCTION settlement._enqueue_row(leaf regclass, trade tid, first_sent_at timestamptz) RETURNS boolean
    AS 'MODULE_PATHNAME', 'settlement_enqueue_row' LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION settlement._enqueue_row(regclass, tid, timestamptz) IS 'Internal: defers an existing PENDING trade for a look-up at the wallet; an invalid one goes to the DLQ.  first_sent_at: when it may have been sent first; NULL: it was not.';

CREATE FUNCTION settlement._is_preloaded() RETURNS boolean
    AS 'MODULE_PATHNAME', 'settlement_is_preloaded' LANGUAGE c STABLE PARALLEL SAFE;
COMMENT ON FUNCTION settlement._is_preloaded() IS 'Internal: whether the library was loaded by shared_preload_libraries.';

CREATE FUNCTION settlement._relations_of(relation regclass) RETURNS SETOF regclass
    LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT relation UNION SELECT relid FROM pg_partition_tree(relation)
$$;
COMMENT ON FUNCTION settlement._relations_of(regclass) IS 'Internal: a table and all its partitions.';

CREATE FUNCTION settlement._trades_of(attached_id integer) RETURNS bigint
    LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (SELECT count(*) FROM settlement.queue q WHERE q.attached_id = $1)
         + (SELECT count(*) FROM settlement.deferred d WHERE d.attached_id = $1)
         + (SELECT count(*) FROM settlement.dlq d WHERE d.attached_id = $1)
         + (SELECT count(*) FROM settlement.unapplied u WHERE u.attached_id = $1)
$$;
COMMENT ON FUNCTION settlement._trades_of(integer) IS 'Internal: rows of queue, deferred, dlq and unapplied that refer to an attached table.';

-- Refuse what cannot hold trades.
CREATE FUNCTION settlement._check_table(relation regclass) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c pg_class;
    leaf record;
BEGIN
    SELECT * INTO c FROM pg_class WHERE oid = relation;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'relation with OID % does not exist', relation::oid
            USING ERRCODE = 'undefined_table';
    ELSIF c.relkind NOT IN ('r', 'p') THEN
        RAISE EXCEPTION '% is not a table', relation
            USING ERRCODE = 'wrong_object_type',
                  HINT = 'Attach the table or partitioned table that the trades are inserted into.';
    ELSIF c.relpersistence = 't' THEN
        RAISE EXCEPTION 'cannot attach temporary table %', relation
            USING ERRCODE = 'wrong_object_type',
                  HINT = 'Workers are other sessions: they could not see its rows.';
    ELSIF c.oid < 16384 OR c.relnamespace = 'settlement'::regnamespace THEN
        RAISE EXCEPTION 'cannot attach system table %', relation
            USING ERRCODE = 'insufficient_privilege';
    ELSIF c.relispartition THEN
        RAISE EXCEPTION '% is a partition', relation
            USING ERRCODE = 'wrong_object_type',
                  HINT = format('Attach the partitioned table: SELECT settlement.attach(%L);',
                                pg_partition_root(relation));
    ELSIF EXISTS (SELECT FROM pg_inherits i
                  WHERE i.inhrelid = relation OR i.inhparent = relation AND c.relkind = 'r') THEN
        RAISE EXCEPTION '% is part of an inheritance tree', relation
            USING ERRCODE = 'feature_not_supported',
                  HINT = 'Use a plain table or declarative partitioning.';
    END IF;
    FOR leaf IN
        SELECT l.oid::regclass AS name, l.relkind, l.relpersistence
        FROM settlement._relations_of(relation) r JOIN pg_class l ON l.oid = r
    LOOP
        IF leaf.relkind = 'f' THEN
            RAISE EXCEPTION 'partition % is a foreign table', leaf.name
                USING ERRCODE = 'wrong_object_type',
                      HINT = 'Trades have to be in this database, so that they commit together with their queue entry.';
        ELSIF leaf.relpersistence = 'u' THEN
            RAISE EXCEPTION 'table % is unlogged', leaf.name
                USING ERRCODE = 'feature_not_supported',
                      HINT = format('Its trades could be paid and then be lost in a crash. ALTER TABLE %s SET LOGGED;', leaf.name);
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION settlement._check_table(regclass) IS 'Internal: raises an error for a relation that cannot be attached.';

CREATE FUNCTION settlement._key_columns(relation regclass) RETURNS name[]
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    i pg_index;
    key_columns name[] := '{}';
    col record;
BEGIN
    SELECT * INTO i FROM pg_index WHERE indrelid = relation AND indisprimary;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'table % has no primary key', relation
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = format('Outcomes are written to its rows by key. ALTER TABLE %s ADD PRIMARY KEY (...);', relation);
    ELSIF NOT i.indimmediate THEN
        RAISE EXCEPTION 'the primary key of table % is deferrable', relation
            USING ERRCODE = 'feature_not_supported',
                  HINT = 'Make it NOT DEFERRABLE.';
    ELSIF i.indnkeyatts > 8 THEN
        RAISE EXCEPTION 'the primary key of table % has more than 8 columns', relation
            USING ERRCODE = 'program_limit_exceeded';
    END IF;
    FOR col IN
        SELECT a.attname, settlement._base_type(a.atttypid) AS type
        FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, n)
        JOIN pg_attribute a ON a.attrelid = relation AND a.attnum = k.attnum
        WHERE k.n <= i.indnkeyatts
        ORDER BY k.n
    LOOP
        IF col.type <> ALL ('{text,varchar,bpchar,uuid,bigint,integer,smallint,timestamptz,timestamp,date,numeric}'::regtype[]) THEN
            RAISE EXCEPTION 'column "%" of the primary key of table % has type %, which is not supported in a key',
                    col.attname, relation, col.type
                USING ERRCODE = 'feature_not_supported',
                      HINT = 'Key columns can be text, varchar, char, uuid, integers, numeric, date, timestamp and timestamptz.';
        END IF;
        key_columns := key_columns || col.attname;
    END LOOP;
    RETURN key_columns;
END
$$;
COMMENT ON FUNCTION settlement._key_columns(regclass) IS 'Internal: the primary key in key order; raises an error when there is none that can be used.';

-- What works, but worse than it could.
CREATE FUNCTION settlement._warn_of(relation regclass, columns jsonb) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    w record;
BEGIN
    IF NOT settlement._is_preloaded() THEN
        RAISE WARNING 'settlement is not in shared_preload_libraries: trades are queued, but nothing settles them'
            USING HINT = 'Add it to shared_preload_libraries and restart the server.';
    END IF;
    IF NOT columns ? 'buyer_fee' OR NOT columns ? 'seller_fee' THEN
        RAISE NOTICE 'table % has no column for %: taken as zero', relation,
            concat_ws(' and ', CASE WHEN NOT columns ? 'buyer_fee' THEN 'buyer_fee' END,
                               CASE WHEN NOT columns ? 'seller_fee' THEN 'seller_fee' END);
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attname = columns ->> 'trade_id'
        WHERE i.indrelid = relation AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL
          AND a.attnum = ANY (i.indkey::int2[])
          -- A partitioned table cannot have a unique index without its partition key.
          AND (i.indnkeyatts = 1 OR EXISTS (SELECT FROM pg_partitioned_table p WHERE p.partrelid = relation)))
    THEN
        RAISE WARNING 'no unique index keeps "%" of table % unique', columns ->> 'trade_id', relation
            USING DETAIL = 'Two trades with the same id count as one: the second is not settled.',
                  HINT = format('CREATE UNIQUE INDEX CONCURRENTLY ON %s (%I);', relation, columns ->> 'trade_id');
    ELSIF NOT EXISTS (
        SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attname = columns ->> 'trade_id'
        WHERE i.indrelid = relation AND i.indpred IS NULL AND i.indkey[0] = a.attnum)
    THEN
        RAISE NOTICE 'no index begins with "%" of table %', columns ->> 'trade_id', relation
            USING DETAIL = 'A row whose key is changed while its trade is settled is not found again in a large table.',
                  HINT = format('CREATE INDEX ON %s (%I);', relation, columns ->> 'trade_id');
    END IF;
    FOR w IN
        SELECT min(c.oid::regclass::text) AS name, r.rolname AS owner
        FROM settlement._relations_of(relation) t JOIN pg_class c ON c.oid = t
        JOIN pg_roles r ON r.oid = c.relowner
        WHERE r.rolsuper GROUP BY r.rolname
    LOOP
        RAISE WARNING 'the owner of table % is superuser %', w.name, w.owner
            USING DETAIL = 'Workers write outcomes as the owner of the table, and run its triggers and defaults as such.',
                  HINT = 'Give trade tables to a role without SUPERUSER: ALTER TABLE ... OWNER TO ...;';
    END LOOP;
    FOR w IN
        SELECT d.objid::regclass AS index, string_agg(DISTINCT a.attname, ', ') AS cols
        FROM settlement._relations_of(relation) t
        JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = t
        JOIN pg_class i ON i.oid = d.objid AND i.relkind IN ('i', 'I')
        JOIN pg_attribute a ON a.attrelid = t AND a.attnum = d.refobjsubid
        WHERE a.attname IN (SELECT columns ->> role FROM settlement._roles() WHERE kind = 'result')
        GROUP BY d.objid
    LOOP
        RAISE WARNING 'index % uses %', w.index, w.cols
            USING DETAIL = 'An index on a column that settlement writes, even in a predicate, makes each update several times as dear (no HOT).',
                  HINT = 'Look for trades by status in the views of settlement instead, and drop the index.';
    END LOOP;
    IF EXISTS (SELECT FROM settlement._relations_of(relation) t JOIN pg_class c ON c.oid = t
               WHERE c.relkind = 'r' AND coalesce(c.reloptions::text, '') !~ 'fillfactor=') THEN
        RAISE NOTICE 'table % has no fillfactor', relation
            USING HINT = format('Each trade is updated once. Room on its page makes that cheaper: ALTER TABLE %s SET (fillfactor = 40), for each partition.', relation);
    END IF;
END
$$;
COMMENT ON FUNCTION settlement._warn_of(regclass, jsonb) IS 'Internal: the warnings and notices of attach().';

-- The row of settlement.attached.  A table that was detached, or dropped and made
-- anew, takes over the row with its source, since trades may refer to it.
CREATE FUNCTION settlement._register(relation regclass, columns jsonb, key_columns name[], source text)
    RETURNS integer
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    old settlement.attached;
    id integer;
BEGIN
    FOR old IN
        SELECT * FROM settlement.attached t
        WHERE t.relid = relation OR t.source = _register.source
        ORDER BY t.source <> _register.source
        FOR UPDATE
    LOOP
        IF old.relid <> relation AND old.detached_at IS NULL
           AND EXISTS (SELECT FROM pg_class c WHERE c.oid = old.relid) THEN
            RAISE EXCEPTION 'source "%" is the one of table %', source, old.relid
                USING ERRCODE = 'unique_violation',
                      HINT = format('Idempotency keys are made of it. Choose another: SELECT settlement.attach(%L, source => ...);', relation);
        ELSIF (old.source <> source OR old.key_columns <> _register.key_columns)
              AND settlement._trades_of(old.attached_id) > 0 THEN
            RAISE EXCEPTION 'trades of table % are still to be settled under source "%" and key (%)',
                    old.relid, old.source, array_to_string(old.key_columns, ', ')
                USING ERRCODE = 'object_in_use',
                      HINT = 'Attach with the same source and key, or drain the queue and empty the DLQ first.';
        ELSIF id IS NULL AND old.source = source THEN
            id := old.attached_id;
        ELSE
            DELETE FROM settlement.attached t WHERE t.attached_id = old.attached_id;
        END IF;
    END LOOP;
    IF id IS NULL THEN
        INSERT INTO settlement.attached (relid, source, columns, key_columns)
        VALUES (relation, source, columns, key_columns) RETURNING attached_id INTO id;
    ELSE
        UPDATE settlement.attached t
        SET relid = relation, columns = _register.columns, key_columns = _register.key_columns,
            attached_at = now(), attached_by = current_user, detached_at = NULL
        WHERE t.attached_id = id;
    END IF;
    RETURN id;
END
$$;
COMMENT ON FUNCTION settlement._register(regclass, jsonb, name[], text) IS 'Internal: writes the row of settlement.attached.';

-- A partition takes a copy of the trigger, so that whoever creates one needs
-- EXECUTE on its function: that is the owner of what is partitioned.
CREATE FUNCTION settlement._partition_owners(relation regclass) RETURNS SETOF oid
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT DISTINCT c.relowner FROM settlement._relations_of(relation) r JOIN pg_class c ON c.oid = r WHERE c.relkind = 'p'
$$;
COMMENT ON FUNCTION settlement._partition_owners(regclass) IS 'Internal: roles that may create partitions of a table.';

CREATE FUNCTION settlement._allow_partitions(relation regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner oid;
BEGIN
    FOR owner IN SELECT o FROM settlement._partition_owners(relation) o LOOP
        IF NOT has_function_privilege(owner, 'settlement.enqueue()', 'EXECUTE') THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION settlement.enqueue() TO %s', owner::regrole);
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION settlement._allow_partitions(regclass) IS 'Internal: lets the owners of a partitioned table go on creating partitions.';

CREATE FUNCTION settlement._disallow_partitions(relation regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner oid;
BEGIN
    FOR owner IN
        SELECT o FROM settlement._partition_owners(relation) o
        EXCEPT
        SELECT o FROM settlement.attached a, settlement._partition_owners(a.relid) o
        WHERE a.relid <> relation AND a.detached_at IS NULL
        EXCEPT
        SELECT proowner FROM pg_proc WHERE oid = 'settlement.enqueue()'::regprocedure
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION settlement.enqueue() FROM %s', owner::regrole);
    END LOOP;
END
$$;
COMMENT ON FUNCTION settlement._disallow_partitions(regclass) IS 'Internal: takes back what _allow_partitions gave, unless another attached table needs it.';

CREATE FUNCTION settlement.attach(relation regclass, columns jsonb DEFAULT '{}', source text DEFAULT NULL)
    RETURNS TABLE (role text, column_name name)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    mapping jsonb;
    key_columns name[];
    id integer;
BEGIN
    IF relation IS NULL THEN
        RAISE EXCEPTION 'relation must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    PERFORM settlement._check_table(relation);
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', relation);
    PERFORM settlement._check_table(relation);
    IF EXISTS (SELECT FROM settlement.attached t WHERE t.relid = relation AND t.detached_at IS NULL) THEN
        RAISE EXCEPTION 'table % is already attached', relation
            USING ERRCODE = 'duplicate_object',
                  HINT = format('To change the mapping: SELECT settlement.detach(%L); and attach it again.', relation);
    END IF;
    IF source IS NULL THEN
        SELECT format('%I.%I', n.nspname, c.relname) INTO source
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation;
    ELSIF source = '' OR octet_length(source) > 255 THEN
        RAISE EXCEPTION 'source must have 1 to 255 bytes' USING ERRCODE = 'invalid_parameter_value';
    END IF;

    -- A column with whole traceparents serves as well: the trace id is taken out.
    IF jsonb_typeof(columns) = 'object' AND columns ? 'traceparent' AND NOT columns ? 'trace_id' THEN
        columns := columns - 'traceparent' || jsonb_build_object('trace_id', columns -> 'traceparent');
    END IF;
    key_columns := settlement._key_columns(relation);
    PERFORM settlement._check_mapping(relation, columns);
    mapping := settlement._find_columns(relation, columns);
    PERFORM settlement._check_no_column_twice(mapping);
    mapping := settlement._add_columns(relation, mapping);
    id := settlement._register(relation, mapping, key_columns, source);
    EXECUTE format('CREATE TRIGGER settlement_enqueue AFTER INSERT OR DELETE ON %s
                    FOR EACH ROW EXECUTE FUNCTION settlement.enqueue()', relation);
    PERFORM settlement._allow_partitions(relation);
    PERFORM settlement._audit('attach', id, NULL,
        jsonb_build_object('table', relation, 'source', source, 'columns', mapping), NULL, NULL);
    IF NOT EXISTS (SELECT FROM settlement.identity) THEN
        PERFORM settlement.write_identity(format('attach of %s', relation));
    END IF;
    PERFORM settlement._warn_of(relation, mapping);
    RETURN QUERY SELECT r.role, (mapping ->> r.role)::name FROM settlement._roles() r WHERE mapping ? r.role;
END
$$;
COMMENT ON FUNCTION settlement.attach(regclass, jsonb, text) IS 'Settle the trades that are inserted into a table from now on.  Finds the columns by their usual names or by the given mapping of role to name, adds missing columns for the outcome, and returns the mapping.  source is part of each idempotency key (default: the qualified name of the table).  Takes ACCESS EXCLUSIVE for a moment: set lock_timeout before.';

CREATE FUNCTION settlement.detach(relation regclass) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    id integer;
    left_over bigint;
BEGIN
    IF relation IS NULL THEN
        RAISE EXCEPTION 'relation must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    SELECT t.attached_id INTO id FROM settlement.attached t
    WHERE t.relid = relation AND t.detached_at IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'table % is not attached', relation
            USING ERRCODE = 'undefined_object',
                  HINT = 'SELECT relid FROM settlement.attached; lists attached tables.';
    END IF;
    -- Waits for transactions that are inserting: their trades are counted below.
    IF EXISTS (SELECT FROM pg_class c WHERE c.oid = relation) THEN
        EXECUTE format('DROP TRIGGER IF EXISTS settlement_enqueue ON %s', relation);
        PERFORM settlement._disallow_partitions(relation);
    END IF;
    left_over := settlement._trades_of(id);
    IF left_over > 0 OR current_setting('transaction_isolation') <> 'read committed' THEN
        UPDATE settlement.attached t SET detached_at = now() WHERE t.attached_id = id;
    ELSE
        DELETE FROM settlement.attached t WHERE t.attached_id = id;
    END IF;
    IF left_over > 0 THEN
        RAISE NOTICE 'trades of table % that are not finished: %', relation, left_over
            USING DETAIL = 'They will be settled all the same; what is in the DLQ stays there.',
                  HINT = 'Keep the columns for outcomes until then.';
    END IF;
    PERFORM settlement._audit('detach', id, NULL, jsonb_build_object('table', relation), left_over, NULL);
    RETURN left_over;
END
$$;
COMMENT ON FUNCTION settlement.detach(regclass) IS 'Queue no more trades of a table: drops the trigger, keeps all columns.  Trades that are queued or in the DLQ already go on; returns how many there are.';

-- When such a trade may first have been sent: not before it was executed, and a time
-- without a time zone may be that of the easternmost one; else at any time.
CREATE FUNCTION settlement._sent_since(a settlement.attached) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce((
        SELECT format(CASE settlement._base_type(c.atttypid)
                          WHEN 'timestamptz'::regtype THEN 'coalesce(t.%I, ''-infinity'')'
                          ELSE 'coalesce(t.%I AT TIME ZONE ''Etc/GMT-14'', ''-infinity'')' END, c.attname)
        FROM pg_attribute c
        WHERE c.attrelid = a.relid AND c.attname = a.columns ->> 'executed_at'), '''-infinity''::timestamptz')
$$;
COMMENT ON FUNCTION settlement._sent_since(settlement.attached) IS 'Internal: an expression for when a trade that is queued nowhere may first have been sent.';

CREATE FUNCTION settlement._pending_query(a settlement.attached, since timestamptz, max bigint, never_sent boolean) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    -- A trade without id is known by its place alone.
    SELECT format('SELECT t.tableoid::regclass AS leaf, t.ctid AS tid, %s AS sent FROM %s t WHERE t.%I = ''PENDING''',
                  CASE WHEN never_sent THEN 'NULL::timestamptz' ELSE settlement._sent_since(a) END, a.relid, a.columns ->> 'status')
        || string_agg(format(' AND NOT EXISTS (SELECT FROM settlement.%I s WHERE s.attached_id = %s AND s.trade_id = t.%I::text)',
                             s, a.attached_id, a.columns ->> 'trade_id')
                   || format(' AND NOT EXISTS (SELECT FROM settlement.%I s WHERE s.trade_id IS NULL AND s.attached_id = %s AND s.leaf = t.tableoid AND s.trade_tid = t.ctid)',
                             s, a.attached_id), '')
        || CASE WHEN since IS NULL THEN '' ELSE format(' AND t.%I >= %L', a.columns ->> 'executed_at', since) END
        || CASE WHEN a.columns ? 'executed_at' THEN format(' ORDER BY t.%I', a.columns ->> 'executed_at') ELSE '' END
        || CASE WHEN max IS NULL THEN '' ELSE format(' LIMIT %s', max) END
    FROM unnest('{queue,deferred,dlq,unapplied}'::name[]) s
$$;
COMMENT ON FUNCTION settlement._pending_query(settlement.attached, timestamptz, bigint, boolean) IS 'Internal: the statement that finds PENDING trades which are queued nowhere.';

CREATE FUNCTION settlement.enqueue_pending(relation regclass, since timestamptz DEFAULT NULL,
                                           dry_run boolean DEFAULT true, max bigint DEFAULT NULL,
                                           never_sent boolean DEFAULT false)
    RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    a settlement.attached;
    query text;
    p record;
    tried bigint := 0;
    n bigint := 0;
BEGIN
    -- Two at a time would enqueue the same trades.
    SELECT * INTO a FROM settlement.attached t
    WHERE t.relid = relation AND t.detached_at IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'table % is not attached', relation
            USING ERRCODE = 'undefined_object',
                  HINT = format('SELECT settlement.attach(%L);', relation);
    ELSIF since IS NOT NULL AND NOT a.columns ? 'executed_at' THEN
        RAISE EXCEPTION 'table % has no column for "since" to look at', relation
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = format('Detach it, and name the column: SELECT settlement.attach(%L, ''{"executed_at": "<column>"}'');', relation);
    ELSIF max < 0 THEN
        RAISE EXCEPTION 'max must not be negative' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    query := settlement._pending_query(a, since, max, coalesce(never_sent, false));
    IF dry_run THEN
        EXECUTE format('SELECT count(*) FROM (%s) p', query) INTO n;
        IF n > 0 THEN
            RAISE NOTICE 'nothing was taken up: this only counts'
                USING HINT = 'Pass dry_run => false to enqueue them.';
        END IF;
        RETURN n;
    END IF;
    PERFORM settlement._progress_begin('enqueue_pending', relation::text, max);
    FOR p IN EXECUTE query LOOP
        IF settlement._enqueue_row(p.leaf, p.tid, p.sent) THEN
            n := n + 1;
        END IF;
        tried := tried + 1;
        IF tried % 100 = 0 THEN
            PERFORM settlement._progress(NULL, tried, NULL);
        END IF;
    END LOOP;
    PERFORM settlement._progress_end();
    PERFORM settlement._audit('enqueue_pending', a.attached_id, NULL,
        jsonb_build_object('since', since, 'max', max, 'never_sent', nullif(never_sent, false)), n, NULL);
    RETURN n;
END
$$;
COMMENT ON FUNCTION settlement.enqueue_pending(regclass, timestamptz, boolean, bigint, boolean) IS 'Take up PENDING trades that are queued nowhere, as after a restore or with the trigger disabled.  They count as maybe sent when they were executed: the wallet is asked before anything is sent, and what it does not know waits in deferred if that is longer ago than settlement.idempotency_window, or if the table has no column of role executed_at; with never_sent, which says that no request for them ever left, it is sent.  Invalid ones go to the DLQ.  since compares the column of role executed_at.  Returns how many; with dry_run (the default) it only counts.';
