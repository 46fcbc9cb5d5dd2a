INSERT INTO river_job (kind, args, max_attempts) SELECT 'settle', @WIRE@, 25 FROM t
