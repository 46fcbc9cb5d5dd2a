#!/usr/bin/perl
# While the queue holds more than the workers may send, each claims some of what
# it will send next.  That is sent when a place is free, and not at all when
# something comes in between.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Test::More;

my $s = Settlement->start(conf => <<'CONF');
settlement.workers = 1
settlement.concurrency = 4
settlement.request_timeout = '60s'
settlement.shutdown_timeout = '60s'
settlement.retry_initial_backoff = '20ms'
settlement.breaker_initial_open = '20ms'
settlement.breaker_max_open = '50ms'
CONF

my $flights = q{SELECT string_agg(concat_ws(' ', n, phase, waits_for), ', ' ORDER BY phase DESC)
	FROM (SELECT count(*) AS n, phase, waits_for FROM settlement.in_flight GROUP BY 2, 3) f};
my $claimed = 'SELECT count(*) FROM settlement.claims c, unnest(c.ids) AS i JOIN settlement.queue q ON q.id = i';
my $untouched = q{SELECT bool_and(NOT maybe_executed AND attempts = 0 AND first_sent_at IS NULL) FROM settlement.queue};

# The wallet answers nobody until answers().
sub no_answers { kill STOP => $s->wallet->{pid} }
sub answers { kill CONT => $s->wallet->{pid} }
my @frozen;
END { local $?; kill CONT => @frozen; answers() if $s }

sub four_and_four
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	no_answers();
	$s->trades($name, 20);
	$s->becomes($flights, '4 waiting wallet, 4 sending concurrency', 'four are at the wallet, four are claimed ahead');
}

scenario a_place_for_each_reply => sub {
	$s->trades('flow', 100);
	$s->settled_is('flow', 100);
	is($s->requests, 100, 'each is sent once');
	$s->becomes('SELECT count(*) FROM settlement.claims', 0, 'no claim is left');
};

# Retries join the queue although it is never empty and no place is ever free.
scenario a_retry_beside_a_backlog => sub {
	$s->set(retry_initial_backoff => '1s', retry_jitter => '0');
	$s->faults({ match => { trade_id => 'second-time', times => 1 }, action => 'status', status => 500 },
		{ match => { trade_id_prefix => 'backlog' }, action => 'pass', delay_ms => 20 });
	$s->trade('second-time');
	$s->becomes('SELECT count(*) FROM settlement.deferred', 1, 'one is to be tried again');
	$s->trades('backlog', 2000);
	$s->becomes('SELECT count(*) FROM settlement.deferred', 0, 'it goes back to the queue');
	cmp_ok($s->sql('SELECT count(*) FROM settlement.queue'), '>', 100, '... while others wait in there');
	$s->faults;
	$s->settled_is('backlog', 2000);
	$s->status_is('second-time', 'SETTLED');
	$s->reset('retry_jitter');
	$s->set(retry_initial_backoff => '20ms');
};

scenario a_pause_reaches_them => sub {
	my $before = $s->requests;
	four_and_four('paused');
	like($s->sql("SELECT string_agg(e, ' ') FROM (SELECT trade_id FROM settlement.in_flight WHERE phase = 'sending' LIMIT 1) f, settlement.explain(f.trade_id) e"),
		qr/has not left yet/, 'explain() says that such a trade is not sent');
	$s->sql("SELECT settlement.pause('in between')");
	is($s->sql('SELECT acknowledged FROM settlement.wait_paused()'), 't', 'the worker acknowledges');
	is($s->sql($flights), '4 waiting wallet', 'what was not sent is given back');
	is($s->sql($claimed), 4, 'its claims are gone');
	answers();
	$s->becomes($flights, '', 'what was sent is recorded');
	is($s->requests - $before, 4, 'four were sent');
	is($s->sql('SELECT count(*) FROM settlement.queue'), 16, 'the others are in the queue');
	is($s->sql($untouched), 't', 'as if they had never been claimed');
	$s->becomes('SELECT count(*) FROM settlement.claims', 0, 'no claim is left');
	$s->sql("SELECT settlement.resume(reason => 'go on')");
	$s->settled_is('paused', 20);
};

scenario a_stop_gives_them_back => sub {
	four_and_four('stopped');
	my ($pid) = $s->worker_pids;
	kill TERM => $pid;
	$s->becomes($claimed, 4, 'what is not sent is given back at once');
	is($s->sql($untouched), 't', 'it is as before');
	answers();
	$s->settled_is('stopped', 20);
	is($s->sql("SELECT max(settlement_attempts) FROM trades WHERE trade_id LIKE 'stopped-%'"), 1, 'with one attempt each');
};

# One is answered, and the first of those claimed ahead has its place: part of that
# claim is sent.  Who takes it over has that part only.
scenario a_crash_after_some_are_given_back => sub {
	$s->wait_for_workers;
	$s->faults({ match => { trade_id => 'crash-1' }, action => 'pass' },
		{ match => { trade_id_prefix => 'crash' }, action => 'pass', delay_ms => 5000 });
	$s->trades('crash', 20);
	$s->becomes("SELECT (SELECT count(*) FROM trades WHERE trade_id LIKE 'crash-%' AND settlement_status = 'SETTLED'), ($flights)",
		'1|4 waiting wallet, 4 sending concurrency', 'one is settled, another one is sent');
	no_answers();
	$s->sql("SELECT settlement.pause('in between')");
	$s->becomes($claimed, 4, 'what is not sent is given back');
	my ($pid) = $s->worker_pids;
	kill KILL => $pid;
	answers();
	$s->becomes("SELECT string_agg(concat_ws(' ', n, maybe_executed), ', ' ORDER BY n) FROM (SELECT count(*) AS n, maybe_executed
		FROM (SELECT maybe_executed FROM settlement.queue UNION ALL SELECT maybe_executed FROM settlement.deferred) w GROUP BY 2) g",
		'4 t, 15 f', 'the four that were sent are in doubt, the others are not');
	$s->faults();
	$s->sql("SELECT settlement.resume(reason => 'go on')");
	$s->settled_is('crash', 20);
};

scenario an_open_breaker_gives_them_back => sub {
	four_and_four('outage');
	$s->sql("SELECT settlement.breaker_open('outage')");
	$s->becomes($flights, '4 waiting wallet', 'what is not sent is given back');
	answers();
	$s->becomes($flights, '', 'nothing is claimed any more');
	is($s->sql($untouched), 't', 'what was not sent is as it was');
	$s->sql("SELECT settlement.breaker_close('over')");
	$s->settled_is('outage', 20);
	# so many answers end the ramp, beside which nothing is claimed ahead
	$s->trades('calm', 300);
	$s->settled_is('calm', 300);
};

# A second worker has places for them: the first one leaves them to it, also while
# that one does not come.
scenario another_worker_comes_first => sub {
	$s->set(workers => 2);
	$s->wait_for_workers(2);
	$s->trades('both', 8);
	$s->settled_is('both', 8);
	no_answers();
	my ($first, $second) = $s->worker_pids;
	push @frozen, $second;
	kill STOP => $second;
	$s->trades('each', 8);
	$s->becomes($flights, '4 waiting wallet', 'four are at the wallet');
	$s->sql('SELECT pg_sleep(0.3)');
	is($s->sql($flights), '4 waiting wallet', 'none is claimed ahead');
	kill CONT => pop @frozen;
	$s->becomes($flights, '8 waiting wallet', 'the second worker takes the others');
	answers();
	$s->settled_is('each', 8);
};

# Each limits on its own what may leave: none is claimed before it may.
scenario not_beside_a_limit => sub {
	my %limit = (rate_limit => 1_000_000, adaptive_concurrency => 'on', batch_size => 2);
	$s->set(workers => 1);
	$s->becomes('SELECT count(*) FROM settlement.workers', 1, 'one worker');
	four_and_four('no limit');
	answers();
	$s->settled_is('no limit', 20);
	for my $name (sort keys %limit)
	{
		$s->set($name => $limit{$name});
		$s->trades("before-$name", 8);
		$s->settled_is("before-$name", 8);
		no_answers();
		$s->trades($name, 12);
		$s->becomes("SELECT DISTINCT phase FROM settlement.in_flight", 'waiting', "$name: some are at the wallet");
		$s->trade("another-$name");
		$s->sql('SELECT pg_sleep(0.3)');
		is($s->sql("SELECT DISTINCT phase FROM settlement.in_flight"), 'waiting', "$name: none is claimed ahead");
		answers();
		$s->settled_is($name, 12);
		$s->reset($name);
	}
};

$s->at_rest;
$s->ledgers_are_equal;
done_testing();
