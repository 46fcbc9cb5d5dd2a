// A worker as a careful team would write it by hand: lease a batch with SKIP
// LOCKED (committed, so that a crash leaves the jobs to be leased again), send it
// over keep-alive connections, finish trades and jobs in one statement.  Several
// batches are under way at once, so that neither the wallet nor the database
// waits for the other.  Ends when the queue is empty.
'use strict';
const { Pool } = require('pg');
const { Pool: Http } = require('undici');

const BATCH = 250;
const LANES = 4;

const db = new Pool({ max: LANES });
const wallet = new Http(process.env.WALLET_URL, { connections: 64, pipelining: 1 });

const claim = `
  WITH j AS (UPDATE bench.jobs SET leased_until = now() + interval '1 minute', attempts = attempts + 1
    WHERE trade_id IN (SELECT trade_id FROM bench.jobs WHERE leased_until < now()
      ORDER BY trade_id LIMIT $1 FOR UPDATE SKIP LOCKED) RETURNING trade_id)
  SELECT t.trade_id, t.symbol, t.buyer_user_id, t.seller_user_id, t.buy_order_id, t.sell_order_id,
    t.price::text, t.quantity::text, (t.price * t.quantity)::text AS quote, t.buyer_fee::text, t.seller_fee::text
  FROM j JOIN bench.trades t USING (trade_id)`;
const finish = `
  WITH done AS (DELETE FROM bench.jobs WHERE trade_id = ANY ($1::bigint[]))
  UPDATE bench.trades t SET settlement_status = 'SETTLED', settlement_id = r.sid, settled_at = clock_timestamp(),
    settlement_attempts = 1 FROM unnest($1::bigint[], $2::text[]) AS r(id, sid) WHERE t.trade_id = r.id`;

async function settle(t) {
  const [base, quote] = t.symbol.split('/');
  const { statusCode, body } = await wallet.request({
    path: '/api/wallets/settle', method: 'POST',
    headers: { 'content-type': 'application/json', 'idempotency-key': `bench-${t.trade_id}` },
    body: JSON.stringify({ trade_id: t.trade_id, buyer_id: t.buyer_user_id, seller_id: t.seller_user_id,
      buyer_order_id: t.buy_order_id, seller_order_id: t.sell_order_id, base_currency: base, quote_currency: quote,
      base_amount: t.quantity, quote_amount: t.quote, price: t.price, buyer_fee: t.buyer_fee, seller_fee: t.seller_fee }),
  });
  const reply = await body.json();
  if (statusCode !== 200 || reply.success !== true) throw new Error(`trade ${t.trade_id}: ${statusCode}`);
  return reply.settlement_id;
}

async function lane() {
  for (;;) {
    const { rows } = await db.query({ name: 'claim', text: claim, values: [BATCH] });
    if (rows.length === 0) return;
    const ids = await Promise.all(rows.map(settle));
    await db.query({ name: 'finish', text: finish, values: [rows.map((r) => r.trade_id), ids] });
  }
}

Promise.all(Array.from({ length: LANES }, lane))
  .then(() => Promise.all([db.end(), wallet.close()]))
  .catch((e) => { console.error(e); process.exit(1); });
