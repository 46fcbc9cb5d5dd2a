#!/usr/bin/perl
# Settings are changed while the server runs.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Test::More;

# So seldom does a worker look by itself that only what wakes it can settle a trade.
my $s = Settlement->start(conf => <<'CONF');
settlement.workers = 1
settlement.poll_interval = '10min'
settlement.request_timeout = '10min'
CONF

# Each reload makes a new wallet client, now and then at the old one's address.
scenario replies_are_noticed_after_each_reload => sub {
	my @sizes = (64, 256, 1024, 128, 512);
	$s->faults({ match => {}, action => 'pass', delay_ms => 20 });
	for my $round (1 .. 40)
	{
		my $concurrency = $sizes[$round % @sizes];
		$s->set(concurrency => $concurrency);
		$s->becomes('SELECT concurrency_limit FROM settlement.workers', $concurrency, "reload $round");
		$s->trades("after$round", 100);
		last if !$s->settled_is("after$round-", 100, "reload $round: replies are noticed", 20);
	}
};

$s->at_rest;
$s->ledgers_are_equal;
done_testing();
