#!/usr/bin/perl
# A worker stands still while some of what it has claimed is not sent: others take
# that over, and when it wakes it must not send what is theirs.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use IPC::Run;
use Test::More;

my $s = Settlement->start(streaming => 1, conf => <<'CONF');
synchronous_commit = local
synchronous_standby_names = '*'
settlement.send_after = standby
settlement.request_timeout = '200ms'
settlement.retry_initial_backoff = '20ms'
CONF
my $node = $s->node;
my $receiver;

END { local $?; $receiver->kill_kill if $receiver }

scenario a_frozen_worker_with_held_claims => sub {
	$s->trades('held', 5);
	$s->becomes('SELECT state FROM settlement.status', 'waiting for standby', 'claimed, not sent');
	my @pids = split /\n/, $s->sql('SELECT pid FROM settlement.workers WHERE in_flight > 0');
	is(scalar @pids, 1, 'one worker has all');
	kill STOP => $pids[0];
	$s->becomes("SELECT count(*) FROM settlement.queue q JOIN settlement.in_flight f ON f.queue_id = q.id WHERE q.maybe_executed", 5,
		'the other one has taken them over and holds them');

	# A standby that writes to disk and replays nothing is enough.
	mkdir $node->basedir . '/wal' or die $!;
	$receiver = IPC::Run::start([ 'pg_receivewal', '-D', $node->basedir . '/wal', '--synchronous', '-d', $node->connstr('postgres') ],
		'>', '/dev/null', '2>', '/dev/null');
	$s->settled_is('held', 5, 'it sends them when the standby comes');
	kill CONT => $pids[0];
	$s->becomes("SELECT in_flight FROM settlement.workers WHERE pid = $pids[0] AND heartbeat_age < interval '2 seconds'", 0, 'the first one has let them go');
	$s->trades('then', 50);
	$s->settled_is('then', 50);
	is($s->requests, 55, 'each was sent once');
	$s->at_rest;
	$s->ledgers_are_equal;
};

# One that stands still in a transaction has locks on its claims, and keeps them.
sub freeze_between_turns
{
	my $ahead = "SELECT w.pid FROM settlement.in_flight f JOIN settlement.workers w USING (slot)
		JOIN pg_stat_activity a ON a.pid = w.pid WHERE f.waits_for = 'concurrency' AND a.xact_start IS NULL";
	my $pid = $s->sql("$ahead LIMIT 1") or return;
	kill STOP => $pid;
	return $pid if $s->sql("$ahead AND w.pid = $pid LIMIT 1");
	kill CONT => $pid;
	return;
}

# The same without a standby, with what it has claimed ahead.
scenario a_frozen_worker_that_has_claimed_ahead => sub {
	$s->set(send_after => 'local', concurrency => 4);
	$s->faults({ match => { trade_id_prefix => 'ahead' }, action => 'pass', delay_ms => 100 });
	$s->trades('ahead', 300);
	my $pid = wait_for(\&freeze_between_turns, 'a worker that has claimed ahead');
	$s->settled_is('ahead', 300, 'the other one settles all');
	$s->faults();
	my $before = $s->requests;
	kill CONT => $pid;
	$s->becomes("SELECT in_flight FROM settlement.workers WHERE pid = $pid AND heartbeat_age < interval '2 seconds'", 0, 'the first one has let them go');
	$s->trades('after', 50);
	$s->settled_is('after', 50);
	is($s->requests - $before, 50, 'it has sent none of them');
	$s->at_rest;
	$s->ledgers_are_equal;
};

done_testing();
