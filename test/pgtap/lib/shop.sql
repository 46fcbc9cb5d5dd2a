-- shop.sql: a trade table, and how to have trades of it dead.  Read in with \ir.
CREATE SCHEMA shop;
CREATE TABLE shop.trades (trade_id text PRIMARY KEY, symbol text, buyer_id text, seller_id text,
    buyer_order_id text, seller_order_id text, price numeric, quantity numeric,
    buyer_fee numeric, seller_fee numeric);
SELECT settlement.attach('shop.trades') IS NOT NULL AS attached;

-- A trade row that says `status`, and its dead letter.
CREATE FUNCTION pg_temp.dead(id text, status text DEFAULT 'FAILED', class text DEFAULT 'rejected',
    code text DEFAULT NULL, final boolean DEFAULT false, maybe_executed boolean DEFAULT false,
    sent interval DEFAULT '1 hour', died interval DEFAULT '1 hour', symbol text DEFAULT 'BTC/USDT',
    value numeric DEFAULT 100, relation regclass DEFAULT 'shop.trades')
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    result bigint;
BEGIN
    EXECUTE format('INSERT INTO %s VALUES ($1, $2, ''b'', ''s'', ''bo'', ''so'', 10, 10, 0, 0, $3)
                    ON CONFLICT (trade_id) DO UPDATE SET settlement_status = excluded.settlement_status', relation)
    USING id, symbol, status;
    INSERT INTO settlement.dlq (status, class, code, message, died_at, final_rejection, enqueued_at,
        attached_id, leaf, attempts, charged, format, maybe_executed, trade_id, symbol,
        buyer_id, seller_id, buyer_order_id, seller_order_id, price, quantity, quote_amount, buyer_fee,
        seller_fee, first_sent_at, pending_ms, fingerprint)
    SELECT dead.status, dead.class, dead.code, 'why', now() - died, final, now() - interval '2 hours',
        a.attached_id, a.relid, 3, 3, 1, dead.maybe_executed, id, dead.symbol,
        'b', 's', 'bo', 'so', 10, 10, value, 0, 0, now() - sent, 700, '\xaa'
    FROM settlement.attached a WHERE a.relid = relation RETURNING dlq.id INTO result;
    RETURN result;
END $$;
