// A Node.js program uses one core, so there are as many processes as is best
// (PROCESSES); the first one only starts and ends the others.
'use strict';
const cluster = require('node:cluster');

const processes = Number(process.env.PROCESSES);

function lead() {
  for (let i = 0; i < processes; i++) cluster.fork();
  const end = (code) => {
    for (const id in cluster.workers) cluster.workers[id].process.kill('SIGKILL');
    process.exit(code);
  };
  cluster.on('exit', () => end(1));
  process.on('SIGTERM', () => end(0));
}

// work: an async function that works for ever.
function start(work) {
  if (processes > 1 && cluster.isPrimary) {
    lead();
    return;
  }
  work().catch((error) => {
    console.error(error);
    process.exit(1);
  });
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// This process's part of what all of them may have.
const share = (total) => Math.max(1, Math.round(total / processes));

module.exports = { start, sleep, share };
