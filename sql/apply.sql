-- apply.sql: write an outcome to a trade row, and read it, for the operators' verbs.

CREATE FUNCTION settlement.apply_outcome(attached_id integer, leaf regclass,
        trade_tid tid, trade_id text, row_key text[], status text,
        settlement_id text, settled_at timestamptz, attempts integer, error text)
    RETURNS text
    AS 'MODULE_PATHNAME', 'settlement_apply_outcome'
    LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION settlement.apply_outcome(integer, regclass, tid, text, text[], text, text, timestamptz, integer, text) IS
    'Writes an outcome to a trade row, as the table''s owner, without waiting for locks: done, kept (the row says SETTLED or REVERSED and goes on to), locked, gone, unsearched (not found by its key, and a background worker does not read a large table for its trade id) or refused.  What the table''s triggers and constraints raise, it raises.';

CREATE FUNCTION settlement._read_row(attached_id integer, leaf regclass, trade_tid tid, trade_id text, row_key text[],
        OUT result text, OUT found_in regclass, OUT place tid, OUT status text)
    AS 'MODULE_PATHNAME', 'settlement_read_row'
    LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION settlement._read_row(integer, regclass, tid, text, text[]) IS
    'Internal: where a trade row is and which status it has, read as the table''s owner, without waiting for locks: found, locked, gone or unsearched.';
