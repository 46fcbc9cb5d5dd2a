#!/usr/bin/perl
# A worker has lost its claim and then learns that the wallet settled the trade,
# while somebody else is moving that trade just now: an operator who redrives,
# resolves or purges it, another worker that finishes it, one that takes it over
# once more, or one that is as late.  In both orders, and with the first one
# rolling back: SETTLED wins, the trade is left nowhere, the wallet has booked it
# once.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Races;
use Settlement;
use Test::More;

my ($s, $hold) = start_races(workers => 2, request_timeout => '60s');

sub late_waits { worker_waits($s, 'the late worker waits') }
sub operator_waits { session_waits($s, "application_name = 'second'", 'the operator waits') }

# The late worker has taken the trade from where it was and has not committed.
sub late_is_first
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$hold->at('unapplied');
	$hold->release('claims');
	$hold->reached('unapplied', 'the late worker has taken the trade');
}

# Who is held lets go; or fails, again and again, until the other one is seen to act.
sub lets_go
{
	my ($end, $place, $name, $other_acts) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	if ($end eq 'fail')
	{
		$hold->raise_at($place);
		$other_acts->();
	}
	$hold->release($place);
	ends_settled($s, $name);
}

# A worker that has lost its claim has an answer, and so has the one that sent the
# trade again.
sub two_have_answers
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$hold->at('claims2');
	lose_claim($s, $hold, $name, 'queue');
	$s->sql('SELECT settlement.rescan()');
	$hold->reached('claims2', 'another worker has its answer, too');
}

# ------------------------------------------------------- beside an operator

my %act = (
	redrive => sub { "SELECT settlement.redrive('$_[0]', 'race')" },
	resolve => sub { "SELECT settlement.resolve('$_[0]', 'FAILED', 'ticket', 'race')" },
	purge => sub { "SELECT purged FROM settlement.dlq_purge('$_[0]', dry_run => false, reason => 'race')" });

for my $place ('FAILED', 'UNKNOWN', 'deferred')
{
	for my $act (sort keys %act)
	{
		next if $act eq 'purge' && $place ne 'FAILED' || $act eq 'redrive' && $place eq 'deferred';
		for my $end ('COMMIT', 'ROLLBACK')
		{
			scenario "late_while_${act}_of_${place}_ends_with_$end" => sub {
				my $name = "$act-$place-$end";
				lose_claim($s, $hold, $name, $place);
				paused($s, sub {
					my $operator = $s->session;
					$operator->query_safe("BEGIN; " . $act{$act}->($name));
					$hold->release('claims');
					late_waits();
					$operator->query_safe($end);
					$operator->quit;
					ends_settled($s, $name, $end eq 'COMMIT' && $act ne 'redrive');
				});
			};
		}
		scenario "${act}_of_${place}_while_late" => sub {
			my $name = "late-$act-$place";
			lose_claim($s, $hold, $name, $place);
			paused($s, sub {
				late_is_first();
				my $second = start_sql($s, $act{$act}->($name));
				operator_waits();
				$hold->release('unapplied');
				$second->{handle}->finish;
				like($second->{err} . $second->{out}, $act eq 'purge' ? qr/\A\z/ : qr/taken out of the DLQ|is not in settlement/, 'the operator comes too late');
				ends_settled($s, $name, 0);
			});
		};
		scenario "${act}_of_${place}_while_late_fails" => sub {
			my $name = "fails-$act-$place";
			lose_claim($s, $hold, $name, $place);
			paused($s, sub {
				late_is_first();
				my $second = start_sql($s, $act{$act}->($name));
				operator_waits();
				$hold->raise_at('unapplied');
				$second->{handle}->finish;
				is($second->{err}, '', 'the operator acts');
				$hold->release('unapplied');
				ends_settled($s, $name, $act ne 'redrive');
			});
		};
	}
}

# -------------------------------------------------- beside another worker

# It has sent the trade again, and draws an answer that leads elsewhere.
my %answer = (
	dlq => { status => 422, body => { error => 'x', message => 'x', code => 'KEY_CONFLICT' } },
	deferred => { status => 503 });

sub second_answer
{
	my ($name, $place) = @_;
	$s->faults({ match => { trade_id => $name, times => 1 }, action => 'pass' },
		{ match => { trade_id => $name }, action => 'status', %{ $answer{$place} } });
}

for my $place (sort keys %answer)
{
	for my $end ('release', 'fail')
	{
		scenario "late_while_another_finishes_to_${place}_$end" => sub {
			my $name = "finish-$place-$end";
			second_answer($name, $place);
			$hold->at($place);
			lose_claim($s, $hold, $name, 'queue');
			$s->sql('SELECT settlement.rescan()');
			$hold->reached($place, 'another worker records its answer');
			$hold->release('claims');
			late_waits();
			paused($s, sub {
				lets_go($end, $place, $name, sub { $s->status_is($name, 'SETTLED') });
			});
			$s->faults;
		};

		scenario "another_finishes_to_${place}_while_late_$end" => sub {
			my $name = "late-finish-$place-$end";
			second_answer($name, $place);
			two_have_answers($name);
			late_is_first();
			paused($s, sub {
				$hold->release('claims2');
				worker_waits($s, 'the other one waits');
				lets_go($end, 'unapplied', $name, sub {
					$s->becomes('SELECT count(*) FROM settlement.claims', 0, 'its answer is recorded');
				});
			});
			$s->faults;
		};
	}
}

# The worker that has sent it again gets no answer and is told to leave, so that
# what it has is taken over.
sub sent_again_in_vain
{
	my ($name) = @_;
	$s->faults({ match => { trade_id => $name, times => 1 }, action => 'pass' },
		{ match => { trade_id => $name }, action => 'pass', reply_delay_ms => 600_000 });
	my $requests = $s->requests;
	lose_claim($s, $hold, $name, 'queue');
	$s->sql('SELECT settlement.rescan()');
	wait_for(sub { $s->requests - $requests >= 2 }, 'another worker to send it again');
	return slot_of($s, $name);
}

for my $end ('release', 'fail')
{
	scenario "late_while_taken_over_again_$end" => sub {
		my $name = "again-$end";
		my $slot = sent_again_in_vain($name);
		paused($s, sub {
			$hold->at('deferred');
			$s->sql("SELECT settlement.restart_worker($slot)");
			$hold->reached('deferred', 'it is taken over once more');
			$hold->release('claims');
			late_waits();
			lets_go($end, 'deferred', $name, sub { $s->status_is($name, 'SETTLED') });
		});
		$s->wait_for_workers(2);
		$s->faults;
	};

	scenario "taken_over_again_while_late_$end" => sub {
		my $name = "late-again-$end";
		my $slot = sent_again_in_vain($name);
		paused($s, sub {
			late_is_first();
			$s->sql("SELECT settlement.restart_worker($slot)");
			worker_waits($s, 'who takes it over waits');
			lets_go($end, 'unapplied', $name, sub {
				$s->becomes('SELECT count(*) FROM settlement.claims', 0, 'it is taken over');
			});
		});
		$s->wait_for_workers(2);
		$s->faults;
	};
}

# Both have lost their claims, and both know.
for my $end ('release', 'fail')
{
	scenario "two_are_late_$end" => sub {
		my $name = "two-$end";
		two_have_answers($name);
		lose_claim_again($s, $name, 'UNKNOWN');
		late_is_first();
		paused($s, sub {
			$hold->release('claims2');
			worker_waits($s, 'the other one waits');
			lets_go($end, 'unapplied', $name, sub {
				$s->becomes("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'settlement worker' AND wait_event_type = 'Lock'", 0, 'the first one fails');
			});
		});
	};
}

$s->ledgers_are_equal;

done_testing();
