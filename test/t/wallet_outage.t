#!/usr/bin/perl
# The wallet goes away under load, and comes back.  How long: SETTLEMENT_OUTAGE
# seconds (6).
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use IPC::Run;
use Test::More;
use Time::HiRes qw(time);

my $seconds = $ENV{SETTLEMENT_OUTAGE} || 6;
my $rate = 200;
my $s = Settlement->start;

scenario wallet_outage => sub {
	my $dir = $s->node->basedir;
	my $n = ($seconds + 2) * $rate;
	PostgreSQL::Test::Utils::append_to_file("$dir/engine", "SELECT public.put('load-' || :client_id || '-' || nextval('seq'));\n");
	$s->sql('CREATE SEQUENCE seq; GRANT USAGE ON SEQUENCE seq TO engine');
	my ($out, $err) = ('', '');
	my $load = IPC::Run::start([ 'pgbench', '-n', '-h', $s->node->host, '-p', $s->node->port, '-U', 'engine', '-c', 4, '-j', 1,
		'--rate', $rate, '-t', $n / 4, '-f', "$dir/engine", 'postgres' ], '>', \$out, '2>', \$err);
	$s->becomes("SELECT count(*) >= $rate FROM trades WHERE settlement_status = 'SETTLED'", 't', 'trades settle under load');
	$s->stop_wallet;
	my $stopped = time;
	$load->finish;
	like($out, qr/number of failed transactions: 0 /, 'no INSERT fails') or diag("$out$err");
	is($s->sql("SELECT count(*) FROM trades WHERE trade_id LIKE 'load%'"), $n, "$n trades were inserted");
	like($s->sql('SELECT state FROM settlement.status'), qr/^breaker/, 'the breaker is open');
	is($s->sql('SELECT count(*) FROM settlement.dlq'), 0, 'nothing is dead-lettered');
	is($s->sql("SELECT count(*) FROM trades WHERE settlement_status IS DISTINCT FROM 'SETTLED' AND settlement_status <> 'PENDING'"), 0,
		'no trade has failed');
	cmp_ok(time - $stopped, '>', 2, 'the wallet was away for some time');

	my $pending = $s->sql("SELECT count(*) FROM trades WHERE settlement_status = 'PENDING'");
	cmp_ok($pending, '>', $rate, "$pending trades wait");
	$s->start_wallet;
	$s->settled_is('load', $n, 'all settle', 30);
	is($s->sql('SELECT count(*) FROM settlement.dlq'), 0, 'nothing is dead-lettered');
	is($s->sql('SELECT coalesce(max(charged), 0) FROM settlement.deferred'), 0, 'nothing was charged');
	$s->at_rest;
	$s->ledgers_are_equal;
};

# It accepts connections and answers nothing, which costs a timeout each.
scenario a_wallet_that_hangs => sub {
	$s->set(request_timeout => '500ms', retry_initial_backoff => '50ms');
	$s->faults({ action => 'hang', ms => 60000 });
	$s->trades('hanging', 300);
	$s->becomes("SELECT value > 0 FROM settlement.metrics WHERE name = 'breaker_state'", 't', 'the breaker opens');
	$s->faults;
	$s->settled_is('hanging', 300);
	is($s->sql('SELECT count(*) FROM settlement.dlq'), 0, 'nothing is dead-lettered');
	$s->ledgers_are_equal;
};

# Restarts of the wallet, one after the other: a request in flight may have been booked.
scenario a_wallet_that_restarts => sub {
	$s->trades('restarts', 2000);
	for my $i (1 .. 5)
	{
		my $before = $s->sql("SELECT count(*) FROM trades WHERE settlement_status = 'SETTLED'");
		$s->wallet->crash;
		$s->start_wallet;
		$s->becomes("SELECT count(*) > $before OR NOT EXISTS (SELECT FROM trades WHERE settlement_status = 'PENDING') FROM trades WHERE settlement_status = 'SETTLED'",
			't', 'it goes on');
	}
	$s->settled_is('restarts', 2000);
	is($s->sql('SELECT count(*) FROM settlement.dlq'), 0, 'nothing is dead-lettered');
	$s->at_rest;
	$s->ledgers_are_equal;
};

done_testing();
