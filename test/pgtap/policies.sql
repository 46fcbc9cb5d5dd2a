-- What redrive policies take, and what not.  The steps are taken by hand.
BEGIN;
SET client_min_messages = error;
SELECT plan(72);

\ir lib/shop.sql

-- a step of all policies; what it put into the queue
CREATE FUNCTION pg_temp.taken() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    PERFORM settlement._steer();
    WITH gone AS (DELETE FROM settlement.queue RETURNING trade_id),
         asked AS (DELETE FROM settlement.deferred RETURNING trade_id)
    SELECT string_agg(trade_id, ' ' ORDER BY trade_id) INTO result
    FROM (SELECT trade_id FROM gone UNION ALL SELECT trade_id || '?' FROM asked) t;
    RETURN coalesce(result, 'none');
END $$;

-- what explain() says of the policies, and what timeline() expects of them
CREATE FUNCTION pg_temp.said(id text) RETURNS text LANGUAGE sql AS
    $$ SELECT string_agg(e, ' ') FROM settlement.explain(id) e WHERE e LIKE 'The policy %' $$;
CREATE FUNCTION pg_temp.expected(id text) RETURNS text LANGUAGE sql AS
    $$ SELECT string_agg(what || ' ' || details, ', ') FROM settlement.timeline(id) WHERE details LIKE 'by policy %' $$;

SELECT pg_temp.dead('poor', code => 'INSUFFICIENT_BALANCE') < pg_temp.dead('nobody', code => 'USER_NOT_FOUND');
SELECT pg_temp.dead('lost', 'UNKNOWN', 'network_timeout', 'INSUFFICIENT_BALANCE', maybe_executed => true) IS NOT NULL;
SELECT is(pg_temp.taken(), 'none', 'by default nothing is redriven by itself');
SELECT is(pg_temp.said('poor'), NULL, '... and explain() promises nothing');

-- arguments
SELECT throws_ok($$ SELECT settlement.redrive_policy_set('p', 'x') $$, '22023', 'no filter was given', 'a policy needs a filter');
SELECT throws_ok($$ SELECT settlement.redrive_policy_set('p', ' ', class => 'rejected') $$, '22023', 'a reason is required', '... a reason');
SELECT throws_ok($$ SELECT settlement.redrive_policy_set('', 'x', class => 'rejected') $$, '22023', NULL, '... a name');
SELECT throws_ok($$ SELECT settlement.redrive_policy_set('p', 'x', class => 'rejected', at_most => 0) $$, '22023', NULL, '... a number of times');
SELECT throws_ok($$ SELECT settlement.redrive_policy_set('p', 'x', class => 'rejected', after => '-1 s') $$, '22023', NULL, '... a time that lies ahead');
SELECT throws_ok($$ SELECT settlement.redrive_policy_set('p', 'x', class => 'rejected', look_up => true) $$, '22023', NULL, 'nobody asks about what was certainly not paid');
SELECT throws_ok($$ SELECT settlement.redrive_policy_drop('p', 'x') $$, '42704', 'there is no policy "p"', 'none to drop');

-- again after some time, at most so often
SELECT is(settlement.redrive_policy_set('poor', 'deposits come late', code => 'INSUFFICIENT_BALANCE', after => '10 min', at_most => 2),
    'policy "poor" is set; 1 dead trade match it now', 'a policy');
SELECT is(pg_temp.said('poor'), 'The policy "poor" redrives it by itself as soon as a worker comes to it, time 1 of 2.', 'explain() says when');
SELECT is(pg_temp.expected('poor'), 'due to be redriven by policy poor; time 1 of 2', '... timeline() too');
SELECT is(pg_temp.said('nobody'), NULL, '... of what it names only');
SELECT is(pg_temp.taken(), 'poor', 'it takes what it names, and nothing UNKNOWN');
SELECT is((SELECT settlement_status FROM shop.trades WHERE trade_id = 'poor'), 'PENDING', '... whose row says PENDING');
SELECT is(pg_temp.taken(), 'none', '... once');
SELECT pg_temp.dead('poor', code => 'INSUFFICIENT_BALANCE', died => '9 min') IS NOT NULL;
SELECT is(pg_temp.taken(), 'none', 'when it dies again, not before its time');
SELECT alike(pg_temp.said('poor'), 'The policy "poor" redrives it by itself at % (in %), time 2 of 2.', '... which explain() says');
SELECT results_eq($$ SELECT what, at > clock_timestamp() FROM settlement.timeline('poor') WHERE details = 'by policy poor; time 2 of 2' $$,
    $$ VALUES ('will be redriven', true) $$, '... timeline() too');
UPDATE settlement.dlq SET died_at = died_at - interval '2 min' WHERE trade_id = 'poor';
SELECT is(pg_temp.taken(), 'poor', '... and then');
SELECT pg_temp.dead('poor', code => 'INSUFFICIENT_BALANCE') IS NOT NULL;
SELECT is(pg_temp.taken(), 'none', 'the third time it stays dead');
SELECT is(pg_temp.said('poor'), 'The policy "poor" has redriven it 2 times, as often as it may, and does not take it again.', '... which explain() says');
SELECT is(pg_temp.expected('poor'), 'not redriven any more by policy poor; time 2 of 2', '... timeline() too');
SELECT results_eq($$ SELECT redriven, used_up, status FROM settlement.redrive_policies $$, $$ VALUES (2::bigint, 1::bigint, 'FAILED') $$, 'the view says so');
SELECT results_eq($$ SELECT role = session_user, reason, count, details ->> 'policy' FROM settlement.audit_log WHERE act = 'redrive' $$,
    $$ VALUES (true, 'deposits come late', 1::bigint, 'poor'), (true, 'deposits come late', 1, 'poor') $$, 'each is in the audit log');
SELECT is((SELECT settlement.redrive_policy_set('poor', 'more', code => 'INSUFFICIENT_BALANCE', at_most => 3)),
    'policy "poor" is set; 1 dead trade match it now', 'it is set anew');
SELECT is(pg_temp.taken(), 'poor', '... and goes on counting');
SELECT lives_ok($$ SELECT settlement.redrive_policy_drop('poor', 'over') $$, 'it is dropped');
SELECT is((SELECT count(*) FROM settlement.policy_tries), 0::bigint, '... with what it knew');
SELECT set_eq($$ SELECT DISTINCT act FROM settlement.audit_log WHERE act LIKE 'redrive_policy%' $$, '{redrive_policy_set,redrive_policy_drop}'::text[],
    'both are in the audit log');
SELECT pg_temp.dead('poor', code => 'INSUFFICIENT_BALANCE') IS NOT NULL;
SELECT is(pg_temp.taken(), 'none', 'then nothing is redriven');
SELECT is(pg_temp.said('poor'), NULL, '... nor promised');

-- UNKNOWN ones
SELECT matches(settlement.redrive_policy_set('all', 'x', all_rows => true), '2 dead trades', 'a policy for all');
UPDATE settlement.dlq SET maybe_executed = true WHERE trade_id = 'nobody';
SELECT is(pg_temp.said('nobody'), 'The policy "all" names it and does not take it: the wallet may have moved its money.', 'explain() says what a policy leaves alone');
SELECT is(pg_temp.expected('nobody'), NULL, '... timeline() expects nothing');
SELECT is(pg_temp.said('lost'), NULL, 'it does not name what is UNKNOWN');
SELECT is(pg_temp.taken(), 'poor', 'takes no UNKNOWN one, nor what is FAILED and may have been executed');
SELECT lives_ok($$ SELECT settlement.redrive_policy_drop('all', 'x') $$, 'it is dropped');
SELECT lives_ok($$ SELECT settlement.redrive_policy_set('ask', 'x', status => 'UNKNOWN', look_up => true) $$, 'a policy that asks the wallet');
UPDATE settlement.policies SET may_repay = false;
SELECT is(pg_temp.said('lost'), 'The policy "ask" has the wallet asked about it as soon as a worker comes to it, time 1 of 5.', 'explain() says so');
SELECT is(pg_temp.taken(), 'lost?', 'takes UNKNOWN ones, by a look-up');
SELECT pg_temp.dead('lost', 'UNKNOWN', 'network_timeout', maybe_executed => true) IS NOT NULL;
SELECT lives_ok($$ SELECT settlement.redrive_policy_set('ask', 'x', status => 'UNKNOWN') $$, 'a policy that sends them again');
UPDATE settlement.policies SET may_repay = false;
SELECT is(pg_temp.taken(), 'none', 'takes none when who set it had no right to');
SELECT alike(pg_temp.said('lost'), '%does not take it: the wallet may have moved its money.', '... which explain() says');
UPDATE settlement.policies SET may_repay = true;
SELECT is((SELECT concat_ws(' ', count(*), bool_and(maybe_executed), max(generation)) FROM settlement.dlq WHERE trade_id = 'lost'), '1 t 0', '... it is still there');
SELECT settlement._steer() IS NOT NULL;
SELECT results_eq($$ SELECT trade_id, generation::int, maybe_executed FROM settlement.queue $$, $$ VALUES ('lost', 0, true) $$,
    'with the right they are sent under the same key');
DELETE FROM settlement.queue;
SELECT lives_ok($$ SELECT settlement.redrive_policy_drop('ask', 'x') $$, 'it is dropped');

-- one that cannot be redriven is not tried all the time
DELETE FROM settlement.dlq;
SELECT pg_temp.dead('gone') < pg_temp.dead('there');
DELETE FROM shop.trades WHERE trade_id = 'gone';
SELECT lives_ok($$ SELECT settlement.redrive_policy_set('p', 'x', class => 'rejected') $$, 'a policy');
SELECT is(pg_temp.taken(), 'there', 'one without a row does not stop the others');
SELECT results_eq($$ SELECT times, not_before > clock_timestamp(), note FROM settlement.policy_tries WHERE trade_id = 'gone' $$,
    $$ VALUES (0, true, 'trade row no longer exists') $$, '... waits, and says why');
SELECT alike(pg_temp.said('gone'), 'The policy "p" redrives it by itself at % (in %), time 1 of 5.  The last time it could not: trade row no longer exists.', '... explain() too');
SELECT lives_ok($$ SELECT settlement.redrive_policy_drop('p', 'x') $$, 'it is dropped');

-- one that cannot be followed does not stop the others
SELECT pg_temp.dead('fine') IS NOT NULL;
SELECT lives_ok($$ SELECT settlement.redrive_policy_set('bad', 'x', class => 'rejected'),
                          settlement.redrive_policy_set('good', 'x', class => 'rejected') $$, 'two policies');
UPDATE settlement.policies SET filter = filter || '{"relation": "pg_class"}' WHERE name = 'bad';
SELECT is(pg_temp.said('fine'), 'The policy "good" redrives it by itself as soon as a worker comes to it, time 1 of 5.', 'explain() goes by those that can be followed');
SELECT is(pg_temp.taken(), 'fine', 'one that fails does not stop the other');
SELECT pg_temp.dead('fine') IS NOT NULL;
UPDATE settlement.policies SET at_most = 1;
SELECT settlement._steer() IS NOT NULL;
SELECT results_eq($$ SELECT note, not_before > clock_timestamp() FROM settlement.policies WHERE name = 'bad' $$,
    $$ VALUES ('table pg_class is not attached', true) $$, '... it says why, and waits');
SELECT lives_ok($$ SELECT settlement.redrive_policy_drop(name, 'x') FROM settlement.policies $$, 'they are dropped');

-- when the breaker closes
SELECT lives_ok($$ SELECT settlement.redrive_policy_set('back', 'x', class => 'rejected', on_breaker_close => true) $$, 'a policy for the breaker');
SELECT is(pg_temp.said('fine'), 'The policy "back" redrives it by itself when the circuit breaker closes next, time 1 of 5.', 'explain() says what it waits for');
SELECT results_eq($$ SELECT at, what, details FROM settlement.timeline('fine') WHERE details LIKE 'by policy %' $$,
    $$ VALUES (NULL::timestamptz, 'will be redriven when the circuit breaker closes', 'by policy back; time 1 of 5') $$, '... timeline() too, without a time');
SELECT settlement.breaker_open('x');
SELECT is(pg_temp.taken(), 'none', 'it waits');
SELECT alike((SELECT string_agg(e, ' ') FROM settlement.explain('fine') e), '%when the circuit breaker closes next%circuit breaker was opened by hand%settlement.breaker_close()%', '... and explain() says what keeps it open');
SELECT settlement.breaker_close();
SELECT is(pg_temp.taken(), 'fine', 'it closes, and the policy takes it');
SELECT pg_temp.dead('fine', died => '-1 min') IS NOT NULL;
SELECT alike(pg_temp.said('fine'), 'The policy "back" redrives it by itself when the circuit breaker closes next, not before % (in %), time 2 of 5.', 'what dies later waits for the next time');
SELECT lives_ok($$ SELECT settlement.redrive_policy_drop('back', 'x') $$, 'it is dropped');

-- many: bounded steps, round and round
DELETE FROM settlement.dlq;
SELECT count(pg_temp.dead('n' || i)) FROM generate_series(1, 150) i;
SELECT lives_ok($$ SELECT settlement.redrive_policy_set('p', 'x', class => 'rejected') $$, 'a policy for many');
SELECT is(settlement._steer(), 0, 'a step has an end, and the next is due at once');
SELECT is((SELECT count(*) FROM settlement.queue), 100::bigint, '... it takes a hundred');
SELECT is(settlement._steer(), 1000, 'the last step');
SELECT is((SELECT count(*) FROM settlement.queue), 150::bigint, '... takes the rest');
SELECT is((SELECT last_id FROM settlement.policies), 0::bigint, '... and the next begins anew');
SELECT lives_ok($$ SELECT settlement.redrive_policy_drop('p', 'x') $$, 'it is dropped');

SELECT * FROM finish();
ROLLBACK;
