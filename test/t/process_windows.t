#!/usr/bin/perl
# A worker that ends, or stands still, between two steps of a settlement: after
# its claim is committed and before it has sent anything; after the reply and
# before that is committed; when a part of its claim is finished.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use IPC::Run;
use Test::More;

# Beside a limit, also one that limits nothing, no trade is claimed ahead: what
# follows holds a worker between a claim's commit and its request.
my $s = Settlement->start(conf => <<'CONF');
settlement.rate_limit = 1000000
settlement.request_timeout = '2s'
settlement.retry_initial_backoff = '20ms'
settlement.poll_interval = '200ms'
logging_collector = on
CONF
my $node = $s->node;
$s->wait_for_workers(2);

sub crash_worker
{
	my ($pid) = @_;
	kill KILL => $pid;
	wait_for(sub { !kill 0, $pid }, 'the worker to die');
}

sub logger
{
	my ($pid) = grep { (eval { PostgreSQL::Test::Utils::slurp_file("/proc/$_/cmdline") } // '') =~ /logger/ } $s->server_pids;
	return $pid // die 'no logger';
}

# A worker that stands still after a commit that finished one trade and claimed
# the next: it says so in the log, and nobody reads that.  Returns its pid.
sub hang_before_sending
{
	my ($first, $next) = @_;
	my $requests = $s->requests;
	kill STOP => logger();
	my $fill = IPC::Run::start([ 'psql', '-X', '-q', '-d', $node->connstr('postgres'),
			'-c', "DO 'BEGIN FOR i IN 1 .. 5000 LOOP RAISE LOG \$\$%\$\$, i; END LOOP; END'" ]);
	# A process that sleeps while it runs this has nothing to wait for but the
	# pipe.  Its lines are short, so that no room is left for longer ones.
	my $sleeping = 0;
	wait_for(sub {
		my $pid = $s->sql("SELECT pid FROM pg_stat_activity WHERE query LIKE 'DO ''BEGIN FOR%' AND state = 'active'");
		$sleeping = $pid && PostgreSQL::Test::Utils::slurp_file("/proc/$pid/stat") =~ /\) S / ? $sleeping + 1 : 0;
		return $sleeping >= 5;
	}, 'the log to be full');
	$s->engine("SELECT put('$first'), put('$next')");
	$s->status_is($first, 'SETTLED', 'one trade is finished');
	$s->becomes("SELECT count(*) FROM settlement.claims c JOIN settlement.queue q ON q.id = ANY (c.ids) WHERE q.trade_id = '$next'", 1, 'the next one is claimed');
	is($s->requests - $requests, 1, 'and not sent');
	return ($s->sql("SELECT pid FROM settlement.workers WHERE in_flight > 0"), $fill);
}

scenario crash_before_send => sub {
	$s->set(workers => 1, concurrency => 1, log_settlements => 'all');
	$s->wait_for_workers(1);
	my $requests = $s->requests;
	my ($pid, $fill) = hang_before_sending('crash-finished', 'crash-claimed');
	kill KILL => $pid;
	kill CONT => logger();
	$s->status_is('crash-claimed', 'SETTLED', 'it settles after the crash');
	$fill->finish;
	is($s->requests - $requests, 2, 'one request for each');
	$s->becomes("SELECT value FROM settlement.metrics WHERE name = 'recovered'", 1, 'it counts as taken over');
	$s->at_rest;
	$s->ledgers_are_equal;
};

# It wakes up when its claim is no longer its own: what it has not sent yet must
# not leave any more.
scenario frozen_before_send => sub {
	$s->set(workers => 2, concurrency => 1, request_timeout => '300ms');
	$s->wait_for_workers(2);
	my $requests = $s->requests;
	my ($hung, $other) = $s->worker_pids;
	kill STOP => $other;
	my ($pid, $fill) = hang_before_sending('frozen-finished', 'frozen-claimed');
	is($pid, $hung, 'by one worker');
	kill CONT => $other;
	$s->becomes("SELECT count(*) FROM settlement.claims c JOIN settlement.queue q ON q.id = ANY (c.ids) WHERE q.trade_id = 'frozen-claimed'", 0,
		'the other one takes the claim over');
	kill CONT => logger();
	$fill->finish;
	$s->status_is('frozen-claimed', 'SETTLED');
	$s->at_rest;
	is($s->requests - $requests, 2, 'who was frozen has sent nothing');
	$s->ledgers_are_equal;
	$s->reset('workers', 'concurrency', 'log_settlements', 'request_timeout');
	$s->set(request_timeout => '5s');
	$s->wait_for_workers(2);
};

# It looks whether its claim stands, and cannot: what it has claimed must not stay
# with a worker that lives and forgets it.
scenario the_look_at_the_claim_fails => sub {
	$s->set(workers => 1, concurrency => 1, request_timeout => '300ms', log_settlements => 'all');
	$s->wait_for_workers(1);
	my $requests = $s->requests;
	my ($pid, $fill) = hang_before_sending('look-finished', 'look-claimed');
	my $session = $s->session;
	$session->query_safe('BEGIN; LOCK TABLE settlement.claims IN EXCLUSIVE MODE');
	$s->becomes("SELECT heartbeat_age > interval '1 second' FROM settlement.workers WHERE pid = $pid", 't', 'it has stood still for long');
	kill CONT => logger();
	$fill->finish;
	my $log = sub { join '', map { PostgreSQL::Test::Utils::slurp_file($_) } glob($node->data_dir . '/log/*') };
	wait_for(sub { $log->() =~ /\[$pid\] ERROR:  canceling statement due to lock timeout/ }, 'its look to fail');
	$session->query_safe('COMMIT');
	$session->quit;
	$s->status_is('look-claimed', 'SETTLED', 'another worker goes on');
	is($s->requests - $requests, 2, 'one request for each');
	$s->at_rest;
	$s->ledgers_are_equal;
	$s->reset('workers', 'concurrency', 'log_settlements', 'request_timeout');
	$s->set(request_timeout => '5s');
	$s->wait_for_workers(2);
};

# Replies come, and the turn that should record them waits for a table.
sub replies_wait_for_a_lock
{
	my ($name, $tables) = @_;
	my $booked = $s->effects;
	$s->faults({ match => { trade_id_prefix => $name, times => 1 }, action => 'pass', reply_delay_ms => 1500 });
	my $session = $s->session;
	$s->trades($name, 5);
	wait_for(sub { $s->effects >= $booked + 5 }, 'the wallet to book them');
	my $pid = $s->sql('SELECT pid FROM settlement.workers WHERE in_flight = 5');
	$session->query_safe("BEGIN; LOCK TABLE $tables IN ACCESS EXCLUSIVE MODE");
	wait_for(sub { $s->sql("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND wait_event_type = 'Lock'") }, 'the worker to wait for it');
	return ($session, $pid);
}

scenario crash_after_reply_before_commit => sub {
	my ($effects, $replays) = @{ $s->wallet->stats->{settle} }{qw(effects replays)};
	my ($session, $pid) = replies_wait_for_a_lock('unrecorded', 'settlement.claims');
	crash_worker($pid);
	$s->becomes('SELECT 1', 1, 'the server comes back');
	eval { $session->quit };
	$s->settled_is('unrecorded', 5, 'all settle');
	my $stats = $s->wallet->stats->{settle};
	is($stats->{effects} - $effects, 5, 'one effect of each');
	is($stats->{replays} - $replays, 5, 'each was sent again, and answered from memory');
	$s->at_rest;
	$s->ledgers_are_equal;
};

# The turn fails, again and again: what the wallet said is kept until it can be
# written, and nothing is sent again.
scenario a_turn_that_fails_keeps_its_replies => sub {
	my ($effects, $replays) = @{ $s->wallet->stats->{settle} }{qw(effects replays)};
	my $log = sub { join '', map { PostgreSQL::Test::Utils::slurp_file($_) } glob($node->data_dir . '/log/*') };
	my $before = length $log->();
	my ($session, $pid) = replies_wait_for_a_lock('aborted', 'settlement.queue, settlement.claims, settlement.deferred, settlement.unapplied');
	$s->sql("SELECT pg_cancel_backend($pid)") for 1 .. 3;
	# the first may have begun before there was a reply
	wait_for(sub { 2 <= (() = substr($log->(), $before) =~ /\[$pid\] ERROR:  canceling statement due to lock timeout/g) }, 'turns to fail');
	$session->query_safe('COMMIT');
	$session->quit;
	$s->settled_is('aborted', 5, 'all settle');
	my $stats = $s->wallet->stats->{settle};
	is($stats->{effects} - $effects, 5, 'one effect of each');
	is($stats->{replays} - $replays, 0, 'nothing was sent again');
	$s->at_rest;
	$s->ledgers_are_equal;
};

scenario terminated_after_reply_before_commit => sub {
	$s->set(shutdown_timeout => 0);
	my $effects = $s->effects;
	my ($session, $pid) = replies_wait_for_a_lock('terminated', 'settlement.claims');
	$s->sql("SELECT pg_terminate_backend($pid)");
	wait_for(sub { !kill 0, $pid }, 'it to leave, though the lock is still held');
	$session->query_safe('COMMIT');
	$session->quit;
	$s->settled_is('terminated', 5, 'all settle');
	is($s->effects - $effects, 5, 'one effect of each');
	$s->reset('shutdown_timeout');
	$s->wait_for_workers(2);
	$s->at_rest;
	$s->ledgers_are_equal;
};

# Of one claim, some are finished when the worker dies: only the others are sent again.
scenario crash_with_half_a_claim_finished => sub {
	my ($effects, $replays, $requests) = (@{ $s->wallet->stats->{settle} }{qw(effects replays)}, $s->requests);
	$s->faults({ match => { trade_id_prefix => 'half-slow', times => 1 }, action => 'hang', apply => \1, ms => 60000 });
	$s->engine("SELECT put('half-quick', 5), put('half-slow', 5)");
	$s->settled_is('half-quick', 5, 'one half is finished');
	is($s->sql("SELECT string_agg(cardinality(ids)::text, ',') FROM settlement.claims"), 10, 'the claim of both still stands');
	crash_worker($s->sql('SELECT pid FROM settlement.workers WHERE in_flight > 0'));
	$s->becomes('SELECT 1', 1, 'the server comes back');
	$s->settled_is('half', 10, 'all settle');
	my $stats = $s->wallet->stats->{settle};
	is($stats->{effects} - $effects, 10, 'one effect of each');
	is($stats->{replays} - $replays, 5, 'the others were sent again');
	is($s->requests - $requests, 15, 'the finished were not');
	$s->faults;
	$s->at_rest;
	$s->ledgers_are_equal;
};

done_testing();
