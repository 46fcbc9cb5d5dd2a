#!/usr/bin/perl
# Somebody sets the clock, by a day, forward and back.  Times that matter to the
# wallet (how long it remembers a key) err on the side of asking it; everything
# else goes on as if nothing had happened.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use PostgreSQL::Test::Utils;
use Hold;
use LostReply;
use Races qw(lose_claim);
use Settlement;
use Test::More;

my $s = Settlement->start(conf => <<'CONF');
settlement.request_timeout = '4s'
settlement.retry_initial_backoff = '100ms'
settlement.retry_max_backoff = '200ms'
settlement.breaker_initial_open = '100ms'
settlement.breaker_max_open = '200ms'
settlement.poll_interval = '200ms'
settlement.idempotency_window = '36h'
CONF

# The server alone has a clock that can be set; the monotonic one cannot, here
# as elsewhere.
my $file = $s->node->basedir . '/clock';
my $library = $s->node->basedir . '/set_clock.so';
my $offset = 0;
system_or_bail($ENV{CC} // 'cc', '-shared', '-fPIC', '-O2', '-o', $library, "$FindBin::Bin/../lib/set_clock.c");
append_to_file($file, pack 'q', 0);

# By how many seconds it is wrong from now on.
sub clock
{
	($offset) = @_;
	open my $out, '+<:raw', $file or die $!;
	syswrite $out, pack 'q', $offset;
	close $out;
}

my $day = 24 * 3600;

sub restart
{
	my ($time) = @_;
	$s->node->stop;
	clock($time);
	local @ENV{qw(LD_PRELOAD SET_CLOCK_FILE)} = ($library, $file);
	$s->node->start;
	return $s->wait_for_workers(2);
}
restart(0);

sub clock_is_seen
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $s->becomes("SELECT abs(extract(epoch FROM clock_timestamp()) - $offset - " . time . ") < 1000", 't', 'the clock is set');
}

# Deferred for long by the time of day, and then that time is a day away.
scenario waiting_trades_do_not_wait_for_a_former_clock => sub {
	$s->set(retry_initial_backoff => '70s', retry_max_backoff => '70s');
	$s->faults({ match => { trade_id => 'waits', times => 1 }, action => 'status', status => 503 });
	$s->trade('waits');
	$s->becomes("SELECT count(*) FROM settlement.deferred WHERE trade_id = 'waits'", 1, 'it waits for its retry');
	clock(-$day);
	clock_is_seen();
	$s->status_is('waits', 'SETTLED', 'it settles at once', 40);
	is($s->effects_of('waits'), 1, 'one effect');
	$s->reset('retry_initial_backoff', 'retry_max_backoff');
	clock(0);
};

scenario outcomes_do_not_wait_for_a_former_clock => sub {
	$s->faults;
	$s->sql("SELECT settlement.pause('until its row is locked')");
	$s->trade('unwritten');
	my $lock = $s->session;
	$lock->query_safe("BEGIN; SELECT FROM trades WHERE trade_id = 'unwritten' FOR UPDATE");
	$s->sql('SELECT settlement.resume()');
	$s->becomes("SELECT count(*) FROM settlement.unapplied WHERE trade_id = 'unwritten' AND failures > 2", 1, 'its outcome waits for the row');
	clock(-$day);
	clock_is_seen();
	$lock->query_safe('COMMIT');
	$lock->quit;
	$s->status_is('unwritten', 'SETTLED', 'it is written all the same', 40);
	clock(0);
};

# What a worker does by the clock goes on: sweeps, wake-ups, the breaker.
scenario nothing_stops_when_it_is_set_back => sub {
	$s->faults;
	$s->sql("BEGIN; SELECT public.put('prepared'); PREPARE TRANSACTION 'p'");
	$s->trades('before', 5);
	$s->settled_is('before', 5);
	$s->stop_wallet;
	$s->trades('down', 5);
	$s->becomes("SELECT value > 0 FROM settlement.metrics WHERE name = 'breaker_state'", 't', 'the breaker opens');
	clock(-$day);
	clock_is_seen();
	$s->sql("COMMIT PREPARED 'p'");
	$s->start_wallet;
	$s->settled_is('down', 5, 'what waited for the breaker settles', 40);
	$s->status_is('prepared', 'SETTLED', 'what committed late settles', 40);
	clock(0);
	clock_is_seen();
	$s->trades('after', 5);
	$s->settled_is('after', 5);
};

# A beat of yesterday does not mean that its worker is gone.
scenario no_live_worker_is_taken_over => sub {
	my $recovered = $s->metric('recovered');
	for my $to ([ forward => $day ], [ back => 0 ])
	{
		my ($name, $time) = @$to;
		$s->faults({ match => { trade_id_prefix => $name }, action => 'pass', reply_delay_ms => 1200 });
		my $requests = $s->requests;
		$s->trades($name, 20);
		wait_for(sub { $s->requests == $requests + 20 }, 'all to be in flight');
		clock($time);
		$s->settled_is($name, 20);
		is($s->requests - $requests, 20, 'nothing was sent twice');
	}
	is($s->metric('recovered'), $recovered, 'nothing was taken over');
};

# Others were answered since it was sent, so its time runs: but not for a day.
scenario a_day_is_no_pending_timeout => sub {
	$s->set(retry_initial_backoff => '70s', retry_max_backoff => '70s');
	$s->faults({ match => { trade_id => 'pending' }, action => 'status', status => 202 });
	$s->trade('pending');
	my $attempts = "SELECT count(*) FROM settlement.attempts WHERE trade_id = 'pending'";
	$s->becomes($attempts, 1, 'it is not finished');
	$s->trades('others', 3);
	$s->settled_is('others', 3);
	clock($day);
	$s->becomes($attempts, 2, 'it is asked for again, a day later by the clock');
	is($s->sql('SELECT count(*) FROM settlement.dlq'), 0, 'it has not waited for a day');
	$s->faults;
	$s->sql("SELECT settlement.lookup('pending')");
	$s->status_is('pending', 'SETTLED');
	clock(0);
	clock_is_seen();
};

# Two days ahead the wallet may have forgotten: it is asked.
scenario forward_past_the_window => sub {
	restart(0);
	$s->set(retry_initial_backoff => '70s', retry_max_backoff => '70s');
	my $requests = $s->requests;
	lose_reply($s, 'booked');
	clock(2 * $day);
	$s->status_is('booked', 'SETTLED', 'the wallet knows of it');
	is($s->requests - $requests, 1, 'nothing was sent again');
	clock(0);
	clock_is_seen();
};

# The wallet has booked it and forgotten the key: to send it again would pay twice.
sub is_asked_for
{
	my ($trade, $requests) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	waits_for_the_books($s, $trade, 'unknown_key', 40);
	is($s->requests, $requests, 'nothing is sent again');
}

# The window is as long as it was: 40 hours have passed, though the clock says 10.
scenario back_does_not_make_the_window_longer => sub {
	restart(0);
	lose_reply($s, 'stretched', forget => 1, symbol => 'SOL/USDT');
	$s->sql("SELECT settlement.pause('hold it', 'SOL/USDT')");
	my $requests = $s->requests;
	clock(40 * 3600);
	$s->becomes("SELECT count(*) FROM settlement.deferred WHERE trade_id = 'stretched' AND reason = 'paused'", 1, 'it waits for 40 hours');
	clock(10 * 3600);
	clock_is_seen();
	$s->sql("SELECT settlement.resume('SOL/USDT')");
	is_asked_for('stretched', $requests);
	resolve_from_the_books($s, 'stretched');
};

# First sent in what is now the future, by a clock that nobody remembers.
scenario back_before_the_first_send => sub {
	restart(0);
	lose_reply($s, 'ahead', forget => 1);
	my $requests = $s->requests;
	restart(-2 * $day);
	is_asked_for('ahead', $requests);
	restart(0);
	my $lookups = $s->lookups;
	$s->sql("SELECT settlement.lookup('ahead')");
	wait_for(sub { $s->lookups > $lookups }, 'it to be asked for again');
	is_asked_for('ahead', $requests);
	resolve_from_the_books($s, 'ahead');
	$s->reset('retry_initial_backoff', 'retry_max_backoff');
};

# Claims that wait for a standby wait by a clock that nobody sets back.
scenario held_since_a_moment_and_not_since_tomorrow => sub {
	clock($day);
	clock_is_seen();
	$s->trade('tomorrow');
	$s->status_is('tomorrow', 'SETTLED');
	clock(0);
	clock_is_seen();
	$s->set(send_after => 'standby');
	$s->becomes("SELECT count(*) FROM settlement.doctor() WHERE detail ~ 'there is no synchronous standby'", 1, 'there is no standby');
	$s->trades('held', 3);
	$s->becomes('SELECT state FROM settlement.status', 'waiting for standby', 'they wait');
	$s->reset('send_after');
	$s->settled_is('held', 3);
};

# An operator gave it up after it was sent, though by the clock that was before.
scenario an_act_after_the_clock_was_set_back => sub {
	my $hold = Hold->new($s);
	lose_claim($s, $hold, 'given-up', 'FAILED');
	$s->sql("SELECT settlement.resolve('given-up', 'FAILED', 'ticket', 'given up')");
	$hold->release('claims');
	$s->status_is('given-up', 'SETTLED');
	$s->becomes("SELECT kind FROM settlement.discrepancies WHERE trade_id = 'given-up'", 'settled_after_resolve', 'the operator was wrong');
};

$s->at_rest;
$s->ledgers_are_equal;
done_testing();
