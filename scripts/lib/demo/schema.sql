-- schema.sql: an exchange's trade table, and what the demo knows about it.

-- The table as an exchange would have it: partitioned by day, composite key,
-- owned by a role without privileges (workers write outcomes as the owner).
CREATE ROLE exchange;
CREATE SCHEMA exchange AUTHORIZATION exchange;
SET ROLE exchange;
CREATE TABLE exchange.trades (
    trade_id        uuid NOT NULL,
    executed_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    symbol          text NOT NULL,
    buy_order_id    uuid NOT NULL,
    sell_order_id   uuid NOT NULL,
    buyer_user_id   text NOT NULL,
    seller_user_id  text NOT NULL,
    price           numeric(28, 10) NOT NULL,
    quantity        numeric(28, 10) NOT NULL,
    buyer_fee       numeric(28, 10) NOT NULL,
    seller_fee      numeric(28, 10) NOT NULL,
    PRIMARY KEY (trade_id, executed_at)
) PARTITION BY RANGE (executed_at);

-- Days beside today, so that midnight is not the end of the demo.
SELECT format('CREATE TABLE exchange.trades_%s PARTITION OF exchange.trades FOR VALUES FROM (%L) TO (%L)',
              to_char(day, 'YYYYMMDD'), day, day + interval '1 day')
FROM generate_series(date_trunc('day', now()) - interval '1 day',
                     date_trunc('day', now()) + interval '2 days', interval '1 day') AS day
\gexec

RESET ROLE;
CREATE EXTENSION settlement;
SELECT settlement.attach('exchange.trades') \g /dev/null

-- The matching engine may INSERT trades, and nothing else with them.
CREATE ROLE engine LOGIN;
GRANT USAGE ON SCHEMA exchange TO engine;
GRANT INSERT ON exchange.trades TO engine;

-- What the engine is going to report (the tape), who takes part, what each of
-- them pays in.  None of it is known to the extension.
CREATE SCHEMA tape;
CREATE TABLE tape.markets (
    symbol  text PRIMARY KEY,
    base    text NOT NULL,
    quote   text NOT NULL,
    price   numeric NOT NULL,   -- where the walk starts
    tick    numeric NOT NULL,
    lot     numeric NOT NULL,
    weight  integer NOT NULL    -- share of the trades
);
CREATE TABLE tape.trades (
    seq             integer PRIMARY KEY,
    kind            text NOT NULL CHECK (kind IN ('good', 'unknown user', 'no money', 'malformed')),
    trade_id        uuid NOT NULL,
    symbol          text NOT NULL,
    buy_order_id    uuid NOT NULL,
    sell_order_id   uuid NOT NULL,
    buyer_user_id   text NOT NULL,
    seller_user_id  text NOT NULL,
    price           numeric NOT NULL,
    quantity        numeric NOT NULL,
    buyer_fee       numeric NOT NULL,
    seller_fee      numeric NOT NULL,
    base            text NOT NULL,
    quote           text NOT NULL
);
CREATE TABLE tape.deposits (
    account   text NOT NULL,
    currency  text NOT NULL,
    amount    numeric NOT NULL,
    late      boolean NOT NULL      -- paid in only when the cause is repaired
);
GRANT USAGE ON SCHEMA tape TO engine;
GRANT SELECT ON tape.trades TO engine;
