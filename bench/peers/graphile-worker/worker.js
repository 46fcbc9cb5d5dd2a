// graphile-worker with the settings of its fastest documented configuration
// (https://worker.graphile.org/docs/performance): batches fetched ahead into a local
// queue of 500, completed jobs released in batches without delay.  The 24 jobs at a
// time given there are CPU-bound ones; as many as may be in flight is better here,
// where jobs wait for the wallet.  Jobs carry all that the wallet needs, so that
// nothing is read back.
//
// A task gets one job at a time, so each trade row is updated by a statement of its own.
// Sessions and processes are the best of those tried: many sessions share a flush.
// It logs a line per job by default; here only what went wrong.
'use strict';
const { Pool } = require('pg');
const { Logger, run } = require('graphile-worker');
const { settle, concurrency } = require('../lib/wallet');
const { start, share } = require('../lib/process');

const SESSIONS = share(Number(process.env.SESSIONS || 64));

const update = `UPDATE ${process.env.TRADES} SET settlement_status = 'SETTLED', settlement_id = $2,
  settled_at = clock_timestamp(), settlement_attempts = 1 WHERE trade_id = $1`;
const pgPool = new Pool({ max: SESSIONS, idleTimeoutMillis: 0 });
pgPool.on('error', () => {});

async function job(request, helpers) {
  const id = await settle(request);
  await helpers.query({ name: 'settled', text: update, values: [request.trade_id, id] });
}

const logger = new Logger(() => (level, message) => {
  if (level === 'error' || level === 'warning') console.error(message);
});

start(() => run({
  pgPool,
  logger,
  taskList: { settle: job },
  noHandleSignals: true,
  preset: {
    worker: {
      concurrentJobs: concurrency,
      maxPoolSize: SESSIONS,
      pollInterval: 100,
      localQueue: { size: 500 },
      completeJobBatchDelay: 0,
      failJobBatchDelay: 0,
    },
  },
}));
