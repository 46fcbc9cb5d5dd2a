-- Rows that lie in the state tables while others settle.
CREATE PROCEDURE bench.put_aside(kind text, n int) LANGUAGE plpgsql AS $$
DECLARE
    facts text := 'enqueued_at, attached_id, leaf, trade_id, symbol, buyer_id, seller_id, buyer_order_id,
        seller_order_id, price, quantity, quote_amount, buyer_fee, seller_fee';
    source text := format('now(), (SELECT attached_id FROM settlement.attached WHERE relid = ''public.trades''::regclass),
        ''public.trades''::regclass, ''aside-'' || i, ''ETH/USDT'', ''user-1'', ''user-2'', ''b'' || i, ''s'' || i,
        50000.25, 0.0125, 625.003125, 25, 12.5 FROM generate_series(1, %s) AS i', n);
BEGIN
    IF kind = 'dead' THEN
        EXECUTE format('INSERT INTO settlement.dlq (status, class, %s) SELECT ''FAILED'', ''rejected'', %s', facts, source);
    ELSIF kind = 'paused' THEN
        PERFORM settlement.pause('bench', 'ETH/USDT');
        EXECUTE format('INSERT INTO settlement.deferred (retry_at, reason, %s) SELECT ''infinity'', ''paused'', %s', facts, source);
    ELSIF kind = 'deferred' THEN
        EXECUTE format('INSERT INTO settlement.deferred (retry_at, reason, %s) SELECT now() + interval ''1 day'', ''retry'', %s', facts, source);
    END IF;
    COMMIT;
END $$;

CREATE PROCEDURE bench.take_away() LANGUAGE plpgsql AS $$
BEGIN
    TRUNCATE settlement.deferred, settlement.dlq;
    PERFORM settlement.resume('ETH/USDT') WHERE EXISTS (SELECT FROM settlement.pauses WHERE symbol = 'ETH/USDT');
END $$;
