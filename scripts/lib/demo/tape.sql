-- tape.sql: write the tape: :trades trades that can settle in the end, of
-- :symbols, and a few malformed ones beside them; the accounts that they need.
-- The same seed gives the same prices, quantities and parties.

SELECT setseed(0.42) \g /dev/null

-- What is known of a market; others start at 10 with usual steps.
INSERT INTO tape.markets
SELECT s.symbol, split_part(m.pair, '/', 1), split_part(m.pair, '/', 2),
       coalesce(k.price, 10), coalesce(k.tick, 0.0001), coalesce(k.lot, 0.01), coalesce(k.weight, 2)
FROM regexp_split_to_table(:'symbols', '\s*,\s*') AS s (symbol)
CROSS JOIN LATERAL (SELECT translate(s.symbol, '-_', '//')) AS m (pair)
LEFT JOIN (VALUES
    ('BTC/USDT', 67123.40, 0.10, 0.00001, 6),
    ('ETH/USDT', 3391.72, 0.01, 0.0001, 4),
    ('SOL/USDT', 148.35, 0.01, 0.001, 3),
    ('ETH/BTC', 0.05053, 0.00001, 0.0001, 1),
    ('XRP/USDT', 0.5214, 0.0001, 0.1, 2),
    ('DOGE/USDT', 0.12345, 0.00001, 1, 2)) AS k (pair, price, tick, lot, weight)
    ON k.pair = m.pair;

-- A few per kind: 1 in 400, at least 2, at most 25.
SELECT least(greatest(:trades / 400, 2), 25, :trades / 4) AS few,
       least(greatest(:trades / 20, 10), 500) AS users \gset

INSERT INTO tape.trades
WITH draw AS MATERIALIZED (
    SELECT seq, random() AS r_market, random() AS r_kind, random() AS r_qty, random() AS r_taker,
           random() + random() + random() + random() - 2 AS step,     -- about normal
           1 + floor(random() * :users) AS buyer, 1 + floor(random() * :users) AS seller
    FROM generate_series(0, :trades + :few - 1) AS seq
), kinds AS (
    SELECT *, CASE WHEN rank <= :few THEN 'malformed'
                   WHEN rank <= 2 * :few THEN 'unknown user'
                   WHEN rank <= 3 * :few THEN 'no money'
                   ELSE 'good' END AS kind
    FROM (SELECT *, row_number() OVER (ORDER BY r_kind) AS rank FROM draw) AS d
), shares AS (
    SELECT *, (sum(weight) OVER (ORDER BY symbol) - weight)::float8 / sum(weight) OVER () AS low,
           sum(weight) OVER (ORDER BY symbol)::float8 / sum(weight) OVER () AS high
    FROM tape.markets
), walk AS (
    SELECT k.*, m.symbol, m.base, m.quote, m.tick, m.lot,
           -- A random walk of about 2 basis points per trade, on the tick.
           greatest(m.tick, round(m.price * exp(sum(k.step * 0.0002)
               OVER (PARTITION BY m.symbol ORDER BY k.seq))::numeric / m.tick) * m.tick) AS walked
    FROM kinds AS k JOIN shares AS m ON k.r_market >= m.low AND k.r_market < m.high
), sized AS (
    SELECT *,
           lot * ceil(-ln(1 - r_qty) * 200)::numeric AS size      -- many small, few large
    FROM walk
)
SELECT seq, kind, gen_random_uuid(),
       CASE WHEN kind <> 'malformed' THEN symbol
            WHEN seq % 2 = 0 THEN base || quote         -- no separator
            ELSE base || '/' END,                       -- no quote currency
       gen_random_uuid(), gen_random_uuid(),
       :'prefix' || CASE kind WHEN 'unknown user' THEN 'newcomer-' || (1 + seq % 2)
                              WHEN 'no money' THEN 'pauper-' || (1 + seq % 2)
                              ELSE 'trader-' || lpad(buyer::text, 4, '0') END,
       :'prefix' || 'trader-' || lpad(seller::text, 4, '0'),
       walked, size,
       -- Taker 10, maker 2 basis points of the value, to 10 digits.
       round(walked * size * CASE WHEN r_taker < 0.5 THEN 0.0010 ELSE 0.0002 END, 10),
       round(walked * size * CASE WHEN r_taker < 0.5 THEN 0.0002 ELSE 0.0010 END, 10),
       base, quote
FROM sized;

-- Everybody can pay for all trades in any order; who must fail, only later.
INSERT INTO tape.deposits
SELECT account, currency, ceil(sum(amount)), account LIKE :'prefix' || 'newcomer-%' OR account LIKE :'prefix' || 'pauper-%'
FROM tape.trades CROSS JOIN LATERAL (VALUES
    (buyer_user_id, quote, price * quantity + buyer_fee),
    (seller_user_id, base, quantity)) AS p (account, currency, amount)
WHERE kind <> 'malformed'
GROUP BY account, currency;

-- The paupers have an account, and nothing in it; so does a seller with no
-- account in the quote currency yet.
INSERT INTO tape.deposits
SELECT DISTINCT account, quote, 0, false FROM tape.trades CROSS JOIN LATERAL (VALUES
    (CASE WHEN kind = 'no money' THEN buyer_user_id END), (seller_user_id)) AS p (account)
WHERE account IS NOT NULL
  AND NOT EXISTS (SELECT FROM tape.deposits d WHERE d.account = p.account AND d.currency = quote AND NOT late);

ANALYZE tape.trades;
