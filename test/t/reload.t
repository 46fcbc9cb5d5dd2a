#!/usr/bin/perl
# Settings are changed while the server runs.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use File::Temp qw(tempdir);
use Test::More;

plan skip_all => 'the sanitizers have the allocator' if $ENV{SETTLEMENT_SANITIZE};

# A reload makes a new wallet client, which now and then is at the old one's
# address; here it always is.
my $dir = tempdir(CLEANUP => 1);
system('gcc', '-O1', '-Wall', '-Wextra', '-Werror', '-shared', '-fPIC', '-o', "$dir/same_place.so",
	"$FindBin::Bin/../lib/same_place.c") == 0 or die 'same_place.c does not build';
$ENV{LD_PRELOAD} = "$dir/same_place.so";

# So seldom does a worker look by itself that only what wakes it can settle a trade.
my $s = Settlement->start(conf => <<'CONF');
settlement.workers = 1
settlement.poll_interval = '10min'
settlement.request_timeout = '10min'
CONF

scenario replies_are_noticed_after_each_reload => sub {
	$s->faults({ match => {}, action => 'pass', delay_ms => 5 });
	$s->trades('before', 10);
	$s->settled_is('before', 10);
	for my $round (1 .. 3)
	{
		# one after the other: each that is noticed by some timer only takes a second
		$s->set(concurrency => 1 + $round % 2);
		$s->becomes('SELECT concurrency_limit FROM settlement.workers', 1 + $round % 2, "reload $round");
		$s->trades("after$round", 100);
		last if !$s->settled_is("after$round-", 100, "reload $round: replies are noticed", 25);
	}
};

$s->at_rest;
$s->ledgers_are_equal;
done_testing();
