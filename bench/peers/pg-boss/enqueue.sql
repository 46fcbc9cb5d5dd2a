INSERT INTO pgboss.job (name, data, policy) SELECT 'settle', @WIRE@, 'standard' FROM t
