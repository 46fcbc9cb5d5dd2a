#!/usr/bin/perl
# A network that loses, holds and cuts what goes through it, between the workers
# and a wallet that does everything right.  Whatever happens on the way, each trade
# is paid once, under one key, with one request per attempt.
#
# The client itself is shown these one by one in test/client; a reply sent twice
# is in unknown_outcomes.t, because it is the wallet that sends it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Test::More;

my $s = Settlement->start(proxy => 11, conf => <<'CONF');
settlement.request_timeout = '700ms'
settlement.retry_initial_backoff = '20ms'
settlement.retry_max_backoff = '50ms'
settlement.breaker_initial_open = '20ms'
settlement.breaker_max_open = '50ms'
settlement.attempt_history = all
CONF

my $n = 0;

# One trade while the proxy does this to the first request that settles; returns
# its name.
sub one_trade
{
	my (%fault) = @_;
	my $trade = "$fault{mode}-" . ++$n;
	my $struck = $s->proxy->stats->{ $fault{mode} };
	$s->proxy->set(match => 'POST', count => 1, %fault);
	$s->trade($trade);
	$s->status_is($trade, 'SETTLED', join ' ', $trade, 'settles after', map { "$_=$fault{$_}" } sort keys %fault);
	is($s->proxy->stats->{ $fault{mode} } - $struck, 1, 'it was hit');
	return $trade;
}

# What became of the first attempt, and of all of them at the wallet.
sub first_is_unknown
{
	my ($trade, $class) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like($s->sql("SELECT string_agg(concat_ws(' ', outcome, class, phase), ', ' ORDER BY at) FROM settlement.attempts WHERE trade_id = '$trade'"),
		qr/^unknown $class (sent|replying|replied)(, .*)?, settled replied$/, 'the first attempt may have been executed, a later one settles');
	is($s->sql("SELECT count(DISTINCT generation) FROM settlement.attempts WHERE trade_id = '$trade'"), 1, 'under the same key');
	is($s->effects_of($trade), 1, 'one effect');
}

sub settle { return $s->wallet->stats->{settle} }

# A connection that is used again is the harder case: there is one in the pool.
scenario warm_connections => sub {
	$s->trades('warm', 5);
	$s->settled_is('warm', 5);
};

scenario reply_lost => sub {
	for my $bytes (0, 5, 60, 200)
	{
		for my $reset (0, 1)
		{
			my $replays = settle()->{replays};
			my $trade = one_trade(mode => 'cut_reply', bytes => $bytes, reset => $reset);
			first_is_unknown($trade, qr/network|wallet_reply/);
			is(settle()->{replays} - $replays, 1, 'the wallet repeats its answer');
		}
	}
};

scenario request_cut => sub {
	for my $bytes (0, 5, 100, 400)
	{
		my $before = settle();
		my $trade = one_trade(mode => 'cut_request', bytes => $bytes);
		first_is_unknown($trade, 'network');
		is(settle()->{effects} - $before->{effects}, 1, 'half a request is no request');
		is(settle()->{replays}, $before->{replays}, 'nothing of it was known');
	}
};

# libcurl on its own sends again when a connection that it uses again dies, and
# says nothing of it.  The proxy counts what was sent.
scenario nothing_is_sent_again_within_an_attempt => sub {
	$s->set(workers => 1, concurrency => 2, max_attempts => 1000);
	$s->wait_for_workers(1);
	for my $fault ([ mode => 'cut_request', bytes => 0 ], [ mode => 'cut_reply', bytes => 0 ])
	{
		$s->proxy->set(mode => 'pass');
		$s->trades("pool-" . ++$n, 4);
		$s->settled_is("pool-$n-", 4);
		my $before = $s->proxy->stats;
		$s->proxy->set(@$fault, probability => 0.4);
		$s->trades("resend-" . ++$n, 30);
		$s->settled_is("resend-$n-", 30);
		my $after = $s->proxy->stats;
		cmp_ok($after->{ $fault->[1] } - $before->{ $fault->[1] }, '>', 3, "$fault->[1] struck often");
		is($after->{requests} - $before->{requests},
			$s->sql("SELECT sum(settlement_attempts) FROM trades WHERE trade_id LIKE 'resend-$n-%'"), 'one request per attempt');
	}
	$s->proxy->set(mode => 'pass');
	$s->reset('workers', 'concurrency', 'max_attempts');
	$s->wait_for_workers(2);
};

scenario reply_after_the_timeout => sub {
	my $before = settle();
	my $trade = one_trade(mode => 'delay', ms => 1000);
	first_is_unknown($trade, 'network_timeout');
	is(settle()->{replays} - $before->{replays}, 1, 'the wallet had executed it');
};

# It arrives when we have long settled under the same key.
scenario request_that_arrives_after_its_retry => sub {
	my $before = settle();
	my $trade = one_trade(mode => 'delay', ms => 1500, side => 'request');
	first_is_unknown($trade, 'network_timeout');
	wait_for(sub { settle()->{replays} - $before->{replays} == 1 }, 'the late request');
	is(settle()->{effects} - $before->{effects}, 1, 'the late request has no effect');
};

scenario half_open_connection => sub {
	my $before = settle();
	my $trade = one_trade(mode => 'half_open');
	first_is_unknown($trade, 'network_timeout');
	is(settle()->{replays}, $before->{replays}, 'the wallet never saw the first');
};

# All is swallowed for longer than max_attempts timeouts.  When it is over, what was
# swallowed arrives, long after it was given up.
scenario blackhole => sub {
	my $opened = $s->metric('breaker_opened');
	$s->proxy->set(mode => 'blackhole');
	$s->trades('dark', 200);
	$s->becomes("SELECT value > $opened FROM settlement.metrics WHERE name = 'breaker_opened'", 't', 'the breaker opens');
	$s->becomes("SELECT count(*) >= 4 FROM (SELECT DISTINCT at FROM settlement.attempts WHERE trade_id LIKE 'dark%') a", 't', 'it is tried again and again');
	is($s->sql("SELECT count(*) FROM settlement.dlq"), 0, 'nothing is dead-lettered');
	is($s->sql("SELECT coalesce(max(charged), 0) FROM settlement.deferred"), 0, 'nor charged');
	is($s->sql("SELECT count(*) FROM trades WHERE trade_id LIKE 'dark%' AND settlement_status <> 'PENDING'"), 0, 'all are pending');
	$s->proxy->set(mode => 'pass');
	$s->settled_is('dark', 200);
	is($s->sql("SELECT count(*) FROM settlement.dlq"), 0, 'nothing is dead-lettered in the end');
};

scenario refused => sub {
	$s->proxy->set(mode => 'refuse');
	$s->trades('refused', 20);
	$s->becomes("SELECT count(*) > 0 FROM settlement.attempts WHERE trade_id LIKE 'refused%' AND outcome = 'not_executed' AND phase = 'connecting'", 't',
		'what cannot connect is not executed');
	$s->proxy->set(mode => 'pass');
	$s->settled_is('refused', 20);
};

# All at once on many trades.
scenario everything_at_once => sub {
	$s->set(max_attempts => 1000);
	for my $fault ([ mode => 'jitter', ms => 30 ], [ mode => 'cut_reply', bytes => 0 ], [ mode => 'cut_request', bytes => 300 ],
		[ mode => 'half_open' ], [ mode => 'cut_reply', bytes => 150, reset => 1 ])
	{
		my %fault = @$fault;
		$s->proxy->set(%fault, probability => $fault{mode} eq 'half_open' ? 0.02 : 0.2);
		$s->trades('wild-' . ++$n, 150);
		$s->settled_is("wild-$n-", 150);
	}
	$s->proxy->set(mode => 'pass');
};

$s->at_rest;
$s->ledgers_are_equal;
done_testing();
