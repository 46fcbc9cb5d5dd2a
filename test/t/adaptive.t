#!/usr/bin/perl
# A wallet that can take only so many requests at a time, and workers that find
# out how many.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Test::More;

my $s = Settlement->start(conf => <<'CONF');
settlement.workers = 1
settlement.concurrency = 64
settlement.adaptive_concurrency = on
settlement.retry_initial_backoff = '20ms'
settlement.retry_max_backoff = '100ms'
settlement.breaker_failures = 1000
# a wallet that is at its limit may refuse the same trade several times
settlement.max_attempts = 20
CONF

sub reset_stats { $s->wallet->ok_json(POST => '/admin/reset-stats', {}) }
sub most_in_flight { return $s->wallet->stats->{requests}{most_in_flight} }
sub limit { return $s->sql('SELECT concurrency_limit FROM settlement.workers') }

# A wallet with this capacity; what is beyond it is refused.
sub capacity
{
	my ($n, $status, $ms) = @_;
	$s->faults({ match => { above => $n }, action => 'status', status => $status },
		{ match => {}, action => 'pass', delay_ms => $ms // 15 });
}

scenario begins_with_few_and_grows_to_what_the_wallet_takes => sub {
	is(limit(), 4, 'a worker begins with four');
	# slow enough that a busy machine does not look like a slower wallet
	capacity(1000, 503, 100);
	$s->trades('many', 2000);
	$s->becomes('SELECT max(concurrency_limit) > 32 FROM settlement.workers', 't', 'the limit grows while the wallet keeps up');
	$s->settled_is('many', 2000);
	cmp_ok(most_in_flight(), '>', 32, 'and the wallet sees it');
	cmp_ok(most_in_flight(), '<=', 64, 'settlement.concurrency is the most');
};

scenario a_wallet_that_refuses => sub {
	my $refused = $s->wallet->stats->{faults}{status};
	capacity(8, 503);
	$s->trades('refused', 2000);
	$s->becomes('SELECT max(concurrency_limit) < 12 FROM settlement.workers', 't', 'the limit falls to about the capacity');
	cmp_ok($s->metric('concurrency_limit'), '<', 16, 'as the metric says');
	$s->becomes("SELECT count(*) FROM trades WHERE trade_id LIKE 'refused%' AND settlement_status <> 'PENDING'", 2000, 'all come to an end');
	$refused = $s->wallet->stats->{faults}{status} - $refused;
	cmp_ok($refused, '<', 600, "few of 2,000 are refused ($refused)");
	is($s->sql('SELECT count(*) FROM settlement.dlq'), 0, 'none is dead-lettered');
};

scenario a_wallet_that_becomes_slow => sub {
	$s->faults({ match => { above => 10 }, action => 'pass', delay_ms => 400 }, { match => {}, action => 'pass', delay_ms => 10 });
	$s->trades('slow', 800);
	$s->settled_is('slow', 800);
	reset_stats();
	$s->trades('slower', 400);
	$s->settled_is('slower', 400);
	cmp_ok(most_in_flight(), '<', 32, 'latency alone makes the limit fall');
};

scenario an_outage => sub {
	$s->set(breaker_failures => 10);
	$s->stop_wallet;
	$s->trades('outage', 500);
	$s->becomes('SELECT max(concurrency_limit) FROM settlement.workers', 1, 'it falls to one, not to none');
	$s->start_wallet;
	$s->settled_is('outage', 500, 'and all settle when the wallet is back');
	is($s->sql('SELECT count(*) FROM settlement.dlq'), 0, 'nothing is dead-lettered');
};

scenario switched_off_by_a_reload => sub {
	$s->set(adaptive_concurrency => 'off');
	$s->becomes('SELECT concurrency_limit FROM settlement.workers', 64, 'the limit is settlement.concurrency');
	$s->set(adaptive_concurrency => 'on');
	$s->becomes('SELECT concurrency_limit FROM settlement.workers', 4, 'and when switched on again, four');
};

$s->at_rest;
$s->ledgers_are_equal;
done_testing();
