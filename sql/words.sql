-- words.sql: times, durations and failures in words.

CREATE FUNCTION settlement._span(span interval) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN s < 1 THEN 'less than a second'
                WHEN s < 120 THEN s::bigint || ' s'
                WHEN s < 7200 THEN (s::bigint / 60) || ' min'
                WHEN s < 172800 THEN (s::bigint / 3600) || ' h'
                ELSE (s::bigint / 86400) || ' days' END
    FROM (SELECT abs(extract(epoch FROM span)) AS s) x
$$;
COMMENT ON FUNCTION settlement._span(interval) IS 'Internal: a duration for people.';

CREATE FUNCTION settlement._moment(at timestamptz) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN NOT isfinite(at) THEN 'never'
                ELSE to_char(at, 'YYYY-MM-DD HH24:MI:SS TZ') || CASE
                    WHEN at > clock_timestamp() THEN ' (in ' || settlement._span(at - clock_timestamp()) || ')'
                    ELSE ' (' || settlement._span(clock_timestamp() - at) || ' ago)' END END
$$;
COMMENT ON FUNCTION settlement._moment(timestamptz) IS 'Internal: a time for people.';

CREATE FUNCTION settlement._describe_failure(class text, code text, http_status integer, message text)
RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT concat_ws(', ', class, code, 'HTTP ' || http_status) || coalesce(': ' || message, '')
$$;
COMMENT ON FUNCTION settlement._describe_failure(text, text, integer, text) IS 'Internal: a failure in one line.';
