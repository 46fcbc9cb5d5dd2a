// What bench/run expects of a peer: it says that it is ready when all is loaded and
// connected, begins when it reads a line, and ends on SIGTERM.
//
// A Node.js program uses one core, so there are as many processes as is best
// (PROCESSES); the first one only starts and ends the others.
'use strict';
const cluster = require('node:cluster');

const processes = Number(process.env.PROCESSES);

function ready(run) {
  process.on('SIGTERM', () => {
    for (const id in cluster.workers) cluster.workers[id].process.kill('SIGKILL');
    process.exit(0);
  });
  process.stdin.once('data', run);
  console.log('ready');
}

function lead() {
  let waiting = processes;
  cluster.on('exit', () => process.exit(1));
  for (let i = 0; i < processes; i++) {
    cluster.fork().on('message', () => {
      if (--waiting === 0) ready(() => Object.values(cluster.workers).forEach((worker) => worker.send('begin')));
    });
  }
}

// connect: an async function that makes ready; work: one that works for ever.
async function start(connect, work) {
  const run = () => work().catch((error) => {
    console.error(error);
    process.exit(1);
  });
  if (processes > 1 && cluster.isPrimary) return lead();
  await connect();
  if (processes === 1) return ready(run);
  process.once('message', run);
  process.send('ready');
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// This process's part of what all of them may have.
const share = (total) => Math.max(1, Math.round(total / processes));

module.exports = { start, sleep, share };
