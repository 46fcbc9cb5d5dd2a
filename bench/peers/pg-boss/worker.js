// pg-boss by fetch() and complete(), its interface for batches
// (https://timgit.github.io/pg-boss/#/./api/jobs): work() polls twice a second at most.
// A batch's trade rows and its jobs are finished in one transaction, by the
// documented option db.  Several batches are under way at once, as in the hand-rolled
// worker; sizes are the best of those tried.
'use strict';
const { Pool } = require('pg');
const { PgBoss } = require('pg-boss');
const { settle } = require('../lib/wallet');
const { start, sleep, share } = require('../lib/process');

const LANES = share(Number(process.env.LANES || 4));
const BATCH = Number(process.env.BATCH || 250);
const IDLE_MS = 5;

const update = `UPDATE ${process.env.TRADES} t SET settlement_status = 'SETTLED', settlement_id = r.sid,
  settled_at = clock_timestamp(), settlement_attempts = 1 FROM unnest($1::bigint[], $2::text[]) AS r(id, sid)
  WHERE t.trade_id = r.id`;
const db = new Pool({ max: LANES, idleTimeoutMillis: 0 });
const boss = new PgBoss({ max: LANES, idleTimeoutMillis: 0, supervise: false, schedule: false });
boss.on('error', (error) => console.error(error));

async function finish(jobs, ids) {
  const client = await db.connect();
  try {
    await client.query('BEGIN');
    await client.query({ name: 'settled', text: update, values: [jobs.map((job) => job.data.trade_id), ids] });
    await boss.complete('settle', jobs.map((job) => job.id), null, {
      db: { executeSql: (text, values) => client.query(text, values) },
    });
    await client.query('COMMIT');
  } finally {
    client.release();
  }
}

async function lane() {
  for (;;) {
    const jobs = await boss.fetch('settle', { batchSize: BATCH });
    if (jobs.length === 0) {
      await sleep(IDLE_MS);
      continue;
    }
    await finish(jobs, await Promise.all(jobs.map((job) => settle(job.data))));
  }
}

async function work() {
  await boss.start();
  await Promise.all(Array.from({ length: LANES }, lane));
}

start(work);
