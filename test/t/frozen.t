#!/usr/bin/perl
# A worker that lives, but does not come by any more: after request_timeout and
# a grace time of ten seconds the others take over what it has.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Test::More;

my $s = Settlement->start(conf => <<'CONF');
settlement.request_timeout = '4s'
settlement.retry_initial_backoff = '20ms'
settlement.poll_interval = '200ms'
CONF

# When it wakes up it must not act on what is no longer its own.
scenario a_frozen_worker => sub {
	$s->faults({ match => { trade_id_prefix => 'frozen', times => 1 }, action => 'pass', reply_delay_ms => 3000 });
	my ($booked, $requests) = ($s->effects, $s->requests);
	$s->trades('frozen', 10);
	wait_for(sub { $s->requests >= $requests + 10 }, 'all to be sent');
	my @frozen = split /\n/, $s->sql('SELECT pid FROM settlement.workers WHERE in_flight > 0');
	kill STOP => $frozen[0];
	$s->settled_is('frozen', 10, 'all settle');
	$s->trades('thawed', 10);
	kill CONT => $frozen[0];
	$s->settled_is('thawed', 10);
	$s->becomes("SELECT count(*) FROM settlement.workers WHERE state = 'running' AND heartbeat_age < interval '5 seconds'", 2,
		'it works again');
	$s->becomes("SELECT value FROM settlement.metrics WHERE name = 'late_settled'", 10, 'it says what it knew: nothing new');
	is($s->effects - $booked, 20, 'one effect of each');
	is($s->sql("SELECT count(*) FROM settlement.discrepancies"), 0, 'nothing contradicts');
	$s->at_rest;
	$s->ledgers_are_equal;
	$s->faults;
};


# What it knew counts all the same: that the wallet settled wins over everything,
# also over an operator who has said otherwise meanwhile.
scenario evidence_that_comes_late => sub {
	$s->faults({ match => { trade_id_prefix => 'late', times => 1 }, action => 'pass', reply_delay_ms => 3000 });
	my $requests = $s->requests;
	$s->trades('late', 2, symbol => 'BTC/USDT');
	wait_for(sub { $s->requests >= $requests + 2 }, 'both to be sent');
	my ($frozen, @others) = split /\n/, $s->sql('SELECT pid FROM settlement.workers WHERE in_flight > 0');
	is(scalar @others, 0, 'one worker has both');
	kill STOP => $frozen;
	$s->sql("SELECT settlement.pause('look into it', 'BTC/USDT')");
	$s->becomes("SELECT count(*) FROM settlement.deferred WHERE trade_id LIKE 'late%' AND maybe_executed", 2, 'taken over, as perhaps executed');
	my ($status, undef, $err) = $s->try_sql("SELECT settlement.resolve('late-1', 'FAILED', NULL, 'lost patience')");
	like($err, qr/reference is required/, 'a resolution wants a reference, since the wallet may have moved the money');
	$s->sql("SELECT settlement.resolve('late-1', 'FAILED', 'ticket 1', 'lost patience')");
	$s->status_is('late-1', 'FAILED');
	kill CONT => $frozen;
	$s->settled_is('late', 2, 'both are settled by what the worker knew');
	$s->becomes("SELECT string_agg(trade_id, ' ') FROM settlement.discrepancies", 'late-1', 'and that the operator was wrong is a discrepancy');
	is($s->requests - $requests, 2, 'nothing was sent again');
	$s->faults;
	$s->sql("SELECT settlement.resume('BTC/USDT')");
	$s->at_rest;
	$s->ledgers_are_equal;
};

done_testing();
