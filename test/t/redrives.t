#!/usr/bin/perl
# What the workers do of redrives and policies: a canary, a pace, a cancel, a
# restart in the middle, operators at the same rows, policies by time and by breaker.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Test::More;

my $s = Settlement->start(conf => <<'CONF');
settlement.retry_initial_backoff = '20ms'
settlement.breaker_initial_open = '20ms'
settlement.breaker_max_open = '80ms'
settlement.poll_interval = '10min'
settlement.shutdown_timeout = '200ms'
CONF

# n trades of a user without an account, dead.
sub dead
{
	my ($name, $n) = @_;
	$s->trades($name, $n, buyer => "user-$name", symbol => 'BTC/USDT');
	$s->becomes("SELECT count(*) FROM settlement.dlq WHERE trade_id LIKE '$name-%'", $n, "$n dead letters");
}

sub fund { my ($name) = @_; $s->wallet->fund("user-$name", 'USDT', '1000000') }

# Begin one; returns its id.
sub redrive
{
	my ($name, $how) = @_;
	$s->sql("SELECT settlement.redrive_where(user_id => 'user-$name', $how, dry_run => false, reason => '$name')");
	return $s->sql('SELECT max(id) FROM settlement.redrives');
}

sub ends
{
	my ($id, $expected, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$s->becomes("SELECT concat_ws(' ', state, redriven, skipped) FROM settlement.redrives WHERE id = $id", $expected, $what);
}

sub tidy
{
	$s->sql("SELECT settlement.dlq_purge(all_rows => true, dry_run => false, reason => 'tidy')");
	$s->at_rest;
	$s->ledgers_are_equal;
}

scenario canary_settles => sub {
	dead('good', 250);
	fund('good');
	my $requests = $s->requests;
	my $id = redrive('good', 'canary => 3');
	ends($id, 'done 250 0', 'a canary that settles lets the rest go');
	is($s->sql("SELECT canary_settled FROM settlement.redrives WHERE id = $id"), 3, 'it was of three');
	$s->settled_is('good', 250);
	is($s->requests - $requests, 250, 'one request for each');
	tidy();
};

scenario canary_waits => sub {
	dead('slow', 20);
	fund('slow');
	$s->faults({ match => { trade_id_prefix => 'slow', count => 1 }, action => 'pass', reply_delay_ms => 600_000 });
	$s->set(request_timeout => '60s');
	my $id = redrive('slow', 'canary => 2');
	$s->becomes("SELECT canary_settled FROM settlement.redrives WHERE id = $id", 1, 'one of two settles');
	$s->becomes('SELECT in_flight FROM settlement.status', 1, 'the other is on its way');
	is($s->sql('SELECT count(*) FROM settlement.dlq'), 18, 'the rest waits for it');
	$s->faults;
	$s->reset('request_timeout');
	$s->sql('SELECT settlement.restart_worker(slot) FROM settlement.workers');
	ends($id, 'done 20 0', 'until it settles');
	$s->settled_is('slow', 20);
	tidy();
};

scenario canary_dies => sub {
	dead('bad', 100);
	my $requests = $s->requests;
	my $id = redrive('bad', 'canary => 3');
	ends($id, 'stopped 3 0', 'a canary that dies stops it');
	like($s->sql("SELECT why FROM settlement.redrives WHERE id = $id"), qr/^trade "bad-\d+" of the canary: .*USER_NOT_FOUND/, 'which says why');
	$s->becomes('SELECT count(*) FROM settlement.dlq', 100, 'all are dead');
	is($s->requests - $requests, 3, 'three were sent');
	tidy();
};

scenario cancel => sub {
	dead('halt', 200);
	fund('halt');
	my $id = redrive('halt', 'per_second => 20');
	$s->becomes("SELECT redriven > 2 FROM settlement.redrives WHERE id = $id", 't', 'some have gone');
	is($s->sql("SELECT concat_ws(' ', act, target, phase, total, done > 0, pid IS NULL) FROM settlement.progress"), "redrive $id halt running 200 t t", 'progress shows it');
	like($s->sql("SELECT settlement.redrive_cancel($id, 'enough')"), qr/^redrive $id is cancelled; \d+ of its trades/, 'it is cancelled');
	my $n = $s->sql("SELECT redriven FROM settlement.redrives WHERE id = $id");
	cmp_ok($n, '<', 200, 'before all had gone');
	$s->settled_is('halt', $n, 'those settle');
	is($s->sql('SELECT count(*) FROM settlement.dlq'), 200 - $n, 'the others are dead still');
	tidy();
};

# A crash, too: the step that was under way is undone with the trades it moved.
scenario restart_in_the_middle => sub {
	for my $how (qw(fast immediate))
	{
		dead($how, 150);
		fund($how);
		my $id = redrive($how, 'per_second => 100');
		$s->becomes("SELECT redriven > 0 FROM settlement.redrives WHERE id = $id", 't', 'some have gone');
		$s->node->stop($how);
		$s->node->start;
		ends($id, 'done 150 0', 'the rest goes after the restart');
		$s->settled_is($how, 150);
	}
	tidy();
};

scenario beside_operators => sub {
	dead('crowd', 300);
	fund('crowd');
	my $id = redrive('crowd', 'per_second => 1000');
	$s->sql(<<'SQL');
DO $$ DECLARE t text; BEGIN
    FOR t IN SELECT 'crowd-' || i FROM generate_series(1, 300) AS i ORDER BY i DESC LOOP
        BEGIN
            CASE length(t) % 3
                WHEN 0 THEN PERFORM settlement.resolve(t, 'FAILED', NULL, 'by hand');
                WHEN 1 THEN PERFORM settlement.dlq_purge(trade_id => t, dry_run => false, reason => 'by hand');
                ELSE PERFORM settlement.redrive(t, 'by hand');
            END CASE;
        EXCEPTION WHEN OTHERS THEN NULL; END;
        COMMIT;
    END LOOP; END $$;
SQL
	$s->becomes("SELECT state FROM settlement.redrives WHERE id = $id", 'done', 'it ends');
	$s->at_rest;
	is($s->sql(<<'SQL'), 300, 'each trade had one of three ends, as the audit log says');
SELECT count(DISTINCT t.trade_id) FROM witness.trades t
WHERE t.trade_id LIKE 'crowd-%'
  AND (SELECT count(*) FROM settlement.audit_log a WHERE a.trade_id = t.trade_id AND a.act IN ('redrive', 'resolve', 'dlq_purge')) = 1
  AND t.settlement_status = CASE WHEN EXISTS (SELECT FROM settlement.audit_log a WHERE a.trade_id = t.trade_id AND a.act = 'redrive')
                                 THEN 'SETTLED' ELSE 'FAILED' END
SQL
	tidy();
};

# A trigger of the trade table that takes its time must not take the worker's.
scenario a_slow_trigger_stops_it => sub {
	dead('thick', 5);
	fund('thick');
	$s->set(apply_timeout => '200ms');
	$s->sql(<<'SQL');
CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN IF new.trade_id LIKE 'thick%' AND new.settlement_status = 'PENDING' THEN PERFORM pg_sleep(60); END IF; RETURN new; END $$;
CREATE TRIGGER dawdle BEFORE UPDATE ON trades FOR EACH ROW EXECUTE FUNCTION dawdle();
SQL
	my $id = redrive('thick', 'canary => 2');
	ends($id, 'stopped 0 0', 'it is stopped');
	like($s->sql("SELECT why FROM settlement.redrives WHERE id = $id"), qr/apply_timeout/, 'which says why');
	$s->trade('thin');
	$s->settled_is('thin', 1, 'the workers go on');

	# a policy, or another one, in the same step would have no time limit any more
	$s->sql("SELECT settlement.redrive_policy_set('p' || i, 'try', class => 'user_not_found', user_id => 'user-thick', after => '0') FROM generate_series(1, 2) i");
	$s->becomes("SELECT count(*) FROM settlement.policies WHERE note ~ 'apply_timeout'", 2, 'each policy is put off');
	$s->trade('thinner');
	$s->settled_is('thinner', 1, 'the workers go on');
	$s->sql("SELECT settlement.redrive_policy_drop('p' || i, 'over') FROM generate_series(1, 2) i");
	$s->sql('DROP TRIGGER dawdle ON trades');
	$s->reset('apply_timeout');
	$id = redrive('thick', 'canary => 2');
	ends($id, 'done 5 0', 'without it the same redrive goes through');
	$s->settled_is('thick', 5);
	tidy();
};

# A trigger that kills the server would do so at each step, for ever.
scenario a_trigger_that_kills_the_server => sub {
	dead('fatal', 4);
	dead('beside', 40);
	fund($_) for qw(fatal beside);
	$s->node->restart;	# the next crash is the first in a row
	$s->sql(<<'SQL');
CREATE FUNCTION public.kill_myself() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'kill -9 ' || pg_backend_pid()); PERFORM pg_sleep(60); END $$;
CREATE FUNCTION murder() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN IF new.trade_id = 'fatal-3' AND new.settlement_status = 'PENDING' THEN PERFORM public.kill_myself(); END IF; RETURN new; END $$;
CREATE TRIGGER murder BEFORE UPDATE ON trades FOR EACH ROW EXECUTE FUNCTION murder();
SQL
	my $log = -s $s->node->logfile;
	my $beside = redrive('beside', 'per_second => 4');
	$s->try_sql("SELECT settlement.redrive_where(user_id => 'user-fatal', canary => 4, dry_run => false, reason => 'fatal')");
	my $id = wait_for(sub { $s->sql("SELECT id FROM settlement.redrives WHERE reason = 'fatal'") }, 'the redrive to begin');
	ends($id, 'stopped 0 0', 'it is stopped');
	like($s->sql("SELECT why FROM settlement.redrives WHERE id = $id"), qr/^the server crashed in the midst of 3 steps in a row: see what the triggers/, 'which says why');
	my $times = () = PostgreSQL::Test::Utils::slurp_file($s->node->logfile, $log) =~ /was terminated by signal 9/g;
	is($times, 3, 'after three crashes');
	ends($beside, 'done 40 0', 'another goes on');
	$s->settled_is('beside', 40);

	$s->node->restart;
	$log = -s $s->node->logfile;
	my $policy = "SELECT settlement.redrive_policy_set('fatal', 'deposits', user_id => 'user-fatal', after => '0')";
	$s->try_sql($policy);
	$s->becomes("SELECT crashes, not_before > clock_timestamp() FROM settlement.policies", '1|t', 'a policy is put off after the first');
	is($s->sql('SELECT note FROM settlement.redrive_policies'), 'the server crashed in the midst of a step', '... and says so');
	$times = () = PostgreSQL::Test::Utils::slurp_file($s->node->logfile, $log) =~ /was terminated by signal 9/g;
	is($times, 1, 'the server goes on');
	wait_for(sub { $s->sql('DROP TRIGGER IF EXISTS murder ON trades'); 1 }, 'the trigger to be dropped');
	$s->sql($policy);
	$s->settled_is('fatal', 4, 'set again when the cause is gone, it redrives them');
	is($s->sql('SELECT crashes, note IS NULL FROM settlement.policies'), '0|t', 'and has forgotten the crash');
	$s->sql("SELECT settlement.redrive_policy_drop('fatal', 'over')");
	tidy();
};

scenario policy_at_most => sub {
	$s->sql("SELECT settlement.redrive_policy_set('late', 'deposits are late', code => 'USER_NOT_FOUND', after => '100 ms', at_most => 3)");
	my $requests = $s->requests;
	$s->trades('again', 2, buyer => 'user-again', symbol => 'BTC/USDT');
	$s->becomes("SELECT concat_ws(' ', redriven, used_up) FROM settlement.redrive_policies", '6 2', 'each is redriven three times');
	$s->becomes('SELECT count(*) FROM settlement.dlq', 2, 'then they stay dead');
	is($s->requests - $requests, 8, 'sent once, and three times again');
	$s->trades('rich', 2, buyer => 'user-rich', symbol => 'BTC/USDT');
	fund('rich');
	$s->settled_is('rich', 2, 'one whose deposit comes in time settles');
	$s->sql("SELECT settlement.redrive_policy_drop('late', 'over')");
	tidy();
};

scenario policy_leaves_unknown_alone => sub {
	$s->set(max_attempts => 1);
	$s->faults({ match => { trade_id_prefix => 'lost' }, action => 'status', status => 500 });
	$s->trades('lost', 2);
	wait_for(sub { $s->trade('live' . int(rand(1e9))); $s->sql("SELECT count(*) FROM settlement.dlq WHERE status = 'UNKNOWN'") == 2 }, 'two to be unknown');
	$s->faults;
	$s->sql("SELECT settlement.redrive_policy_set('all', 'x', all_rows => true, after => '0')");
	dead('marked', 1);
	$s->becomes("SELECT redriven > 0 FROM settlement.policies", 't', 'the policy is followed');
	is($s->sql("SELECT count(*) FROM settlement.dlq WHERE status = 'UNKNOWN'"), 2, 'and takes no UNKNOWN one');
	$s->sql("SELECT settlement.redrive_policy_drop('all', 'x')");
	$s->sql("SELECT settlement.redrive_policy_set('unknown', 'x', status => 'UNKNOWN', look_up => true, after => '0')");
	$s->settled_is('lost', 2, 'one that says so asks, and they settle');
	$s->sql("SELECT settlement.redrive_policy_drop('unknown', 'x')");
	is($s->sql("SELECT count(*) FROM settlement.audit_log WHERE trade_id LIKE 'lost%' AND act = 'lookup' AND (details ->> 'generation')::int = 0"), 2, 'under the same keys');
	$s->reset('max_attempts');
	$s->becomes("SELECT count(*) FROM settlement.queue", 0, 'nothing is on its way');
	tidy();
};

scenario policy_on_breaker_close => sub {
	dead('trip', 3);
	$s->sql("SELECT settlement.redrive_policy_set('back', 'the wallet is back', code => 'USER_NOT_FOUND', after => '0', on_breaker_close => true, at_most => 10)");
	$s->trade('meanwhile');
	$s->settled_is('meanwhile', 1, 'while the breaker is closed');
	is($s->sql('SELECT redriven FROM settlement.policies'), 0, 'nothing is redriven');
	$s->sql("SELECT settlement.breaker_open('for a test')");
	$s->becomes('SELECT breaker_open FROM settlement.policies', 't', 'the policy has seen it open');
	is($s->sql('SELECT redriven FROM settlement.policies'), 0, 'nothing is redriven before it closes');
	fund('trip');
	$s->node->restart;
	$s->settled_is('trip', 3, 'after it they are, also when a restart closed it');
	dead('later', 2);
	$s->trade('meanwhile-too');
	$s->settled_is('meanwhile-too', 1, 'what dies later');
	is($s->sql("SELECT count(*) FROM settlement.dlq WHERE trade_id LIKE 'later%'"), 2, 'waits for the next time');
	fund('later');
	$s->stop_wallet;
	my $opened = $s->metric('breaker_opened');
	$s->trades('outage', 50);
	$s->becomes("SELECT value > $opened FROM settlement.metrics WHERE name = 'breaker_opened'", 't', 'an outage');
	$s->start_wallet;
	$s->settled_is('later', 2, 'which its end is');
	$s->settled_is('outage', 50);
	$s->sql("SELECT settlement.redrive_policy_drop('back', 'x')");
	tidy();
};

done_testing();
