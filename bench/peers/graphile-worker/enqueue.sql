SELECT count(*) FROM graphile_worker.add_jobs(ARRAY(SELECT ROW('settle', @WIRE@, NULL, NULL, NULL, NULL, NULL, NULL)::graphile_worker.job_spec FROM t))
