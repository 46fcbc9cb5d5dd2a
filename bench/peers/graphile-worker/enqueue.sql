SELECT count(graphile_worker.add_job('settle', @WIRE@)) FROM t
