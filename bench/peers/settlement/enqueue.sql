SELECT count(*) FROM t	-- the trigger has done it
