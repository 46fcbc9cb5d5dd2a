INSERT INTO bench.jobs (trade_id, executed_at) SELECT trade_id, executed_at FROM t
