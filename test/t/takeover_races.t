#!/usr/bin/perl
# Workers that finish and workers that take over, held in the middle of their
# transactions, while another worker or an operator acts on the same trades; and
# transactions of workers that fail in the middle of that.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Races;
use Settlement;
use Test::More;

my ($s, $hold) = start_races(workers => 3, request_timeout => '4s');

# What each act of an operator does to a trade that is a worker's.
sub operators_are_refused
{
	my ($trade, $where) = @_;
	my ($status, $out, $err) = $s->try_sql("SELECT settlement.redrive('$trade', 'race')");
	like($err, qr/is not in settlement.dlq/, "$where: it cannot be redriven");
	($status, $out, $err) = $s->try_sql("SELECT settlement.resolve('$trade', 'FAILED', 'ticket', 'race')");
	like($err, qr/is not in settlement.dlq or|is queued or in flight/, 'nor resolved');
	is($s->sql("SELECT count(*) FROM settlement.dlq_purge('$trade', dry_run => false, reason => 'race')"), 0, 'nor purged');
	($status, $out, $err) = $s->try_sql("SELECT settlement.lookup('$trade')");
	like($err, qr/is not in settlement/, 'nor looked up');
}

# A worker records a rejection, and an operator wants the trade before it is done;
# once with the worker's transaction failing before that.
scenario operators_while_a_worker_finishes => sub {
	for my $act ('redrive', 'resolve', 'purge')
	{
		my $trade = "finish-$act";
		$hold->at('dlq');
		$s->trade($trade, buyer => "no-$act", symbol => 'BTC/USDT');
		$hold->reached('dlq');
		operators_are_refused($trade, 'while its outcome is written');
		my $aborts = $s->metric('turn_aborts');
		$hold->raise_at('dlq');
		$s->becomes("SELECT value > $aborts FROM settlement.metrics WHERE name = 'turn_aborts'", 't', 'the transaction of the worker fails');
		operators_are_refused($trade, 'after that');
		$hold->release('dlq');
		$s->dead_letter_is($trade, 'FAILED user_not_found USER_NOT_FOUND 1');
		$s->wallet->fund("no-$act", 'USDT', '1000');
		$s->sql($act eq 'redrive' ? "SELECT settlement.redrive('$trade', 'paid in')"
			: $act eq 'resolve' ? "SELECT settlement.resolve('$trade', 'FAILED', NULL, 'no')"
			: "SELECT settlement.dlq_purge('$trade', dry_run => false, reason => 'no')");
		$s->status_is($trade, $act eq 'redrive' ? 'SETTLED' : 'FAILED');
		is($s->effects_of($trade), $act eq 'redrive' ? 1 : 0, 'and the wallet did so');
	}
	$s->at_rest;
	is($s->sql('SELECT count(*) FROM settlement.discrepancies'), 0, 'nothing contradicts');
};

# The wallet has booked the trade, and its worker stops before it reads the reply;
# who takes over is held.
sub freeze
{
	my ($trade) = @_;
	$hold->at('deferred');
	book($s, $trade, 3000);
	my $frozen = pid_of($s, $trade);
	kill STOP => $frozen;
	return $frozen;
}

# One worker is frozen with a reply to read, one is in the middle of recording
# its reply for so long that it counts as frozen.  The third takes over what is
# the first one's and leaves the second alone.
scenario finish_and_takeover => sub {
	$hold->at('trades');
	$s->trade('slow', symbol => 'BTC/USDT');
	$hold->reached('trades', 'one worker writes its outcome');
	my $frozen = freeze('frozen');
	$hold->reached('deferred', 'another one takes over');
	operators_are_refused('frozen', 'while it is taken over');
	kill CONT => $frozen;
	$s->becomes("SELECT wait_event_type FROM pg_stat_activity WHERE pid = $frozen", 'Lock', 'the one that wakes up waits for what becomes of its claim');
	$s->sql("SELECT settlement.pause('race')");
	$hold->release('deferred');
	$s->settled_is('frozen', 1, 'what it knew is recorded');
	$s->becomes("SELECT count(*) FROM settlement.deferred", 0, 'and the trade that was taken over is not sent again');
	$hold->release('trades');
	$s->settled_is('slow', 1);
	is($s->sql("SELECT settlement_attempts FROM trades WHERE trade_id = 'slow'"), 1, 'which nobody has taken over');
	$s->sql('SELECT settlement.resume()');
	$s->at_rest;
	is($s->effects_of($_), 1, "one effect of $_") for 'slow', 'frozen';
	$s->faults;
};

# The takeover fails; the worker that wakes up has its claim still.
scenario takeover_fails => sub {
	$s->wait_for_workers(3);
	my $late = $s->metric('late_settled');
	my $frozen = freeze('kept');
	$hold->reached('deferred', 'another one takes over');
	kill CONT => $frozen;
	$s->becomes("SELECT wait_event_type FROM pg_stat_activity WHERE pid = $frozen", 'Lock', 'the one that wakes up waits');
	$hold->raise_at('deferred');
	$s->settled_is('kept', 1);
	$hold->release('deferred');
	is($s->metric('late_settled'), $late, 'in its own claim');
	is($s->sql("SELECT settlement_attempts FROM trades WHERE trade_id = 'kept'"), 1, 'by one attempt');
	$s->at_rest;
	$s->faults;
};

# Of a claim of several trades some are finished, some are not: the worker goes,
# and only the latter are taken over.
scenario a_claim_that_is_half_finished => sub {
	$s->set(request_timeout => '60s', concurrency => 20, shutdown_timeout => '100ms', workers => 1);
	$s->wait_for_workers(1);
	my $requests = $s->requests;
	$s->faults(map { { match => { trade_id => "half-$_", times => 1 }, action => 'pass', reply_delay_ms => 600_000 } } 6 .. 10);
	$s->trades('half', 10, symbol => 'BTC/USDT');
	wait_for(sub { $s->requests - $requests >= 10 }, 'all to be sent');
	$s->settled_is('half', 5, 'half of it is finished');
	is($s->sql('SELECT count(*), max(cardinality(ids)) FROM settlement.claims'), '1|10', 'the claim stands');
	$s->set(workers => 2);
	$s->wait_for_workers(2);
	$s->sql("SELECT settlement.restart_worker(slot) FROM settlement.in_flight LIMIT 1");
	$s->settled_is('half', 10, 'the rest is taken over');
	is($s->sql("SELECT string_agg(DISTINCT settlement_attempts::text, ' ') FROM trades WHERE trade_id ~ '^half-[1-5]\$'"), '1', 'those that were finished are not sent again');
	is($s->requests - $requests, 15, 'only the others');
	$s->at_rest;
	$s->faults;
};

# The reply hangs, and its worker is told to leave: what it has is taken over.
sub lose_worker
{
	my ($trade) = @_;
	$s->sql('SELECT settlement.restart_worker(' . slot_of($s, $trade) . ')');
}

# The trade is taken over and put aside, since its symbol is paused.
sub taken_over
{
	my ($trade) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $s->becomes("SELECT count(*) FROM settlement.deferred WHERE trade_id = '$trade' AND maybe_executed", 1, "$trade is taken over");
}

# An operator wants a trade that is being taken over: before that is committed,
# when it has failed, and when it is done.
scenario operators_while_a_worker_takes_over => sub {
	for my $act ('wait', 'resolve')
	{
		my $trade = "over-$act";
		book($s, $trade);
		$hold->at('deferred');
		lose_worker($trade);
		$hold->reached('deferred', 'another worker takes over');
		operators_are_refused($trade, 'while it is taken over');
		my $log = -s $s->node->logfile;
		$hold->raise_at('deferred');
		wait_for(sub { PostgreSQL::Test::Utils::slurp_file($s->node->logfile, $log) =~ /failed by the test/ }, 'the takeover to fail');
		operators_are_refused($trade, 'after that');
		$s->sql("SELECT settlement.pause('race', 'BTC/USDT')");
		$hold->release('deferred');
		taken_over($trade);
		my ($status, $out, $err) = $s->try_sql("SELECT settlement.redrive('$trade', 'race')");
		like($err, qr/is not in settlement.dlq.*HINT:.*settlement.deferred/s, 'then it waits for its own retry, and cannot be redriven');
		is($s->sql("SELECT count(*) FROM settlement.dlq_purge('$trade', dry_run => false, reason => 'race')"), 0, 'nor purged');
		($status, $out, $err) = $s->try_sql("SELECT settlement.resolve('$trade', 'FAILED', NULL, 'race')");
		like($err, qr/reference is required/, 'nor resolved by somebody who has not looked');
		my $requests = $s->requests;
		if ($act eq 'resolve')
		{
			my ($id) = map { $_->{settlement_id} } $s->wallet->ledger("?trade_id=$trade");
			$s->resolve($trade, 'SETTLED', $id, 'found in the books');
		}
		$s->sql("SELECT settlement.resume('BTC/USDT')");
		ends_settled($s, $trade);
		is($s->requests - $requests, $act eq 'resolve' ? 0 : 1, $act eq 'resolve' ? 'nothing is sent again' : 'it is sent again');
		$s->wait_for_workers(2);
	}
	$s->faults;
};

# Somebody takes over, and has not committed: nobody else may, and the trade is
# nobody's to send.
scenario a_takeover_is_left_alone => sub {
	my $recovered = $s->metric('recovered');
	book($s, 'once');
	my $requests = $s->requests;
	$hold->at('deferred');
	lose_worker('once');
	$hold->reached('deferred', 'one worker takes over');
	for my $i (1 .. 5)
	{
		$s->trade("other-$i", symbol => 'ETH/USDT');
		$s->status_is("other-$i", 'SETTLED', 'another one is at work');
	}
	is($s->requests - $requests, 5, 'and does not send what is taken over');
	$hold->release('deferred');
	ends_settled($s, 'once');
	is($s->metric('recovered') - $recovered, 1, 'it is taken over once');
	is($s->requests - $requests, 6, 'and sent again once');
	$s->wait_for_workers(2);
	$s->faults;
};

# A trade that was enqueued twice is dead by one of its rows, and in flight by the
# other, which the wallet has booked.
sub dies_beside_its_flight
{
	my ($trade) = @_;
	my $facts = $s->sql("SELECT string_agg(attname, ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'settlement.queue'::regclass AND attnum > 1");
	$s->sql("INSERT INTO settlement.dlq (status, class, $facts) SELECT 'FAILED', 'queue_full', $facts FROM settlement.queue WHERE trade_id = '$trade'");
}

# Operators act on the dead row first, and end their transaction last.
for my $act ('redrive', 'purge')
{
	for my $end ('COMMIT', 'ROLLBACK')
	{
		for my $who ('finish', 'takeover')
		{
			scenario "${who}_while_${act}_ends_with_$end" => sub {
				my $trade = "$who-$act-$end";
				$hold->at('claims') if $who eq 'finish';
				book($s, $trade, $who eq 'finish' ? 0 : undef);
				$hold->reached('claims', 'the answer is there') if $who eq 'finish';
				dies_beside_its_flight($trade);
				my ($status, $out, $err) = $s->try_sql("SELECT settlement.resolve('$trade', 'FAILED', 'ticket', 'race')");
				like($err, qr/is queued or in flight/, 'to resolve it is refused at once');
				$s->sql("SELECT settlement.pause('race', 'BTC/USDT')");
				my $operator = $s->session;
				$operator->query_safe('BEGIN; ' . ($act eq 'redrive' ? "SELECT settlement.redrive('$trade', 'race')"
					: "SELECT settlement.dlq_purge('$trade', dry_run => false, reason => 'race')"));
				if ($who eq 'finish')
				{
					$hold->release('claims');
					$s->becomes('SELECT count(*) FROM settlement.claims', 0, 'the worker records its answer');
				}
				else
				{
					lose_worker($trade);
					taken_over($trade);
				}
				$operator->query_safe($end);
				$operator->quit;
				$s->sql("SELECT settlement.resume('BTC/USDT')");
				$s->status_is($trade, 'SETTLED');
				$s->at_rest($end eq 'ROLLBACK' ? 1 : 0, $end eq 'ROLLBACK' ? 'the dead row is left' : undef);
				$s->sql("SELECT settlement.dlq_purge('$trade', dry_run => false, reason => 'it is settled')");
				ends_settled($s, $trade);
				$s->wait_for_workers(2);
				$s->faults;
			};
		}
	}
}

# Both settled and rejected in one claim, while its symbol is paused.  What would
# be tried again is not recorded before that, whichever reply comes first.
scenario paused_while_in_flight => sub {
	$hold->at($_) for 'claims', 'deferred';
	my $requests = $s->requests;
	$s->faults({ match => { trade_id => 'fly-2', times => 1 }, action => 'status', status => 503 });
	$s->engine("BEGIN; SELECT put('fly', 2, symbol => 'ETH/USDT'), put('fly-no', symbol => 'ETH/USDT', buyer => 'nobody'); COMMIT");
	wait_for(sub { $s->requests - $requests >= 3 }, 'all to be sent');
	$s->sql("SELECT settlement.pause('race', 'ETH/USDT')");
	$s->trade('fly-3', symbol => 'ETH/USDT');
	$hold->release($_) for 'claims', 'deferred';
	$s->status_is('fly-1', 'SETTLED', 'what the wallet settled is settled');
	$s->status_is('fly-no', 'FAILED', 'what it rejected is dead');
	$s->becomes("SELECT string_agg(trade_id || ' ' || attempts, ', ' ORDER BY trade_id) FROM settlement.deferred WHERE reason = 'paused' AND retry_at = 'infinity'", 'fly-2 1, fly-3 0',
		'what would be tried again, or is new, is put aside');
	is($s->requests - $requests, 3, 'nothing is sent');
	$s->sql("SELECT settlement.resume('ETH/USDT')");
	$s->settled_is('fly', 3, 'they go on');
	$s->at_rest(1);
	$s->sql("SELECT settlement.dlq_purge('fly-no', dry_run => false, reason => 'tidy')");
};

# What was put aside since its snapshot goes on, too.
scenario resume_with_an_old_snapshot => sub {
	$s->sql("SELECT settlement.pause('race', 'ETH/USDT')");
	my $operator = $s->session;
	$operator->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
	$s->trade('aside', symbol => 'ETH/USDT');
	$s->becomes("SELECT count(*) FROM settlement.deferred WHERE reason = 'paused'", 1, 'put aside');
	$operator->query_safe("SELECT settlement.resume('ETH/USDT'); COMMIT");
	$operator->quit;
	$s->settled_is('aside', 1);
};

# Longer than the workers' lock_timeout: nothing is lost, charged or sent twice.
scenario the_queue_is_locked => sub {
	$s->set(concurrency => 64);
	my ($requests, $effects) = ($s->requests, $s->effects);
	$s->faults({ match => { trade_id_prefix => 'before' }, action => 'pass', reply_delay_ms => 1000 });
	$s->trades('before', 10);
	wait_for(sub { $s->effects - $effects >= 10 }, 'all to be booked');
	my $locker = $s->session;
	my $log = -s $s->node->logfile;
	$locker->query_safe('BEGIN; LOCK TABLE settlement.queue IN ACCESS EXCLUSIVE MODE');
	$s->sql('SELECT settlement.rescan()');
	wait_for(sub { my $n = () = PostgreSQL::Test::Utils::slurp_file($s->node->logfile, $log) =~ /due to lock timeout/g; $n >= 3 },
		'transactions of workers to fail');
	$locker->query_safe('COMMIT');
	$locker->quit;
	$s->trades('after', 10);
	$s->settled_is($_, 10) for 'before', 'after';
	is($s->requests - $requests, 20, 'one request for each');
	is($s->sql("SELECT string_agg(DISTINCT settlement_attempts::text, ' ') FROM trades WHERE trade_id ~ '^(before|after)'"), '1', 'one attempt of each');
	$s->at_rest;
};

$s->ledgers_are_equal;

done_testing();
