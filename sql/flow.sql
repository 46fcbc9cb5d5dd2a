-- flow.sql: who may send, and waking those who do.

CREATE FUNCTION settlement.notify_launcher() RETURNS void
    AS 'MODULE_PATHNAME', 'settlement_notify_launcher'
    LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION settlement.notify_launcher() IS 'At commit, the launcher looks whether this database needs workers.';

SELECT settlement.notify_launcher();
