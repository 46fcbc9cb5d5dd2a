-- Redrives that the workers do: what each step does.  The steps are taken by hand.
BEGIN;
SET client_min_messages = error;
SELECT plan(61);

\ir lib/shop.sql

-- what the workers would do of a queued trade
CREATE FUNCTION pg_temp.settle(pattern text) RETURNS bigint LANGUAGE sql AS $$
    WITH gone AS (DELETE FROM settlement.queue WHERE trade_id LIKE pattern RETURNING trade_id),
         done AS (UPDATE shop.trades t SET settlement_status = 'SETTLED' FROM gone g
                  WHERE t.trade_id = g.trade_id RETURNING 1)
    SELECT count(*) FROM done
$$;
CREATE FUNCTION pg_temp.queued(pattern text) RETURNS bigint LANGUAGE sql AS
    'SELECT count(*) FROM settlement.queue WHERE trade_id LIKE pattern';
-- so many steps, each as if the wait before it were over
CREATE FUNCTION pg_temp.steps(n integer) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. n LOOP
        UPDATE settlement.redrives SET worked_at = clock_timestamp() - wait - interval '1 second' WHERE finished_at IS NULL;
        PERFORM settlement._steer();
    END LOOP;
    RETURN (SELECT concat_ws(' ', r.state, r.redriven, r.skipped) FROM settlement.redrives r ORDER BY r.id DESC LIMIT 1);
END $$;

-- what explain() says of those under way
CREATE FUNCTION pg_temp.said(id text) RETURNS text LANGUAGE sql AS
    $$ SELECT string_agg(regexp_replace(e, '^Redrive \d+', 'Redrive #'), ' ') FROM settlement.explain(id) e WHERE e LIKE 'Redrive %' $$;

-- a pace
SELECT count(pg_temp.dead('p' || i)) FROM generate_series(1, 7) i;
SELECT results_eq($$ SELECT matching, redriven, note FROM settlement.redrive_where(class => 'rejected', per_second => 3, dry_run => false, reason => 'slowly') $$,
    $$ VALUES (7::bigint, 0::bigint, 'the workers do it: redrive ' || currval('settlement.redrives_id_seq') || ' in settlement.redrives') $$,
    'with per_second it is left to the workers');
SELECT is(pg_temp.queued('p%'), 0::bigint, '... and nothing is moved yet');
SELECT is(pg_temp.said('p1'), 'Redrive # is under way (slowly) and takes it in its turn: settlement.redrive_progress says how far it is.', '... which explain() says');
SELECT is(pg_temp.steps(1), 'running 3 0', 'a step takes what a second allows');
SELECT is(pg_temp.dead('p1') IS NOT NULL AND pg_temp.said('p1') IS NULL, true, '... and not again what dies again');
DELETE FROM settlement.dlq WHERE trade_id = 'p1';
UPDATE shop.trades SET settlement_status = 'PENDING' WHERE trade_id = 'p1';
SELECT is((SELECT wait FROM settlement.redrives), '1 second', '... and the next has to wait');
SELECT is(settlement._steer() BETWEEN 0 AND 1000, true, '... which is what the worker is told');
SELECT is((SELECT redriven FROM settlement.redrives), 3::bigint, '... before that it takes none');
SELECT is(pg_temp.steps(2), 'done 7 0', 'until all are taken');
SELECT is(pg_temp.queued('p%'), 7::bigint, 'which are queued');
SELECT results_eq($$ SELECT act, role = session_user, count, reason FROM settlement.audit_log WHERE details ? 'redrive' AND trade_id IS NULL ORDER BY id $$,
    $$ VALUES ('redrive_where', true, 7::bigint, 'slowly'), ('redrive_done', true, 7, 'slowly') $$, 'beginning and end are in the audit log');
SELECT is((SELECT count(*) FROM settlement.audit_log WHERE act = 'redrive' AND trade_id LIKE 'p%' AND reason = 'slowly' AND details ? 'redrive'),
    7::bigint, '... and each trade');
SELECT results_eq($$ SELECT state, redriven, total, percent FROM settlement.redrive_progress $$,
    $$ VALUES ('done', 7::bigint, 7::bigint, 100.0) $$, 'progress');

-- a cap
SELECT count(pg_temp.dead('c' || i)) FROM generate_series(1, 5) i;
SELECT sum(matching) FROM settlement.redrive_where(class => 'rejected', max => 2, per_second => 1000, dry_run => false, reason => 'two');
SELECT is(pg_temp.said('c5'), 'Redrive # is under way (two) and takes it in its turn, unless it has taken 2 before: settlement.redrive_progress says how far it is.', 'explain() names the cap');
SELECT is(pg_temp.steps(3), 'done 2 0', 'max is all it takes');
SELECT is(pg_temp.said('c5'), NULL, '... and when it is done, explain() promises nothing');
DELETE FROM settlement.dlq;

-- a canary that settles
SELECT count(pg_temp.dead('k' || i, final => true)) FROM generate_series(1, 6) i;
SELECT sum(matching) FROM settlement.redrive_where(class => 'rejected', canary => 2, dry_run => false, reason => 'carefully');
SELECT is(pg_temp.steps(1), 'canary 2 0', 'a canary is taken first');
SELECT is(pg_temp.steps(3), 'canary 2 0', '... and the rest waits');
SELECT is(pg_temp.said('k6'), 'Redrive # is under way (carefully) and takes it in its turn, once its canary is settled: settlement.redrive_progress says how far it is.', '... as explain() says');
SELECT is(pg_temp.settle('k1'), 1::bigint, 'one of it settles');
SELECT is(pg_temp.steps(2), 'canary 2 0', '... which is not enough');
SELECT is((SELECT canary FROM settlement.redrive_progress LIMIT 1), '1 of 2 settled', '... as progress says');
SELECT is(pg_temp.settle('k2'), 1::bigint, 'both of it settle');
SELECT is(pg_temp.steps(2), 'done 6 0', '... and the rest goes');
SELECT is((SELECT count(*) FROM settlement.queue WHERE trade_id LIKE 'k%' AND generation = 1), 4::bigint, '... under new keys, for they had been rejected for good');

-- a canary that dies again
SELECT count(pg_temp.dead('d' || i)) FROM generate_series(1, 6) i;
SELECT sum(matching) FROM settlement.redrive_where(class => 'rejected', canary => 2, dry_run => false, reason => 'carefully');
SELECT is(pg_temp.steps(1), 'canary 2 0', 'another canary');
DELETE FROM settlement.queue WHERE trade_id = 'd2';
SELECT pg_temp.dead('d2', class => 'rejected', code => 'AGAIN') IS NOT NULL;
SELECT is(pg_temp.steps(3), 'stopped 2 0', 'one that dies stops it');
SELECT is((SELECT why FROM settlement.redrives ORDER BY id DESC LIMIT 1), 'trade "d2" of the canary: died: rejected AGAIN why', '... which says why');
SELECT is((SELECT count(*) FROM settlement.dlq), 5::bigint, '... and leaves the rest where it is');
SELECT is((SELECT count(*) FROM settlement.audit_log WHERE act = 'redrive_stopped'), 1::bigint, '... and is in the audit log');
DELETE FROM settlement.dlq;

-- other ways in which a canary does not settle
SELECT pg_temp.dead('e1') < pg_temp.dead('e2');
SELECT sum(matching) FROM settlement.redrive_where(class => 'rejected', canary => 1, dry_run => false, reason => 'x');
SELECT is(pg_temp.steps(1), 'canary 1 0', 'a canary of one');
DELETE FROM settlement.queue WHERE trade_id = 'e1';
UPDATE shop.trades SET settlement_status = 'FAILED' WHERE trade_id = 'e1';
SELECT is(pg_temp.steps(1), 'stopped 1 0', 'that is resolved as FAILED stops it');
SELECT sum(matching) FROM settlement.redrive_where(class => 'rejected', canary => 1, dry_run => false, reason => 'x');
SELECT is(pg_temp.steps(1), 'canary 1 0', 'the last is a canary too');
DELETE FROM settlement.queue WHERE trade_id = 'e2';
DELETE FROM shop.trades WHERE trade_id = 'e2';
SELECT is(pg_temp.steps(1), 'stopped 1 0', 'one whose row is gone stops it');
SELECT is((SELECT why FROM settlement.redrives ORDER BY id DESC LIMIT 1), 'trade "e2" of the canary: its trade row is gone', '... which says so');

-- cancel
SELECT count(pg_temp.dead('x' || i)) FROM generate_series(1, 5) i;
SELECT sum(matching) FROM settlement.redrive_where(class => 'rejected', per_second => 2, dry_run => false, reason => 'x');
SELECT is(pg_temp.steps(1), 'running 2 0', 'a redrive under way');
SELECT throws_ok($$ SELECT settlement.redrive_cancel(currval('settlement.redrives_id_seq'), ' ') $$, '22023', 'a reason is required', 'to cancel it takes a reason');
SELECT matches(settlement.redrive_cancel(currval('settlement.redrives_id_seq'), 'enough'), '^redrive \d+ is cancelled; 2 of its trades went on before$', 'it is cancelled');
SELECT is(pg_temp.steps(2), 'cancelled 2 0', '... and takes no more');
SELECT throws_ok($$ SELECT settlement.redrive_cancel(currval('settlement.redrives_id_seq'), 'again') $$, '42704', NULL, '... and not cancelled twice');
SELECT throws_ok($$ SELECT settlement.redrive_cancel(-1, 'none') $$, '42704', NULL, 'nor is one that does not exist');
DELETE FROM settlement.dlq;

-- what dies again is not taken again
SELECT count(pg_temp.dead('y' || i)) FROM generate_series(1, 3) i;
SELECT sum(matching) FROM settlement.redrive_where(class => 'rejected', per_second => 2, dry_run => false, reason => 'x');
SELECT is(pg_temp.steps(1), 'running 2 0', 'a redrive');
DELETE FROM settlement.queue WHERE trade_id = 'y1';
SELECT pg_temp.dead('y1') IS NOT NULL;
SELECT is(pg_temp.steps(4), 'done 3 0', 'takes what dies again only once');
SELECT is((SELECT string_agg(trade_id, ' ') FROM settlement.dlq), 'y1', '... which stays dead');
DELETE FROM settlement.dlq;

-- one that cannot be redriven does not stop the others
SELECT count(pg_temp.dead('z' || i)) FROM generate_series(1, 4) i;
DELETE FROM shop.trades WHERE trade_id = 'z2';
SELECT sum(matching) FROM settlement.redrive_where(class => 'rejected', per_second => 100, dry_run => false, reason => 'x');
SELECT is(pg_temp.steps(2), 'done 3 1', 'one without a row is skipped');
SELECT is((SELECT note FROM settlement.redrive_progress LIMIT 1), 'trade row no longer exists', '... and that is said');
DELETE FROM settlement.dlq;

-- one that cannot go on is stopped, and says why
SELECT pg_temp.dead('w') IS NOT NULL;
SELECT sum(matching) FROM settlement.redrive_where(class => 'rejected', per_second => 100, dry_run => false, reason => 'x');
UPDATE settlement.redrives SET filter = filter || '{"relation": "pg_class"}' WHERE finished_at IS NULL;
SELECT is(pg_temp.steps(1), 'stopped 0 0', 'one that cannot go on is stopped');
SELECT is((SELECT note FROM settlement.redrive_progress LIMIT 1), 'table pg_class is not attached', '... and says why');
DELETE FROM settlement.dlq;

-- what may have been paid keeps its key, and is taken by who may only
SELECT count(pg_temp.dead('u' || i, 'UNKNOWN', 'network_timeout', final => i = 2, maybe_executed => true)) FROM generate_series(1, 2) i;
SELECT sum(matching) FROM settlement.redrive_where(status => 'UNKNOWN', per_second => 100, dry_run => false, reason => 'x');
SELECT is((SELECT may_repay FROM settlement.redrives ORDER BY id DESC LIMIT 1), true, 'the right of who began it is noted');
UPDATE settlement.redrives SET may_repay = false WHERE finished_at IS NULL;
SELECT is(pg_temp.steps(2), 'done 0 2', 'without it nothing UNKNOWN is taken');
SELECT sum(matching) FROM settlement.redrive_where(status => 'UNKNOWN', per_second => 100, dry_run => false, reason => 'x');
SELECT is(pg_temp.steps(2), 'done 2 0', 'with it they are');
SELECT is((SELECT count(*) FROM settlement.queue WHERE trade_id LIKE 'u%' AND generation = 0 AND maybe_executed), 2::bigint, '... under the same keys');
SELECT pg_temp.dead('v', 'UNKNOWN', 'network_timeout', maybe_executed => true) IS NOT NULL;
SELECT sum(matching) FROM settlement.resolve_where(all_rows => true, per_second => 5, dry_run => false, reason => 'ask');
SELECT is(pg_temp.steps(2), 'done 1 0', 'look-ups have a pace too');
SELECT is((SELECT reason FROM settlement.deferred WHERE trade_id = 'v'), 'needs_lookup', '... and ask the wallet');

-- arguments
SELECT throws_ok($$ SELECT * FROM settlement.redrive_where(class => 'x', per_second => 0) $$, '22023', NULL, 'no pace of 0');
SELECT throws_ok($$ SELECT * FROM settlement.redrive_where(class => 'x', per_second => 'NaN') $$, '22023', NULL, '... nor of NaN');
SELECT throws_ok($$ SELECT * FROM settlement.redrive_where(class => 'x', canary => 1001) $$, '22023', NULL, 'no canary of a thousand and one');
SELECT throws_ok($$ SELECT * FROM settlement.redrive_where(class => 'x', max => -1) $$, '22023', NULL, 'no negative cap');

-- export
SELECT pg_temp.dead('o1', code => 'SOME') < pg_temp.dead('o2', 'UNKNOWN', 'network_timeout', maybe_executed => true);
SELECT results_eq($$ SELECT e ->> 'trade_id', e ->> 'status', e ->> 'relation', length(e ->> 'key') FROM settlement.dlq_export() e $$,
    $$ VALUES ('o1', 'FAILED', 'shop.trades', 36), ('o2', 'UNKNOWN', 'shop.trades', 36) $$, 'an export has FAILED and UNKNOWN ones, with their keys');
SELECT results_eq($$ SELECT e ->> 'trade_id' FROM settlement.dlq_export(code => 'SOME', reason => 'for the wallet''s people') e $$,
    $$ VALUES ('o1') $$, '... or what a filter names');
SELECT results_eq($$ SELECT count, reason, details ->> 'code' FROM settlement.audit_log WHERE act = 'dlq_export' ORDER BY id DESC LIMIT 1 $$,
    $$ VALUES (1::bigint, 'for the wallet''s people', 'SOME') $$, '... and is in the audit log');

SELECT * FROM finish();
ROLLBACK;
