-- What a monitor and an operator can do, and what they cannot.
BEGIN;
SET client_min_messages = error;
SELECT plan(79);

CREATE ROLE settlement_test_monitor IN ROLE pg_monitor;
CREATE ROLE settlement_test_operator;
CREATE ROLE settlement_test_nobody;
SELECT settlement.grant_operator('settlement_test_operator');
SELECT results_eq($$ SELECT details FROM settlement.audit_log WHERE act = 'grant_operator' $$,
    $$ VALUES ('{"role": "settlement_test_operator", "may_repay": false}'::jsonb) $$, 'who became an operator is in the audit log');

CREATE TABLE public.guarded_trades (trade_id text PRIMARY KEY, symbol text, buyer_id text, seller_id text,
    buyer_order_id text, seller_order_id text, price numeric, quantity numeric, buyer_fee numeric, seller_fee numeric);
SELECT settlement.attach('public.guarded_trades') IS NOT NULL AS attached;
INSERT INTO public.guarded_trades VALUES ('t', 'BTC/USDT', 'b', 's', 'bo', 'so', 10, 10, 0, 0);
DELETE FROM settlement.queue;
INSERT INTO settlement.dlq (status, class, enqueued_at, attached_id, leaf, trade_id, symbol, buyer_id, seller_id,
    buyer_order_id, seller_order_id, price, quantity, quote_amount, buyer_fee, seller_fee)
SELECT 'FAILED', 'queue_full', now(), attached_id, relid, 't', 'BTC/USDT', 'b', 's', 'bo', 'so', 10, 10, 100, 0, 0
FROM settlement.attached WHERE relid = 'public.guarded_trades'::regclass;
-- pgTAP itself has to work for them
GRANT USAGE ON SCHEMA public TO PUBLIC;
CREATE FUNCTION pg_temp.try(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'done';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END $$;

SET LOCAL ROLE settlement_test_nobody;
SELECT is(pg_temp.try('TABLE settlement.status'), '42501', 'nobody may look');
SELECT is(pg_temp.try('SELECT settlement.pause(''x'')'), '42501', 'nobody may act');
RESET ROLE;
SELECT settlement.grant_operator('settlement_test_nobody', may_repay => true), settlement.revoke_operator('settlement_test_nobody');
SELECT results_eq($$ SELECT act, details ->> 'may_repay' FROM settlement.audit_log WHERE details ->> 'role' = 'settlement_test_nobody' ORDER BY id $$,
    $$ VALUES ('grant_operator', 'true'), ('revoke_operator', NULL) $$, '... who ceased to be one, too');

SET LOCAL ROLE settlement_test_monitor;
SELECT is(pg_temp.try('TABLE settlement.status'), 'done', 'a monitor reads status');
SELECT is(pg_temp.try('TABLE settlement.workers'), 'done', '... workers');
SELECT is(pg_temp.try('TABLE settlement.in_flight'), 'done', '... in_flight');
SELECT is(pg_temp.try('TABLE settlement.metrics'), 'done', '... metrics');
SELECT is(pg_temp.try('TABLE settlement.dlq_summary'), 'done', '... dlq_summary');
SELECT is(pg_temp.try('SELECT settlement.prometheus()'), 'done', '... prometheus()');
SELECT is(pg_temp.try('SELECT * FROM settlement.doctor()'), 'done', '... doctor()');
SELECT is(pg_temp.try('TABLE settlement.dlq'), '42501', '... not single trades');
SELECT is(pg_temp.try('SELECT settlement.redrive(''t'', ''x'')'), '42501', '... and does not act');

SET LOCAL ROLE settlement_test_operator;
SELECT is(pg_temp.try('TABLE settlement.dlq'), 'done', 'an operator reads dead letters');
SELECT is(pg_temp.try('DELETE FROM settlement.dlq'), '42501', '... but does not change them by hand');
SELECT is(pg_temp.try('TABLE public.guarded_trades'), '42501', '... nor reads the trade table by itself');
SELECT ok((SELECT bool_or(e LIKE 'It is dead%') AND NOT bool_or(e LIKE '%whose row says%')
           FROM settlement.explain('t') e), 'explain() does not read it on the operator''s behalf');
SELECT is(pg_temp.try('SELECT * FROM settlement.timeline(''t'')'), 'done', 'timeline()');
SELECT is(pg_temp.try('SELECT * FROM settlement.doctor(true)'), 'done', 'doctor(deep)');
SELECT is(settlement.redrive('t', 'room again'), 'queue', 'an operator redrives');
SELECT is(pg_temp.try('SELECT settlement.pause(''x'', ''BTC/USDT''); SELECT settlement.resume(''BTC/USDT'')'), 'done', '... pauses and resumes');
SELECT is(pg_temp.try('SELECT settlement._requeue(NULL)'), '42501', '... has no internal function that acts');
SELECT is(pg_temp.try('SELECT settlement.adopt(''x'')'), '42501', '... does not adopt');

RESET ROLE;

-- ---------------------------------------------------------------- what may have been paid

CREATE ROLE settlement_test_senior;
SELECT settlement.grant_operator('settlement_test_senior', may_repay => true);
SELECT throws_ok('SELECT settlement.grant_operator(NULL)', '22004', 'a role is required', 'nobody is no operator');
SELECT throws_ok('SELECT settlement.revoke_operator(NULL)', '22004', 'a role is required', 'nor a former one');
CREATE ROLE settlement_test_member NOINHERIT IN ROLE settlement_test_senior;
CREATE ROLE settlement_test_heir IN ROLE settlement_test_senior;
INSERT INTO public.guarded_trades SELECT 'u' || i, 'BTC/USDT', 'b', 's', 'bo', 'so', 10, 10, 0, 0 FROM generate_series(1, 9) i;
DELETE FROM settlement.queue;
INSERT INTO settlement.dlq (status, class, enqueued_at, attached_id, leaf, trade_id, symbol, buyer_id, seller_id,
    buyer_order_id, seller_order_id, price, quantity, quote_amount, buyer_fee, seller_fee, maybe_executed, first_sent_at, format)
SELECT 'UNKNOWN', 'wallet_error', now(), attached_id, relid, 'u' || i, 'BTC/USDT', 'b', 's', 'bo', 'so', 10, 10, 100, 0, 0, true, now(), 1
FROM settlement.attached, generate_series(1, 9) i WHERE relid = 'public.guarded_trades'::regclass;
CREATE FUNCTION pg_temp.unknown() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS
    $$ SELECT count(*) FROM settlement.dlq WHERE status = 'UNKNOWN' $$;
-- whether the act did anything, whatever it said
CREATE FUNCTION pg_temp.is_refused(statement text, what text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    before bigint := pg_temp.unknown();
    said text := pg_temp.try(statement);
BEGIN
    RETURN ok(said = '42501' AND pg_temp.unknown() = before, format('%s (%s)', what, said));
END $$;

SET LOCAL ROLE settlement_test_operator;
SELECT pg_temp.is_refused($$ SELECT settlement.redrive('u1', 'x') $$, 'an operator does not redrive what may have been paid');
SELECT pg_temp.is_refused($$ SELECT * FROM settlement.redrive_where(status => 'UNKNOWN', dry_run => false, reason => 'x') $$, '... nor by filter');
SELECT pg_temp.is_refused($$ SELECT settlement.resolve('u1', 'FAILED', 'ticket', 'x') $$, '... nor gives it up');
SELECT pg_temp.is_refused($$ SELECT settlement.resolve('u1', 'SETTLED', 'ticket', 'x') $$, '... nor calls it paid');
SELECT pg_temp.is_refused($$ SELECT * FROM settlement.redrive_where(status => 'UNKNOWN', canary => 1, dry_run => false, reason => 'x') $$, '... nor by the workers');
SELECT pg_temp.is_refused($$ SELECT settlement.redrive_policy_set('p', 'x', status => 'UNKNOWN') $$, '... nor by a policy');
SELECT pg_temp.is_refused($$ SELECT * FROM settlement.resolve_where(dry_run => false, reason => 'x', statement => '[{"trade_id": "u1", "outcome": "FAILED", "reference": "r"}]') $$, '... nor by a statement');
SELECT is(pg_temp.try($$ SELECT settlement.redrive_policy_set('p', 'x', status => 'UNKNOWN', look_up => true) $$), 'done', '... a policy may ask the wallet');
SELECT is(pg_temp.try($$ SELECT settlement.redrive_policy_drop('p', 'x') $$), 'done', '... and be dropped');
SELECT is(pg_temp.try($$ SELECT * FROM settlement.redrive_where(status => 'UNKNOWN') $$), 'done', '... may count them');
SELECT is(pg_temp.try($$ SELECT settlement.dlq_purge(trade_id => 'u1', dry_run => false, reason => 'x') $$), '55000', 'nobody purges them');
SELECT is(settlement.lookup('u9') LIKE 'the wallet will be asked%', true, 'an operator asks the wallet');
SELECT is((SELECT sum(resolved) FROM settlement.resolve_where(all_rows => true, max => 1, dry_run => false, reason => 'x')), 1::numeric, '... by filter too');
SELECT is(pg_temp.unknown(), 7::bigint, 'which takes it out of the DLQ');

-- a permit cannot be made up, had, or used again
SELECT is(settlement._permit(), NULL, 'an operator gets no permit');
SELECT pg_temp.is_refused($$ SELECT settlement._issue_permit() $$, '... not by force');
SELECT pg_temp.is_refused($$ SELECT settlement.redrive('u2', 'x', permit => 1) $$, '... nor makes one up');
SELECT pg_temp.is_refused($$ SELECT settlement.redrive('u2', 'x', permit => 0) $$, '... of nothing');
SELECT pg_temp.is_refused($$ SELECT settlement.resolve('u2', 'FAILED', 'ticket', 'x', permit => 1) $$, '... for resolve()');
SELECT pg_temp.is_refused($$ SELECT settlement._redrive(1, false, 'x', true) $$, 'nor calls what is behind the verbs');
SELECT pg_temp.is_refused($$ SELECT settlement._redrive_where('x', '{"status": "UNKNOWN"}', false, NULL, NULL, NULL, false, 'x', true) $$, '... by filter');
SELECT pg_temp.is_refused($$ SELECT settlement._redeem_permit(1) $$, '... nor tries numbers');
SET LOCAL ROLE settlement_test_senior;
CREATE TEMP TABLE permits AS SELECT settlement._permit() AS permit;
GRANT SELECT ON permits TO settlement_test_operator;
SELECT is(settlement.redrive('u2', 'checked', permit => (SELECT permit FROM permits)), 'queue', 'a permit holds');
SET LOCAL ROLE settlement_test_operator;
SELECT pg_temp.is_refused($$ SELECT settlement.redrive('u3', 'x', permit => (SELECT permit FROM permits)) $$, '... once');

-- whose rights count: those of the caller, not of the session
SET LOCAL SESSION AUTHORIZATION settlement_test_operator;
SELECT pg_temp.is_refused($$ SET LOCAL ROLE settlement_test_senior $$, 'an operator does not become another');
RESET SESSION AUTHORIZATION;
SET LOCAL ROLE settlement_test_member;
SELECT pg_temp.is_refused($$ SELECT settlement.redrive('u3', 'x') $$, 'a member that does not inherit does not, either');
SET LOCAL ROLE settlement_test_heir;
SELECT is(settlement.redrive('u3', 'checked'), 'queue', 'one that inherits does');
SET LOCAL ROLE settlement_test_senior;
SELECT is(settlement.redrive('u4', 'checked'), 'queue', 'a senior redrives what may have been paid');
SELECT is(settlement.resolve('u5', 'FAILED', 'ticket', 'checked'), 'done', '... and gives it up');
RESET ROLE;
CREATE SCHEMA settlement_test AUTHORIZATION settlement_test_operator;
GRANT USAGE ON SCHEMA settlement_test TO PUBLIC;
SET LOCAL ROLE settlement_test_operator;
CREATE FUNCTION settlement_test.trap(id text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN settlement.redrive(id, 'trap');
END $$;
SET LOCAL ROLE settlement_test_senior;
SELECT pg_temp.is_refused($$ SELECT settlement_test.trap('u6') $$, 'a function of the operator has the operator''s rights whoever calls it');

-- The same in an index: maintenance runs it as the table's owner, for a superuser.
SET LOCAL ROLE settlement_test_operator;
CREATE TABLE settlement_test.said (what text);
CREATE FUNCTION settlement_test.say(what text) RETURNS void LANGUAGE sql AS
    'INSERT INTO settlement_test.said VALUES (what)';
CREATE FUNCTION settlement_test.indexed(x integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM settlement.redrive('u6', 'index');
    PERFORM settlement_test.say('done');
    RETURN x;
EXCEPTION WHEN insufficient_privilege THEN
    PERFORM settlement_test.say(SQLERRM);
    RETURN x;
END $$;
CREATE TABLE settlement_test.bait (x integer);
INSERT INTO settlement_test.bait VALUES (1);
CREATE INDEX bait_idx ON settlement_test.bait (settlement_test.indexed(x));
RESET ROLE;
TRUNCATE settlement_test.said;
REINDEX TABLE settlement_test.bait;
ANALYZE settlement_test.bait;
SELECT ok(count(*) > 0 AND bool_and(what = 'permission denied to redrive trade "u6"'), 'nor does an index get more, with a superuser''s maintenance')
FROM settlement_test.said;
SELECT is(pg_temp.unknown(), 3::bigint, '... and nothing happens');

-- names that are looked up by the path are not found in the caller's schemas
SET LOCAL ROLE settlement_test_operator;
CREATE FUNCTION settlement_test.has_function_privilege(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION settlement_test.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO settlement_test.said VALUES (current_user); RETURN pg_catalog.now(); END $$;
CREATE FUNCTION settlement_test.equal(text, text) RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO settlement_test.said VALUES (current_user); RETURN true; END $$;
CREATE OPERATOR settlement_test.= (LEFTARG = text, RIGHTARG = text, FUNCTION = settlement_test.equal);
CREATE TEMP TABLE dlq AS SELECT 'u6'::text AS trade_id;
DELETE FROM settlement_test.said;
SET LOCAL search_path = settlement_test, pg_temp, settlement, pg_catalog, public;
CREATE TEMP TABLE tried AS
SELECT pg_temp.try($$ SELECT settlement.redrive('u6', 'x') $$) AS redrive,
       pg_temp.try($$ SELECT settlement.resolve('u6', 'FAILED', 'ticket', 'x') $$) AS resolve,
       pg_temp.try($$ SELECT settlement.pause('x', 'BTC/USDT'); SELECT settlement.resume('BTC/USDT');
                      SELECT * FROM settlement.redrive_where(all_rows => true); SELECT * FROM settlement.explain('u6');
                      SELECT * FROM settlement.timeline('u6'); SELECT * FROM settlement.doctor(true); TABLE settlement.status;
                      TABLE settlement.metrics; TABLE settlement.dlq_summary; TABLE settlement.unknown $$) AS others;
RESET search_path;
SELECT is(redrive || ' ' || resolve, '42501 42501', 'a search_path brings nothing') FROM tried;
SELECT is(others, 'done', 'the verbs work under it') FROM tried;
SELECT is_empty('SELECT what FROM settlement_test.said', 'and call none of the caller''s functions');
SELECT is(pg_temp.unknown(), 3::bigint, '... and nothing happens');

-- by hand
SELECT pg_temp.is_refused($$ UPDATE settlement.dlq SET status = 'FAILED' $$, 'an operator does not relabel dead letters');
SELECT pg_temp.is_refused($$ INSERT INTO settlement.queue SELECT * FROM settlement.queue $$, '... nor queue');
SELECT pg_temp.is_refused($$ TRUNCATE settlement.audit_log $$, '... nor clear away what was done');
SELECT pg_temp.is_refused($$ SELECT FROM settlement.dlq FOR UPDATE $$, '... nor lock');
SELECT pg_temp.is_refused($$ CREATE FUNCTION settlement.mine() RETURNS void LANGUAGE sql AS '' $$, '... nor add to the schema');
SELECT pg_temp.is_refused($$ CREATE TRIGGER mine AFTER INSERT ON settlement.audit_log EXECUTE FUNCTION settlement.enqueue() $$, '... nor put triggers on its tables');
SELECT pg_temp.is_refused($$ SELECT settlement.grant_operator('settlement_test_operator', may_repay => true) $$, '... nor grant itself more');
GRANT EXECUTE ON FUNCTION settlement._permit() TO settlement_test_nobody;   -- only warns
SELECT ok(NOT has_function_privilege('settlement_test_nobody', 'settlement._permit()', 'EXECUTE'), '... nor others');
SELECT pg_temp.is_refused($$ SET settlement.wallet_url = 'http://127.0.0.1:1' $$, '... nor send elsewhere');
RESET ROLE;

-- ---------------------------------------------------------------- the matching engine

CREATE ROLE settlement_test_engine;
GRANT INSERT ON public.guarded_trades TO settlement_test_engine;
SET LOCAL ROLE settlement_test_engine;
SELECT is(pg_temp.try($$ INSERT INTO public.guarded_trades VALUES ('e', 'BTC/USDT', 'b', 's', 'bo', 'so', 10, 10, 0, 0) $$), 'done',
    'the engine inserts with INSERT alone');
SELECT pg_temp.is_refused($$ TABLE settlement.status $$, '... looks at nothing');
SELECT pg_temp.is_refused($$ SELECT settlement.next_queue_id() $$, '... draws no id');
RESET ROLE;
SELECT is((SELECT count(*) FROM settlement.queue WHERE trade_id = 'e'), 1::bigint, '... and the trade is queued');

-- ---------------------------------------------------------------- the tables' owners

-- To plan a query is to run what a table's owner wrote: constraints, statistics.
CREATE ROLE settlement_test_thief;
CREATE SCHEMA settlement_test_den AUTHORIZATION settlement_test_thief;
GRANT USAGE ON SCHEMA settlement_test_den TO PUBLIC;
SET LOCAL ROLE settlement_test_thief;
CREATE TABLE settlement_test_den.ran_as (role name);
GRANT ALL ON settlement_test_den.ran_as TO PUBLIC;
CREATE FUNCTION settlement_test_den.note() RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO settlement_test_den.ran_as VALUES (current_user); RETURN true; END $$;
CREATE FUNCTION settlement_test_den.harmless(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
    $$ BEGIN RETURN settlement_test_den.note(); END $$;
CREATE TABLE settlement_test_den.trades (trade_id text PRIMARY KEY, symbol text, buyer_id text, seller_id text,
    buyer_order_id text, seller_order_id text, price numeric, quantity numeric, buyer_fee numeric, seller_fee numeric)
    PARTITION BY HASH (trade_id);
CREATE TABLE settlement_test_den.part PARTITION OF settlement_test_den.trades FOR VALUES WITH (MODULUS 1, REMAINDER 0);
RESET ROLE;
SELECT settlement.attach('settlement_test_den.trades') IS NOT NULL AS attached;
SET LOCAL ROLE settlement_test_thief;
INSERT INTO settlement_test_den.trades
SELECT t, 'BTC/USDT', 'b', 's', 'bo', 'so', -1, 10, 0, 0 FROM unnest('{bad,worse}'::text[]) t;
UPDATE settlement_test_den.trades SET price = 1, settlement_status = 'FAILED' WHERE trade_id = 'bad';
ALTER TABLE settlement_test_den.part ADD CHECK (settlement_test_den.harmless('x') AND settlement_test_den.harmless(trade_id)),
    ADD CHECK (settlement_test_den.harmless('y'));
CREATE STATISTICS settlement_test_den.numbers ON (settlement_test_den.harmless('z')), trade_id FROM settlement_test_den.part;
CREATE INDEX ON settlement_test_den.part (symbol) WHERE settlement_test_den.harmless('q') AND settlement_test_den.harmless(symbol);
ANALYZE settlement_test_den.part;
SELECT count(*) AS read FROM settlement_test_den.trades WHERE trade_id = 'bad';
RESET ROLE;
SELECT results_eq('SELECT DISTINCT role FROM settlement_test_den.ran_as', $$ VALUES ('settlement_test_thief'::name) $$, 'a table''s functions run where it is used');
SELECT is(settlement.redrive('bad', 'corrected'), 'queue', 'a corrected trade of it is redriven');
SELECT is(pg_temp.try($$ SELECT settlement.redrive('worse', 'not corrected') $$), '55000', '... and one that is not, is refused');
SELECT is(settlement._verdict(attached_id, 'settlement_test_den.part'::regclass, 'bad', NULL), 'waits', 'what became of one is read')
FROM settlement.attached WHERE relid = 'settlement_test_den.trades'::regclass;
SELECT results_eq('SELECT DISTINCT role FROM settlement_test_den.ran_as', $$ VALUES ('settlement_test_thief'::name) $$, '... and they never run as our owner');

SELECT * FROM finish();
ROLLBACK;
