-- tally.sql: how many dead letters there are, of what, without counting them.
--
-- Whoever changes settlement.dlq adds rows to settlement.dlq_tally in the same
-- transaction: SQL by these triggers, the INSERT trigger of trade tables in C
-- (src/queue/enqueue.c).  Rows are only added, so that nobody waits for another;
-- workers fold them (src/queue/tally.c).  Their sums are exact in every snapshot.
-- The tally is not dumped: a restore fires the triggers.

CREATE TABLE settlement.dlq_tally (
    status       text NOT NULL,
    class        text NOT NULL,
    code         text,
    http_status  integer,
    symbol       text,
    trades       bigint NOT NULL,
    discardable  bigint NOT NULL,
    quote_value  numeric NOT NULL,
    first_seen   timestamptz,
    last_seen    timestamptz
) USING heap WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_cost_delay = 0, vacuum_truncate = false);
-- A publication FOR ALL TABLES would forbid to delete from a table without a key.
ALTER TABLE settlement.dlq_tally REPLICA IDENTITY FULL;
COMMENT ON TABLE settlement.dlq_tally IS 'Sums over settlement.dlq, in parts that are to be added up; see settlement.dlq_summary.';
COMMENT ON COLUMN settlement.dlq_tally.status IS 'As in settlement.dlq.';
COMMENT ON COLUMN settlement.dlq_tally.class IS 'As in settlement.dlq.';
COMMENT ON COLUMN settlement.dlq_tally.code IS 'As in settlement.dlq.';
COMMENT ON COLUMN settlement.dlq_tally.http_status IS 'As in settlement.dlq.';
COMMENT ON COLUMN settlement.dlq_tally.symbol IS 'As in settlement.dlq.';
COMMENT ON COLUMN settlement.dlq_tally.quote_value IS 'Sum of their quote amounts.';
COMMENT ON COLUMN settlement.dlq_tally.first_seen IS 'When the first of those that came died.';
COMMENT ON COLUMN settlement.dlq_tally.last_seen IS 'When the last of those that came died.';
COMMENT ON COLUMN settlement.dlq_tally.trades IS 'Dead letters that came, less those that went.';
COMMENT ON COLUMN settlement.dlq_tally.discardable IS 'How many of them are safe_to_discard.';

CREATE FUNCTION settlement._tally_come() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO settlement.dlq_tally (status, class, code, http_status, symbol, trades, discardable,
                                      quote_value, first_seen, last_seen)
    SELECT c.status, c.class, c.code, c.http_status, c.symbol, count(*),
           count(*) FILTER (WHERE c.safe_to_discard), coalesce(sum(c.quote_amount), 0),
           min(c.died_at), max(c.died_at)
    FROM came c GROUP BY 1, 2, 3, 4, 5;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION settlement._tally_come() IS 'Internal: count dead letters that came.';

CREATE FUNCTION settlement._tally_go() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO settlement.dlq_tally (status, class, code, http_status, symbol, trades, discardable, quote_value)
    SELECT w.status, w.class, w.code, w.http_status, w.symbol, -count(*),
           -count(*) FILTER (WHERE w.safe_to_discard), -coalesce(sum(w.quote_amount), 0)
    FROM went w GROUP BY 1, 2, 3, 4, 5;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION settlement._tally_go() IS 'Internal: count dead letters that went.';

CREATE FUNCTION settlement._tally_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO settlement.dlq_tally (status, class, code, http_status, symbol, trades, discardable,
                                      quote_value, first_seen, last_seen)
    SELECT c.status, c.class, c.code, c.http_status, c.symbol, sum(c.n),
           coalesce(sum(c.n) FILTER (WHERE c.safe_to_discard), 0), coalesce(sum(c.n * c.quote_amount), 0),
           min(c.died_at), max(c.died_at)
    FROM (SELECT 1 AS n, x.* FROM came x UNION ALL SELECT -1, y.* FROM went y) c GROUP BY 1, 2, 3, 4, 5;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION settlement._tally_change() IS 'Internal: count dead letters that changed.';

CREATE FUNCTION settlement._tally_empty() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM settlement.dlq_tally;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION settlement._tally_empty() IS 'Internal: count dead letters after TRUNCATE: none.';

CREATE TRIGGER tally_come AFTER INSERT ON settlement.dlq REFERENCING NEW TABLE AS came
    FOR EACH STATEMENT EXECUTE FUNCTION settlement._tally_come();
CREATE TRIGGER tally_go AFTER DELETE ON settlement.dlq REFERENCING OLD TABLE AS went
    FOR EACH STATEMENT EXECUTE FUNCTION settlement._tally_go();
CREATE TRIGGER tally_change AFTER UPDATE ON settlement.dlq REFERENCING OLD TABLE AS went NEW TABLE AS came
    FOR EACH STATEMENT EXECUTE FUNCTION settlement._tally_change();
CREATE TRIGGER tally_empty AFTER TRUNCATE ON settlement.dlq
    FOR EACH STATEMENT EXECUTE FUNCTION settlement._tally_empty();
-- Also where session_replication_role is replica.
ALTER TABLE settlement.dlq ENABLE ALWAYS TRIGGER tally_come, ENABLE ALWAYS TRIGGER tally_go,
    ENABLE ALWAYS TRIGGER tally_change, ENABLE ALWAYS TRIGGER tally_empty;

-- Count anew, after a restore with --disable-triggers.  One statement sees both
-- tables in one snapshot; the lock keeps workers from folding meanwhile.
CREATE FUNCTION settlement._count_dead() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1398033485, 2);   -- TALLY_LOCK in src/queue/tally.c
    WITH former AS (DELETE FROM settlement.dlq_tally)
    INSERT INTO settlement.dlq_tally (status, class, code, http_status, symbol, trades, discardable,
                                      quote_value, first_seen, last_seen)
    SELECT d.status, d.class, d.code, d.http_status, d.symbol, count(*),
           count(*) FILTER (WHERE d.safe_to_discard), coalesce(sum(d.quote_amount), 0),
           min(d.died_at), max(d.died_at)
    FROM settlement.dlq d GROUP BY 1, 2, 3, 4, 5;
END $$;
COMMENT ON FUNCTION settlement._count_dead() IS 'Internal: count the dead letters anew.';

-- ---------------------------------------------------------------- what is dead

CREATE VIEW settlement.dlq_summary AS
SELECT t.status, t.class, t.code, t.http_status, t.symbol, sum(t.trades)::bigint AS trades,
       sum(t.quote_value) AS quote_value, min(t.first_seen) AS first_seen, max(t.last_seen) AS last_seen,
       sum(t.trades) = sum(t.discardable) AS safe_to_discard
FROM settlement.dlq_tally t
GROUP BY t.status, t.class, t.code, t.http_status, t.symbol HAVING sum(t.trades) > 0
ORDER BY trades DESC, last_seen DESC;
COMMENT ON VIEW settlement.dlq_summary IS 'Dead letters by what they died of and by symbol.  Exact, however many there are.';
COMMENT ON COLUMN settlement.dlq_summary.quote_value IS 'Sum of price x quantity, in the quote currency of the symbol.';
COMMENT ON COLUMN settlement.dlq_summary.first_seen IS 'When the first of this kind died, since there were none.';
COMMENT ON COLUMN settlement.dlq_summary.last_seen IS 'When the last of this kind died.';
COMMENT ON COLUMN settlement.dlq_summary.safe_to_discard IS 'Of all of them the wallet certainly did not move the money.';
