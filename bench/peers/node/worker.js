// A worker as a careful team would write it by hand: lease a batch with SKIP
// LOCKED (committed, so that a crash leaves the jobs to be leased again), send it
// over keep-alive connections, finish trades and jobs in one statement.  Several
// batches are under way at once, so that neither the wallet nor the database
// waits for the other.
//
// BATCH and LANES (of all processes) are the best of those tried; see bench/README.md.
// With more requests in flight than that, the lanes share them.
'use strict';
const { Pool } = require('pg');
const { settle, concurrency } = require('../lib/wallet');
const { start, sleep, share } = require('../lib/process');

const LANES = share(Number(process.env.LANES || 4));
const BATCH = Math.max(Number(process.env.BATCH || 250), Math.ceil(concurrency / LANES));
const IDLE_MS = 5;
const TABLE = process.env.TRADES;
const BY_DAY = TABLE.endsWith('exchange'); // its key has the time too

const db = new Pool({ max: LANES, idleTimeoutMillis: 0 });

const claim = `
  WITH j AS (UPDATE bench.jobs SET leased_until = now() + interval '1 minute', attempts = attempts + 1
    WHERE trade_id IN (SELECT trade_id FROM bench.jobs WHERE leased_until < now()
      ORDER BY trade_id LIMIT $1 FOR UPDATE SKIP LOCKED) RETURNING trade_id, executed_at)
  SELECT t.trade_id, ${BY_DAY ? 't.executed_at::text,' : ''}
    t.symbol, t.buyer_user_id, t.seller_user_id, t.buy_order_id, t.sell_order_id,
    t.price::text, t.quantity::text, (t.price * t.quantity)::text AS quote, t.buyer_fee::text, t.seller_fee::text
  FROM j JOIN ${TABLE} t USING (trade_id ${BY_DAY ? ', executed_at' : ''})`;
const finish = `
  WITH done AS (DELETE FROM bench.jobs WHERE trade_id = ANY ($1::bigint[]))
  UPDATE ${TABLE} t SET settlement_status = 'SETTLED', settlement_id = r.sid, settled_at = clock_timestamp(),
    settlement_attempts = 1
  FROM unnest($1::bigint[], $2::text[] ${BY_DAY ? ', $3::timestamptz[]' : ''}) AS r(id, sid ${BY_DAY ? ', at' : ''})
  WHERE t.trade_id = r.id ${BY_DAY ? 'AND t.executed_at = r.at AND t.executed_at BETWEEN $4 AND $5' : ''}`;

function request(t) {
  const [base, quote] = t.symbol.split('/');
  return { trade_id: t.trade_id, buyer_id: t.buyer_user_id, seller_id: t.seller_user_id,
    buyer_order_id: t.buy_order_id, seller_order_id: t.sell_order_id, base_currency: base, quote_currency: quote,
    base_amount: t.quantity, quote_amount: t.quote, price: t.price, buyer_fee: t.buyer_fee, seller_fee: t.seller_fee };
}

async function lane() {
  for (;;) {
    const { rows } = await db.query({ name: 'claim', text: claim, values: [BATCH] });
    if (rows.length === 0) {
      await sleep(IDLE_MS);
      continue;
    }
    const ids = await Promise.all(rows.map((t) => settle(request(t))));
    const values = [rows.map((t) => t.trade_id), ids];
    if (BY_DAY) {
      const times = rows.map((t) => t.executed_at);
      const sorted = times.toSorted();
      // The bounds spare the executor all partitions but those of the batch.
      values.push(times, sorted[0], sorted.at(-1));
    }
    await db.query({ name: 'finish', text: finish, values });
  }
}

start(() => Promise.all(Array.from({ length: LANES }, lane)));
