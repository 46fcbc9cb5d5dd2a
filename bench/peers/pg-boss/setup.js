'use strict';
const { PgBoss } = require('pg-boss');

async function main() {
  const boss = new PgBoss({ supervise: false, schedule: false });
  await boss.start();
  await boss.createQueue('settle');
  await boss.stop({ graceful: false });
}

main();
