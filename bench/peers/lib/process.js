// What bench/run expects of a peer's process: it says that it is ready when all is
// loaded and connected, begins when it reads a line, and ends on SIGTERM.
'use strict';

function begin(work) {
  process.on('SIGTERM', () => process.exit(0));
  process.stdin.once('data', () => work().catch((error) => {
    console.error(error);
    process.exit(1);
  }));
  console.log('ready');
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

module.exports = { begin, sleep };
