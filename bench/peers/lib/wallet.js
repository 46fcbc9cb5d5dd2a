// The wallet as each peer in Node.js calls it: undici, the HTTP client that Node's
// own fetch() is made of, by its lower interface, which undici's documentation
// names as the fastest (docs: "Benchmarks"); keep-alive, one request at a time per
// connection, as many connections as requests may be in flight.
'use strict';
const { Pool } = require('undici');
const { share } = require('./process');

const connections = share(Number(process.env.CONCURRENCY));
const pool = new Pool(process.env.WALLET_URL, { connections, pipelining: 1 });

// A UUID that is always the same for a trade.
function key(id) {
  return `00000000-0000-4000-8000-${BigInt(id).toString(16).padStart(12, '0')}`;
}

// The settlement id that the wallet answers.
async function settle(request) {
  const { statusCode, body } = await pool.request({
    path: '/api/wallets/settle', method: 'POST',
    headers: {
      'content-type': 'application/json', 'idempotency-key': key(request.trade_id), 'settlement-epoch': '1',
    },
    body: JSON.stringify(request),
  });
  const reply = await body.json();
  if (statusCode !== 200 || reply.success !== true) {
    throw new Error(`trade ${request.trade_id}: ${statusCode} ${JSON.stringify(reply)}`);
  }
  return reply.settlement_id;
}

module.exports = { settle, concurrency: connections };
