#!/usr/bin/perl
# Several trades in one request: what becomes of each is what the wallet says of
# it, and a trade that spoils its batch spoils no other one.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Test::More;

my $s = Settlement->start(conf => <<'CONF');
settlement.workers = 1
settlement.batch_size = 20
settlement.concurrency = 60
settlement.request_timeout = '1s'
settlement.retry_initial_backoff = '20ms'
settlement.retry_max_backoff = '100ms'
settlement.breaker_initial_open = '20ms'
settlement.breaker_max_open = '100ms'
settlement.attempt_history = all
CONF

sub stats { return $s->wallet->stats->{requests} }
sub attempts { my ($name) = @_; return $s->sql("SELECT string_agg(outcome || ' ' || coalesce(class, '-'), ', ' ORDER BY at) FROM settlement.attempts WHERE trade_id = '$name'") }
sub doctor { return $s->sql("SELECT count(*) FROM settlement.doctor() WHERE component = 'batch_size' AND status = 'warn'") }

# The trades of one statement are claimed together.
sub one_batch
{
	my ($name, $n) = @_;
	my $batches = stats()->{batch};
	$s->trades($name, $n);
	wait_for(sub { stats()->{batch} > $batches }, 'the batch to be sent');
}

# After a 429 trades start one by one, and may be alone in their requests, until the
# wallet has answered many well.
sub at_full_pace
{
	my ($name) = @_;
	$s->trades($name, 400);
	$s->settled_is($name, 400);
}

# Charged nothing, whatever the others did.
sub unharmed
{
	my ($where, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($s->sql("SELECT count(*) FROM settlement.dlq WHERE trade_id LIKE '$where'"), 0, "$what: none is dead-lettered");
}

scenario trades_travel_together => sub {
	my ($before, $sent) = (stats(), $s->metric('requests'));
	$s->trades('many', 600);
	$s->settled_is('many', 600);
	my $after = stats();
	is($after->{settle} - $before->{settle}, 600, 'each is sent once');
	cmp_ok($after->{batch} - $before->{batch}, '<=', 100, 'in ' . ($after->{batch} - $before->{batch}) . ' requests');
	cmp_ok($after->{batch} - $before->{batch}, '>=', 30, 'of at most settlement.batch_size');
	is($s->metric('requests') - $sent, 600, 'the metric counts trades');
	cmp_ok($after->{most_in_flight}, '<=', 60, 'so does settlement.concurrency');
	is($s->sql("SELECT count(*) FROM trades WHERE trade_id LIKE 'many%' AND settlement_attempts <> 1"), 0, 'one attempt each');
	$s->at_rest;
	$s->ledgers_are_equal;
};

scenario a_rejection_is_of_one_trade => sub {
	$s->sql("SELECT public.put('beside', 9), public.put('poor', buyer => 'poor', symbol => 'BTC/USDT', price => 50, quantity => 1), public.put('beside', 19, 10)");
	$s->dead_letter_is('poor', 'FAILED insufficient_balance INSUFFICIENT_BALANCE 1');
	$s->settled_is('beside', 19);
	is($s->sql("SELECT max(settlement_attempts) FROM trades WHERE trade_id LIKE 'beside%'"), 1, 'the others at the first attempt');
	$s->sql("SELECT settlement.dlq_purge(all_rows => true, dry_run => false, reason => 'test')");
};

# Each of these trades is in a batch with nineteen others; the reply hides what
# happened to it, or to all.
my @kinds = (
	[ leave_out => {}, 'unknown wallet_reply, settled -' ],
	[ leave_out => { apply => \0 }, 'unknown wallet_reply, settled -' ],
	[ twice => {}, 'unknown wallet_reply, settled -' ],
	[ wrong_key => {}, 'unknown wallet_reply, settled -' ],
	[ wrong_trade_id => {}, 'unknown wallet_reply, settled -' ],
	[ success_string => {}, 'unknown wallet_reply, settled -' ],
	[ no_settlement_id => {}, 'unknown wallet_reply, settled -' ],
	[ garbage => { apply => \1 }, 'unknown wallet_reply, settled -' ],
	[ html => { apply => \1 }, 'unknown wallet_reply, settled -' ],
	[ empty => { apply => \1 }, 'unknown wallet_reply, settled -' ],
	[ truncate => {}, 'unknown wallet_reply, settled -' ],
	[ drip => { interval_ms => 100 }, 'unknown network_timeout, settled -' ],
	[ oversize => { bytes => 3000000 }, 'unknown wallet_reply, settled -' ],
	[ close => {}, 'unknown network, settled -' ],
	[ close => { apply => \1 }, 'unknown network, settled -' ],
	[ reset => { apply => \1 }, 'unknown network, settled -' ],
	[ hang => { apply => \1, ms => 4000 }, 'unknown network_timeout, settled -' ],
	[ status => { status => 500, apply => \1 }, 'unknown wallet_error, settled -' ],
	[ status => { status => 202, apply => \1 }, 'pending wallet_pending, settled -' ],
	[ status => { status => 409 }, 'pending in_progress, settled -' ],
	[ status => { status => 302 }, 'unknown wallet_reply, settled -' ],
	[ status => { status => 401 }, 'unknown wallet_reply, settled -' ],
	[ status => { status => 429 }, 'not_executed rate_limited, settled -' ],
);

scenario each_kind_settles_once => sub {
	for my $i (0 .. $#kinds)
	{
		my ($action, $more, $expected) = @{ $kinds[$i] };
		my $what = join ' ', "kind $i:", $action, map { "$_=" . (ref $more->{$_} ? ${ $more->{$_} } : $more->{$_}) } sort keys %$more;
		$s->faults({ match => { trade_id => "kind$i-7", times => 1 }, action => $action, %$more });
		one_batch("kind$i", 20);
		$s->settled_is("kind$i-", 20, $what);
		is(attempts("kind$i-7"), $expected, "$what: as it should be");
	}
	$s->faults;
	at_full_pace('pace');
	unharmed('kind%', 'whatever the wallet did');
	is($s->sql("SELECT count(*) FROM settlement.attempts WHERE trade_id LIKE 'kind%' AND outcome = 'settled' GROUP BY trade_id HAVING count(*) > 1"), '', 'each settled once');
	$s->at_rest;
	$s->ledgers_are_equal;
};

# The wallet refuses the whole for the sake of one: found when each goes alone.
scenario one_that_spoils_its_batch => sub {
	for my $status (400, 413, 422)
	{
		$s->set(log_settlements => $status == 413 ? 'none' : 'failures');	# forgets the last refusal
		$s->wait_for_workers(1);
		$s->faults({ match => { path => 'batch', count => 1 }, action => 'status', status => $status, body => { error => 'x', message => 'm', code => 'INVALID_REQUEST' } });
		my $before = stats();
		$s->sql("SELECT public.put('spoilt$status', 9), public.put('spoils$status', buyer => 'who-is-that'), public.put('spoilt$status', 19, 10)");
		$s->dead_letter_is("spoils$status", 'FAILED user_not_found USER_NOT_FOUND 2', "$status: the one is found");
		$s->settled_is("spoilt$status", 19, "$status: the others settle");
		unharmed("spoilt$status%", $status);
		is(stats()->{batch} - $before->{batch}, 1, "$status: not in a batch again");
		is(attempts("spoilt$status-3"), 'unknown wallet_batch, settled -', "$status: alone");
		is($s->sql("SELECT max(charged) FROM settlement.dlq WHERE trade_id = 'spoils$status'"), 0, 'and nothing is charged');
	}
	is(doctor(), 1, 'doctor() says that batches are refused');
	$s->reset('log_settlements');
	$s->sql("SELECT settlement.dlq_purge(all_rows => true, dry_run => false, reason => 'test')");
	$s->faults;
	one_batch('unspoilt', 5);
	$s->settled_is('unspoilt', 5);
	is(doctor(), 0, 'and when the wallet has answered one, that they are not');
	$s->ledgers_are_equal;
};

# It hangs whatever it is in.
scenario one_that_hangs => sub {
	$s->faults({ match => { trade_id => 'hangs' }, action => 'hang', ms => 60000 });
	$s->sql("SELECT public.put('hung', 9), public.put('hangs'), public.put('hung', 19, 10)");
	$s->settled_is('hung', 19, 'the others settle, each alone');
	$s->trades('alive', 1);
	$s->settled_is('alive', 1);
	wait_for(sub { $s->trades('alive' . rand, 1); $s->sql("SELECT count(*) FROM settlement.dlq WHERE trade_id = 'hangs'") }, 'it to be given up');
	$s->dead_letter_is('hangs', 'UNKNOWN network_timeout - 4', 'it is charged three attempts, the one in the batch not');
	unharmed('hung%', 'the others');
	$s->faults;
	$s->sql("SELECT settlement.redrive('hangs', 'test')");
	$s->status_is('hangs', 'SETTLED');
	$s->at_rest;
	$s->ledgers_are_equal;
};

scenario a_wallet_without_batches => sub {
	my $log = -s $s->node->logfile;
	my $opened = $s->metric('breaker_opened');
	$s->faults({ match => { path => 'batch' }, action => 'html', status => 404 });
	my $batch = stats()->{batch};
	$s->trades('single', 300);
	$s->settled_is('single', 300);
	cmp_ok(stats()->{batch} - $batch, '<=', 3, 'what was under way is refused');
	is($s->metric('breaker_opened'), $opened, 'the breaker stays closed');
	is($s->sql("SELECT count(*) FROM settlement.attempts WHERE trade_id LIKE 'single%' AND outcome NOT IN ('settled', 'not_executed')"), 0, 'nothing is unknown');
	is(doctor(), 1, 'doctor() tells');
	like($s->sql("SELECT hint FROM settlement.doctor() WHERE component = 'batch_size'"), qr/has no POST .*settle-batch/, 'and what to do');
	is(() = PostgreSQL::Test::Utils::slurp_file($s->node->logfile, $log) =~ /sent singly for a minute/g, 1, 'the log too, once');
	$s->faults;
	$s->set(log_settlements => 'none');	# a reload: it may be another wallet
	$s->becomes("SELECT batch_refused_at IS NULL FROM settlement._database_state()", 't', 'after a reload batches are tried again');
	one_batch('again', 5);
	$s->settled_is('again', 5);
	is(doctor(), 0, 'all is well');
	$s->reset('log_settlements');
};

scenario too_many_requests => sub {
	$s->faults({ match => { path => 'batch', count => 2 }, action => 'status', status => 429, retry_after => 1 });
	$s->trades('slower', 40);
	$s->settled_is('slower', 40);
	is($s->sql("SELECT count(DISTINCT class) || ' ' || max(class) FROM settlement.attempts WHERE trade_id LIKE 'slower%' AND outcome <> 'settled'"), '1 rate_limited', 'none is charged, or unknown');
	$s->faults;
	at_full_pace('fast again');
};

scenario replies_that_are_lost => sub {
	$s->faults({ match => { path => 'batch', every => 3 }, action => 'close', apply => \1 }, { match => { path => 'batch', every => 4 }, action => 'close' });
	$s->trades('lost', 400);
	$s->settled_is('lost', 400);
	$s->faults;
	$s->at_rest;
	$s->ledgers_are_equal;
};

# The wallet has booked the batch, the worker dies, and so does the server.
scenario crash_with_batches_under_way => sub {
	for my $round (1 .. 3)
	{
		my $effects = $s->effects;
		$s->faults({ match => { path => 'batch' }, action => 'pass', reply_delay_ms => 900 });
		$s->trades("crash$round", 60);
		wait_for(sub { $s->effects >= $effects + 20 }, 'the wallet to book a batch');
		my ($killed) = $s->worker_pids;
		kill KILL => $killed;
		$s->becomes("SELECT count(*) > 0 FROM settlement.workers WHERE state = 'running' AND pid <> $killed", 't', 'another worker runs');
		$s->faults;
		$s->settled_is("crash$round", 60);
		is($s->effects - $effects, 60, 'one effect of each');
	}
	is($s->sql('SELECT count(*) FROM settlement.dlq'), 0, 'none is blamed');
	$s->at_rest;
	$s->ledgers_are_equal;
};

scenario a_worker_that_leaves => sub {
	$s->set(workers => 2, shutdown_timeout => '0');
	$s->wait_for_workers(2);
	$s->faults({ match => { path => 'batch' }, action => 'pass', reply_delay_ms => 500 });
	my $effects = $s->effects;
	$s->trades('left', 120);
	wait_for(sub { $s->effects >= $effects + 20 }, 'the wallet to book a batch');
	$s->sql('SELECT settlement.restart_worker(slot) FROM settlement.workers LIMIT 1');
	$s->settled_is('left', 120);
	$s->faults;
	is($s->effects - $effects, 120, 'one effect of each');
	$s->at_rest;
	$s->ledgers_are_equal;
};

done_testing();
