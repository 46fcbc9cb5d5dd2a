package Races;

# Two that want the same trade at once: a worker that is held in the middle of its
# transaction (Hold.pm) or has lost its claim, and an operator or another worker.
#
#   my ($s, $hold) = start_races(workers => 2, request_timeout => '60s');
#   lose_claim($s, $hold, 'trade', 'deferred');
#   ...
#   ends_settled($s, 'trade');

use strict;
use warnings;

use Hold;
use IPC::Run;
use Settlement;
use Test::More;

use Exporter qw(import);
our @EXPORT = qw(start_races book lose_claim lose_claim_again slot_of pid_of
	session_waits worker_waits start_sql paused ends_settled);

# One trade per worker at a time, so that a trade's worker is known and the others
# are free; nothing but the test's own faults makes anybody wait.
sub start_races
{
	my (%settings) = @_;
	my %all = (concurrency => 1, retry_initial_backoff => '20ms', poll_interval => '200ms', shutdown_timeout => '100ms',
		breaker_failures => 1000000, apply_timeout => '10min', %settings);
	my $s = Settlement->start(conf => join '', map { "settlement.$_ = '$all{$_}'\n" } sort keys %all);
	my $hold = Hold->new($s);
	$s->wait_for_workers($all{workers});
	return ($s, $hold);
}

# The wallet books the trade; its answer does not arrive (or later).
sub book
{
	my ($s, $name, $reply_delay_ms) = @_;
	$s->faults({ match => { trade_id => $name, times => 1 }, action => 'pass', reply_delay_ms => $reply_delay_ms // 600_000 });
	$s->trade($name, symbol => 'BTC/USDT');
	wait_for(sub { $s->effects_of($name) }, "$name to be booked");
}

# The wallet has booked the trade, its answer waits in a worker that has lost its
# claim; the trade is where a takeover and what followed have brought it: into
# the dlq as FAILED or UNKNOWN, into deferred, or into the queue again.
sub lose_claim
{
	my ($s, $hold, $name, $place) = @_;
	$hold->at('claims');
	$s->trade($name, symbol => 'BTC/USDT');
	wait_for(sub { $s->effects_of($name) }, "$name to be booked");
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$hold->reached('claims', 'the answer is there');
	lose_claim_again($s, $name, $place);
}

sub lose_claim_again
{
	my ($s, $name, $place) = @_;
	my $facts = $s->sql(<<'SQL');
SELECT string_agg(attname, ', ' ORDER BY attnum) FROM pg_attribute
WHERE attrelid = 'settlement.queue'::regclass AND attnum > 1 AND attname NOT IN ('maybe_executed', 'first_sent_at')
SQL
	my ($table, $columns, $values) = $place eq 'queue' ? ('queue', '', '')
		: $place eq 'deferred' ? ('deferred', 'retry_at, reason, ', "'infinity', 'retry', ")
		: ('dlq', 'status, class, ', "'$place', 'test', ");
	my $maybe = $place eq 'FAILED' ? 'false' : 'true';
	$s->sql(<<SQL);
BEGIN;
DELETE FROM settlement.claims;
WITH q AS (DELETE FROM settlement.queue WHERE trade_id = '$name' RETURNING *)
INSERT INTO settlement.$table (${columns}maybe_executed, first_sent_at, $facts)
SELECT ${values}$maybe, now(), $facts FROM q;
COMMIT;
SQL
}

# The worker that has the trade in flight.
sub slot_of
{
	my ($s, $name) = @_;
	return $s->sql("SELECT slot FROM settlement.in_flight WHERE trade_id = '$name'");
}

sub pid_of
{
	my ($s, $name) = @_;
	return $s->sql("SELECT w.pid FROM settlement.workers w JOIN settlement.in_flight f USING (slot) WHERE f.trade_id = '$name'");
}

# Somebody waits for what another transaction has locked.
sub session_waits
{
	my ($s, $who, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $s->becomes("SELECT count(*) > 0 FROM pg_stat_activity WHERE $who AND wait_event_type = 'Lock'", 't', $name);
}

sub worker_waits
{
	my ($s, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return session_waits($s, "backend_type = 'settlement worker'", $name);
}

# A statement in a session of its own that is not waited for.
sub start_sql
{
	my ($s, $sql) = @_;
	my $run = { out => '', err => '' };
	$run->{handle} = IPC::Run::start([ 'psql', '-XAtq', '-d', $s->node->connstr('postgres') . ' application_name=second', '-c', $sql ],
		'<', \undef, '>', \$run->{out}, '2>', \$run->{err});
	return $run;
}

# Nothing is claimed meanwhile: what is left in the queue shows.
sub paused
{
	my ($s, $code) = @_;
	$s->sql("SELECT settlement.pause('race')");
	$code->();
	$s->sql('SELECT settlement.resume()');
}

# Whoever came first, it is settled once and is left nowhere.
sub ends_settled
{
	my ($s, $name, $discrepancy) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$s->status_is($name, 'SETTLED');
	$s->at_rest(0, 'and is nowhere else');
	is($s->effects_of($name), 1, 'one effect');
	is($s->sql("SELECT coalesce(string_agg(kind, ','), '') FROM settlement.discrepancies WHERE trade_id = '$name'"),
		$discrepancy ? 'settled_after_resolve' : '', $discrepancy ? 'the operator was wrong' : 'nothing contradicts');
}

1;
