#!/usr/bin/perl
# A worker has lost its claim and then learns that the wallet settled the trade,
# while somebody else is moving that trade just now: an operator who redrives,
# resolves or purges it, another worker that finishes it or takes it over.  In
# both orders, and with the first one rolling back: SETTLED wins, the trade is
# left nowhere, the wallet has booked it once.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Hold;
use IPC::Run;
use Test::More;

my $s = Settlement->start(conf => <<'CONF');
settlement.workers = 2
settlement.concurrency = 1
settlement.request_timeout = '60s'
settlement.retry_initial_backoff = '20ms'
settlement.poll_interval = '200ms'
settlement.shutdown_timeout = '100ms'
settlement.breaker_failures = 1000000
settlement.apply_timeout = '60s'
CONF
my $hold = Hold->new($s);
$s->wait_for_workers(2);

my $facts = $s->sql(<<'SQL');
SELECT string_agg(attname, ', ' ORDER BY attnum) FROM pg_attribute
WHERE attrelid = 'settlement.queue'::regclass AND attnum > 1 AND attname NOT IN ('maybe_executed', 'first_sent_at')
SQL

# The wallet has booked the trade, its answer waits in a worker that has lost its
# claim; the trade is where a takeover and what followed have brought it: into
# the dlq as FAILED or UNKNOWN, into deferred, or into the queue again.
sub lose_claim
{
	my ($name, $place) = @_;
	my ($table, $columns, $values) = $place eq 'queue' ? ('queue', '', '')
		: $place eq 'deferred' ? ('deferred', 'retry_at, reason, ', "'infinity', 'retry', ")
		: ('dlq', 'status, class, ', "'$place', 'test', ");
	$hold->at('claims');
	$s->trade($name, symbol => 'BTC/USDT');
	wait_for(sub { $s->effects_of($name) }, "$name to be booked");
	$hold->reached('claims', 'the answer is there');
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

# A statement in a session of its own that is not waited for.
sub start_sql
{
	my ($sql) = @_;
	my $run = { out => '', err => '' };
	$run->{handle} = IPC::Run::start([ 'psql', '-XAtq', '-d', $s->node->connstr('postgres') . ' application_name=second', '-c', $sql ],
		'<', \undef, '>', \$run->{out}, '2>', \$run->{err});
	return $run;
}

sub waits
{
	my ($who, $name) = @_;
	$s->becomes("SELECT count(*) > 0 FROM pg_stat_activity WHERE $who AND wait_event_type = 'Lock'", 't', $name);
}
sub worker_waits { waits("backend_type = 'settlement worker'", 'the late worker waits') }
sub second_waits { waits("application_name = 'second'", 'the operator waits') }

my %act = (
	redrive => sub { "SELECT settlement.redrive('$_[0]', 'race')" },
	resolve => sub { "SELECT settlement.resolve('$_[0]', 'FAILED', 'ticket', 'race')" },
	purge => sub { "SELECT purged FROM settlement.dlq_purge('$_[0]', dry_run => false, reason => 'race')" });

sub ends_settled
{
	my ($name, $discrepancy) = @_;
	$s->status_is($name, 'SETTLED');
	$s->at_rest(0, 'and is nowhere else');
	is($s->effects_of($name), 1, 'one effect');
	is($s->sql("SELECT coalesce(string_agg(kind, ','), '') FROM settlement.discrepancies WHERE trade_id = '$name'"),
		$discrepancy ? 'settled_after_resolve' : '', $discrepancy ? 'the operator was wrong' : 'nothing contradicts');
}

# Nothing is claimed while the operators act: what is left in the queue shows.
sub paused
{
	my ($code) = @_;
	$s->sql("SELECT settlement.pause('race')");
	$code->();
	$s->sql('SELECT settlement.resume()');
}

for my $place ('FAILED', 'UNKNOWN', 'deferred')
{
	for my $act (sort keys %act)
	{
		next if $act eq 'purge' && $place ne 'FAILED' || $act eq 'redrive' && $place eq 'deferred';
		for my $end ('COMMIT', 'ROLLBACK')
		{
			scenario "late_while_${act}_of_${place}_ends_with_$end" => sub {
				my $name = "$act-$place-$end";
				lose_claim($name, $place);
				paused(sub {
					my $operator = $s->session;
					$operator->query_safe("BEGIN; " . $act{$act}->($name));
					$hold->release('claims');
					worker_waits();
					$operator->query_safe($end);
					$operator->quit;
					ends_settled($name, $end eq 'COMMIT' && $act ne 'redrive');
				});
			};
		}
		scenario "${act}_of_${place}_while_late" => sub {
			my $name = "late-$act-$place";
			lose_claim($name, $place);
			paused(sub {
				$hold->at('unapplied');
				$hold->release('claims');
				$hold->reached('unapplied');
				my $second = start_sql($act{$act}->($name));
				second_waits();
				$hold->release('unapplied');
				$second->{handle}->finish;
				like($second->{err} . $second->{out}, $act eq 'purge' ? qr/\A\z/ : qr/taken out of the DLQ|is not in settlement/, 'the operator comes too late');
				ends_settled($name, 0);
			});
		};
		scenario "${act}_of_${place}_while_late_fails" => sub {
			my $name = "fails-$act-$place";
			lose_claim($name, $place);
			paused(sub {
				$hold->at('unapplied');
				$hold->release('claims');
				$hold->reached('unapplied');
				my $second = start_sql($act{$act}->($name));
				second_waits();
				$hold->raise_at('unapplied');
				$second->{handle}->finish;
				is($second->{err}, '', 'the operator acts');
				$hold->release('unapplied');
				ends_settled($name, $act ne 'redrive');
			});
		};
	}
}

# The other worker has sent it again, and draws an answer that is a fault of the
# wallet's; both write at once.
sub second_answer
{
	my ($name) = @_;
	$s->faults({ match => { trade_id => $name, times => 1 }, action => 'pass' },
		{ match => { trade_id => $name }, action => 'status', status => 422, body => { error => 'x', message => 'x', code => 'KEY_CONFLICT' } });
}

for my $end ('release', 'fail')
{
	scenario "late_while_another_finishes_$end" => sub {
		my $name = "finish-$end";
		second_answer($name);
		$hold->at('dlq');
		lose_claim($name, 'queue');
		$s->sql('SELECT settlement.rescan()');
		$hold->reached('dlq', 'another worker records its answer');
		$hold->release('claims');
		worker_waits();
		$s->sql("SELECT settlement.pause('race')");
		if ($end eq 'fail')
		{
			$hold->raise_at('dlq');
			$s->status_is($name, 'SETTLED');
		}
		$hold->release('dlq');
		ends_settled($name);
		$s->sql('SELECT settlement.resume()');
		$s->faults;
	};
}

$s->ledgers_are_equal;

done_testing();
