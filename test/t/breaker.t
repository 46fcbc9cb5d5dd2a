#!/usr/bin/perl
# The circuit breaker: outages cost no trade an attempt, however busy the
# market; probes; the return of the wallet; what operators do by hand.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Test::More;

# One charged attempt would be the end of a trade.
my $s = Settlement->start(conf => <<'CONF');
settlement.max_attempts = 1
settlement.request_timeout = '2s'
settlement.retry_initial_backoff = '10ms'
settlement.retry_max_backoff = '40ms'
settlement.breaker_failures = 5
settlement.breaker_initial_open = '20ms'
settlement.breaker_max_open = '80ms'
CONF

my %down = (action => 'status', status => 503);

sub opened { return $s->metric('breaker_opened') }

sub attempts_become
{
	my ($name, $n) = @_;
	# one that is dead makes no more
	return $s->becomes("SELECT count(*) >= $n OR EXISTS (SELECT FROM settlement.dlq) FROM settlement.attempts WHERE trade_id LIKE '$name%'", 't', "$n attempts fail");
}

sub nothing_is_charged
{
	is($s->sql('SELECT count(*) FROM settlement.dlq'), 0, 'nothing is dead-lettered');
	is($s->sql('SELECT coalesce(max(charged), 0) FROM (SELECT charged FROM settlement.deferred UNION ALL SELECT charged FROM settlement.queue) t'), 0,
		'nor charged');
}

# In flight when the wallet went, and others were answered since they were sent.
scenario the_beginning_of_an_outage => sub {
	$s->set(request_timeout => '60s');
	$s->faults({ match => { trade_id_prefix => 'onset' }, action => 'hang' });
	$s->trades('onset', 20);
	$s->becomes('SELECT in_flight FROM settlement.status', 20, 'twenty are in flight');
	$s->trades('answered', 30);
	$s->settled_is('answered', 30, 'others are answered');
	$s->wallet->crash;
	attempts_become('onset', 50);
	nothing_is_charged();
	$s->start_wallet;
	$s->settled_is('onset', 20, 'all settle at its end');
	nothing_is_charged();
	$s->reset('request_timeout');
};

# Answers before and after it, which is what a charge looks for.
scenario an_outage_at_high_load => sub {
	$s->trades('before', 100);
	$s->settled_is('before', 100);
	$s->faults(\%down);
	$s->trades('loaded', 1000);
	attempts_become('loaded', 140);	# more than were in flight: probes have failed, it is an outage
	nothing_is_charged();
	$s->faults;
	$s->settled_is('loaded', 1000, 'all settle at its end');
	nothing_is_charged();
};

# One trade falls due alone, and nobody else is there to tell whose fault it is.
scenario an_outage_with_one_trade_at_a_time => sub {
	$s->faults(\%down);
	for my $n (1 .. 3)
	{
		$s->trade("sparse-$n");
		attempts_become("sparse-$n", 8);
		nothing_is_charged();
	}
	$s->faults;
	$s->settled_is('sparse', 3, 'all settle at its end');
	nothing_is_charged();
};

scenario a_trade_that_fails_alone_is_charged => sub {
	$s->faults({ match => { trade_id => 'poison' }, %down });
	$s->trade('poison');
	my $n = 0;
	wait_for(sub { $s->trade('healthy-' . ++$n); $s->sql("SELECT count(*) FROM settlement.dlq WHERE trade_id = 'poison'") }, 'poison to die');
	$s->settled_is('healthy', $n, 'the others settle');
	$s->faults;
	$s->sql("SELECT settlement.redrive('poison', 'cured')");
	$s->status_is('poison', 'SETTLED');
};

# Between two other trades it opens the breaker by itself, and is the probe that fails.
scenario a_trade_that_fails_alone_when_little_happens => sub {
	my $n = 0;
	my $dead = "SELECT count(*) FROM settlement.dlq WHERE trade_id = 'slow-poison'";
	my $attempts = "SELECT count(*) FROM settlement.attempts WHERE trade_id = 'slow-poison'";
	$s->faults({ match => { trade_id => 'slow-poison' }, %down });
	$s->trade('slow-poison');
	wait_for(sub {
		my $enough = $s->sql($attempts) + 8;	# five to open it, and some probes
		wait_for(sub { $s->sql($dead) || $s->sql($attempts) >= $enough }, 'more attempts');
		$s->trade('rare-' . ++$n) if !$s->sql($dead);
		return $s->sql($dead);
	}, 'it to die');
	$s->settled_is('rare', $n, 'the others settle');
	$s->faults;
	$s->sql("SELECT settlement.redrive('slow-poison', 'cured')");
	$s->status_is('slow-poison', 'SETTLED');
};

# A set of poisonous trades opens the breaker too: not for ever.
scenario many_that_fail_while_few_are_answered => sub {
	$s->faults({ match => { trade_id_prefix => 'venom' }, %down });
	$s->trades('venom', 30);
	my $n = 0;
	wait_for(sub { $s->trade('few-' . ++$n); $s->sql("SELECT count(*) FROM settlement.dlq WHERE trade_id LIKE 'venom%'") == 30 }, 'all of them to die');
	$s->settled_is('few', $n, 'the others settle');
	$s->faults;
	$s->sql("SELECT settlement.redrive(trade_id, 'cured') FROM settlement.dlq");
	$s->settled_is('venom', 30);
};

scenario each_probe_is_another_trade => sub {
	my $requests = $s->requests;
	$s->faults(\%down);
	$s->sql("SELECT settlement.pause('all shall be there')");
	$s->trades('probed', 30);
	$s->sql('SELECT settlement.resume()');
	$s->becomes("SELECT count(*) >= 60 FROM settlement.attempts WHERE trade_id LIKE 'probed%'", 't', 'probes go on');
	is($s->sql(<<'SQL'), 0, 'no trade is asked twice in a row');
WITH tried AS (SELECT trade_id, at, row_number() OVER (PARTITION BY trade_id ORDER BY at) AS n
               FROM settlement.attempts WHERE trade_id LIKE 'probed%')
SELECT count(*) FROM (SELECT trade_id = lag(trade_id) OVER (ORDER BY at) AS again FROM tried
                      WHERE n > 1	-- the first ones leave together
                     ) probes WHERE again
SQL
	$s->faults;
	$s->settled_is('probed', 30);
};

# What waited does not meet it all at once.
scenario the_wallet_comes_back => sub {
	$s->set(request_timeout => '30s');
	$s->faults(\%down);
	my $opened = opened();
	$s->trades('waiting', 500);
	$s->becomes("SELECT value > $opened FROM settlement.metrics WHERE name = 'breaker_opened'", 't', 'the breaker opens');
	attempts_become('waiting', 140);	# more than were in flight: probes have failed, it is an outage
	$s->sql("SELECT settlement.breaker_open('to hold it')");
	$s->becomes('SELECT in_flight FROM settlement.status', 0, 'nothing is in flight');
	$s->wallet->ok_json(POST => '/admin/reset-stats', {});
	$s->faults({ match => { nth => 1 }, action => 'pass' }, { action => 'pass', delay_ms => 3000 });
	$s->sql('SELECT settlement.breaker_close()');
	wait_for(sub { $s->requests > 1 }, 'the second request');
	cmp_ok($s->wallet->stats->{requests}{most_in_flight}, '<', 64, 'few requests find it slow');
	$s->faults;
	$s->settled_is('waiting', 500);
	$s->reset('request_timeout');
};

scenario every_answer_may_ask_for_time => sub {
	$s->faults({ match => { count => 1 }, %down, retry_after => 1 });
	$s->trade('asked');
	$s->becomes('SELECT count(*) FROM settlement._database_state() WHERE limited_until > now()', 1, '503 with Retry-After holds all');
	my $requests = $s->requests;
	$s->trades('held', 5);
	is($s->requests - $requests, 0, 'nothing is sent meanwhile')
		if $s->sql('SELECT count(*) FROM settlement._database_state() WHERE limited_until > now()') == 1;
	$s->settled_is('held', 5);
	$s->status_is('asked', 'SETTLED');
};

# A look-up that is under way when the wallet asks for time.
scenario nothing_follows_a_look_up_meanwhile => sub {
	$s->set(request_timeout => '30s');
	$s->faults({ match => { path => 'lookup', count => 1 }, action => 'pass', delay_ms => 3000 },
		{ match => { trade_id => 'asks', count => 1 }, action => 'status', status => 429, retry_after => 6 });
	$s->sql("SET session_replication_role = replica; SELECT public.put('looked-up')");
	my $lookups = $s->lookups;
	$s->sql("SELECT settlement.enqueue_pending('trades', dry_run => false)");
	$s->becomes("SELECT count(*) FROM settlement.in_flight WHERE trade_id = 'looked-up' AND phase = 'waiting'", 1, 'the wallet is asked for a key');
	$s->trade('asks');
	$s->becomes("SELECT count(*) FROM settlement.attempts WHERE trade_id = 'looked-up' AND verb = 'lookup'", 1, 'what it does not know is not sent at once');
	$s->status_is($_, 'SETTLED') for 'asks', 'looked-up';
	is($s->lookups - $lookups, 2, 'but asked for again, and sent');
	$s->faults;
	$s->reset('request_timeout');
};

$s->at_rest;
$s->ledgers_are_equal;
done_testing();
