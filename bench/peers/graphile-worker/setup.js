'use strict';
const { Pool } = require('pg');
const { runMigrations } = require('graphile-worker');

const pgPool = new Pool({ max: 2 });
runMigrations({ pgPool }).then(() => pgPool.end());
