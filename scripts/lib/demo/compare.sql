-- compare.sql: how far the trades are, and in the end the wallet's ledger against the trade table, to the last digit.
--
-- The two must agree on every posting of every trade of the tape, and with
-- them on the change of every balance.  Amounts are numeric, never rounded.

CREATE VIEW tape.progress AS
SELECT (SELECT value FROM settlement._counters() WHERE name = 'submitted')
           + (SELECT count(*) FROM settlement.dlq WHERE class = 'invalid_trade') AS inserted,
       (SELECT value FROM settlement._counters() WHERE name = 'settled') AS settled,
       greatest(z.queue - s.in_flight, 0) AS ready, s.in_flight, z.deferred, z.dlq,
       round(1000 * d.p50::numeric, 1) AS p50_ms, round(1000 * d.p99::numeric, 1) AS p99_ms
FROM settlement.status AS s, settlement._sizes() AS z, settlement._durations() AS d
WHERE d.name = 'settle';

-- What the wallet says: its postings of our settlements.
CREATE TABLE tape.ledger (
    transfer  text NOT NULL,        -- one effect of the wallet: its settlement id
    trade_id  text NOT NULL,
    account   text NOT NULL,
    currency  text NOT NULL,
    amount    numeric NOT NULL
);

-- What the database says: five postings per settled trade, zero sum per currency.
CREATE VIEW tape.expected AS
SELECT t.trade_id::text, p.account, p.currency, p.amount
FROM (SELECT *, split_part(translate(symbol, '-_', '//'), '/', 1) AS base,
             split_part(translate(symbol, '-_', '//'), '/', 2) AS quote
      FROM exchange.trades WHERE settlement_status = 'SETTLED') AS t
CROSS JOIN LATERAL (VALUES
    (buyer_user_id, quote, -(price * quantity + buyer_fee)),
    (buyer_user_id, base, quantity),
    (seller_user_id, base, -quantity),
    (seller_user_id, quote, price * quantity - seller_fee),
    ('exchange', quote, buyer_fee + seller_fee)) AS p (account, currency, amount);

-- The file is GET /ledger: a JSON object per line and posting.
CREATE FUNCTION tape.load_ledger(path text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
BEGIN
    CREATE TEMP TABLE lines (line text) ON COMMIT DROP;
    -- One column per line: neither a delimiter nor a quote occurs in JSON.
    EXECUTE format('COPY lines FROM %L (FORMAT csv, DELIMITER E''\x02'', QUOTE E''\x01'')', path);
    TRUNCATE tape.ledger;
    INSERT INTO tape.ledger
    SELECT p.settlement_id, p.trade_id, p.account, p.currency, p.amount
    FROM lines CROSS JOIN LATERAL jsonb_to_record(line::jsonb)
        AS p (settlement_id text, trade_id text, account text, currency text, amount numeric)
    WHERE p.trade_id IN (SELECT t.trade_id::text FROM tape.trades t);
    GET DIAGNOSTICS n = ROW_COUNT;
    ANALYZE tape.ledger;
    RETURN n;
END $$;

-- Posting by posting.  Where buyer and seller are the same, postings of one
-- trade fall together, so compare sums.
CREATE VIEW tape.differences AS
SELECT trade_id, account, currency, w.amount AS wallet, d.amount AS database
FROM (SELECT trade_id, account, currency, sum(amount) AS amount
      FROM tape.ledger GROUP BY 1, 2, 3) AS w
FULL JOIN (SELECT trade_id, account, currency, sum(amount) AS amount
           FROM tape.expected GROUP BY 1, 2, 3) AS d USING (trade_id, account, currency)
WHERE w.amount IS DISTINCT FROM d.amount;

-- Balance by balance.
CREATE VIEW tape.balances AS
SELECT account, currency, w.amount AS wallet, d.amount AS database
FROM (SELECT account, currency, sum(amount) AS amount FROM tape.ledger GROUP BY 1, 2) AS w
FULL JOIN (SELECT account, currency, sum(amount) AS amount FROM tape.expected GROUP BY 1, 2) AS d
    USING (account, currency);

CREATE VIEW tape.balances_by_currency AS
SELECT currency, count(*) AS accounts,
       trim_scale(sum(greatest(wallet, 0))) AS "gained (wallet)",
       trim_scale(sum(greatest(database, 0))) AS "gained (database)",
       trim_scale(sum(wallet)) AS "net (wallet)", trim_scale(sum(database)) AS "net (database)",
       count(*) FILTER (WHERE wallet IS DISTINCT FROM database) AS differ
FROM tape.balances GROUP BY currency ORDER BY currency;

-- Lost: a trade of the tape that is not in the table, that is neither settled
-- nor in the DLQ, or that is settled although the wallet knows nothing of it.
CREATE VIEW tape.verdict AS
SELECT count(*) FILTER (WHERE t.kind <> 'malformed') AS trades,
       count(*) FILTER (WHERE t.kind <> 'malformed' AND e.settlement_status = 'SETTLED' AND w.transfers > 0) AS settled,
       count(*) FILTER (WHERE e.trade_id IS NULL
           OR (e.settlement_status = 'SETTLED') <> (w.transfers IS NOT NULL)
           OR (e.settlement_status <> 'SETTLED' AND d.trade_id IS NULL)) AS lost,
       count(*) FILTER (WHERE w.transfers > 1) AS doubled,
       count(*) FILTER (WHERE d.trade_id IS NOT NULL) AS dead,
       count(*) FILTER (WHERE t.kind = 'malformed' AND e.settlement_status = 'FAILED' AND d.trade_id IS NOT NULL
           AND w.transfers IS NULL) AS malformed_dead,
       count(*) FILTER (WHERE t.kind = 'malformed') AS malformed,
       (SELECT count(*) FROM tape.differences) AS differences
FROM tape.trades AS t
LEFT JOIN exchange.trades AS e USING (trade_id)
LEFT JOIN (SELECT trade_id, count(DISTINCT transfer) AS transfers FROM tape.ledger GROUP BY 1) AS w
    ON w.trade_id = t.trade_id::text
LEFT JOIN (SELECT DISTINCT trade_id FROM settlement.dlq) AS d ON d.trade_id = t.trade_id::text;
