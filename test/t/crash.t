#!/usr/bin/perl
# Killed at the worst moment.  How often in the loop: SETTLEMENT_CRASHES (6).
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use IPC::Run;
use Test::More;
use Time::HiRes qw(time);

my $crashes = $ENV{SETTLEMENT_CRASHES} || 6;
my $s = Settlement->start(conf => <<'CONF');
settlement.request_timeout = '3s'
settlement.retry_initial_backoff = '20ms'
settlement.poll_interval = '200ms'
CONF
my $node = $s->node;

sub kill_a_worker
{
	my ($pid) = $s->worker_pids;
	kill KILL => $pid;
	wait_for(sub { !kill 0, $pid }, 'the worker to die');
}

# The postmaster and all of its processes at once, as if the power had gone.
sub kill_the_server
{
	my $postmaster = $node->{_pid};
	my @children = $s->server_pids;
	$node->kill9;
	kill KILL => @children;
	wait_for(sub { !grep { kill 0, $_ } $postmaster, @children }, 'the server to die');
	wait_for(sub { $node->start(fail_ok => 1) }, 'the server to start');
}

# Do it, and again when the server went away in the midst of it.
sub in_spite_of_crashes
{
	my ($what, $do) = @_;
	wait_for(sub { eval { $do->(); 1 } }, $what);
}

# The wallet has booked the trade and is about to answer: the worker is killed.
scenario kill_9_between_send_and_record => sub {
	$s->faults({ match => { trade_id => 'killed', times => 1 }, action => 'pass', reply_delay_ms => 2000 });
	$s->trade('killed');
	wait_for(sub { $s->effects_of('killed') }, 'the wallet to book it');
	my ($claimed) = $s->sql("SELECT slot FROM settlement.in_flight WHERE trade_id = 'killed'");
	my $pid = $s->sql("SELECT pid FROM settlement.workers WHERE slot = $claimed");
	$s->status_is('killed', 'PENDING', 'it is not recorded yet');
	is($s->sql('SELECT count(*) FROM settlement.claims'), 1, 'but its claim is');
	kill KILL => $pid;
	$s->becomes('SELECT count(*) FROM settlement.workers WHERE pid <> ' . $pid, 2, 'the server comes back with its workers');
	$s->status_is('killed', 'SETTLED');
	is($s->effects_of('killed'), 1, 'one wallet effect');
	is($s->wallet->stats->{settle}{replays}, 1, 'the second request was answered from memory');
	is($s->sql("SELECT settlement_attempts FROM trades WHERE trade_id = 'killed'"), 2, 'and the first one is known of');
	$s->becomes("SELECT value FROM settlement.metrics WHERE name = 'recovered'", 1, 'it counts as taken over');
	$s->at_rest;
	$s->ledgers_are_equal;
};

scenario kill_9_of_the_server_between_send_and_record => sub {
	$s->faults({ match => { trade_id_prefix => 'power', times => 1 }, action => 'pass', reply_delay_ms => 1000 });
	$s->trades('power', 30);
	wait_for(sub { $s->effects >= 31 }, 'the wallet to book them');
	kill_the_server();
	$s->settled_is('power', 30);
	$s->at_rest;
	$s->ledgers_are_equal;
};

# Not killed, but gone: the others hand back what it had claimed, at once.
scenario orphan_handover => sub {
	$s->set(shutdown_timeout => 0);
	$s->faults({ match => { trade_id_prefix => 'orphan', times => 1 }, action => 'pass', reply_delay_ms => 2500 });
	my ($booked, $requests) = ($s->effects, $s->requests);
	$s->trades('orphan', 40);
	wait_for(sub { $s->requests >= $requests + 40 }, 'all to be sent');
	$s->sql('SELECT pg_terminate_backend(pid) FROM settlement.workers ORDER BY in_flight DESC LIMIT 1');
	$s->settled_is('orphan', 40, 'all settle');
	like(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/took over \d+ trades from a worker that is gone/, 'its claims were handed over');
	$s->wait_for_workers(2);
	is($s->effects - $booked, 40, 'one effect of each');
	$s->at_rest;
	$s->ledgers_are_equal;
	$s->reset('shutdown_timeout');
	$s->faults;
};

# Who takes over is stopped by force in the middle of it.
scenario the_one_who_takes_over_dies => sub {
	$s->set(shutdown_timeout => 0);
	$s->faults({ match => { trade_id_prefix => 'heir', times => 1 }, action => 'pass', reply_delay_ms => 2500 });
	my $requests = $s->requests;
	$s->trades('heir', 10);
	wait_for(sub { $s->requests >= $requests + 10 }, 'all to be sent');
	my $waiting = "FROM pg_stat_activity WHERE backend_type = 'settlement worker' AND wait_event_type = 'Lock'";
	my $operator = $s->session;
	$operator->query_safe('BEGIN');
	$operator->query_safe('SELECT count(*) FROM (SELECT FROM settlement.queue FOR UPDATE) q');
	$s->sql('SELECT pg_terminate_backend(pid) FROM settlement.workers ORDER BY in_flight DESC LIMIT 1');
	wait_for(sub { $s->sql("SELECT count(*) $waiting") }, 'another one to take over');
	like($s->sql("SELECT pg_terminate_backend(pid) $waiting"), qr/t/, 'it is stopped');
	$s->becomes("SELECT count(*) $waiting", 0, 'it gives up by itself', 10);
	$operator->query_safe('COMMIT');
	$operator->quit;
	$s->settled_is('heir', 10);
	$s->wait_for_workers(2);
	$s->at_rest;
	$s->reset('shutdown_timeout');
};

# It cannot record what it knows, again and again, and gives up.
scenario a_worker_that_gives_up => sub {
	$s->faults({ match => { trade_id_prefix => 'stuck', times => 1 }, action => 'status', status => 503, apply => \1 });
	$s->sql('ALTER TABLE settlement.deferred ADD CONSTRAINT broken CHECK (false) NOT VALID');
	$s->trades('stuck', 5);
	my $refusals = sub {
		my ($after) = PostgreSQL::Test::Utils::slurp_file($node->logfile) =~ /worker gives up after 20 failed(.*)/s or return 0;
		return scalar(() = $after =~ /ERROR:  .*check constraint "broken"/g);
	};
	wait_for(sub { $refusals->() >= 4 }, 'a worker to give up, and others to fail to take over', 60);
	cmp_ok($refusals->(), '<', 50, 'who do not try it in a tight loop');
	$s->sql('ALTER TABLE settlement.deferred DROP CONSTRAINT broken');
	$s->settled_is('stuck', 5);
	$s->faults;
	$s->at_rest;
	$s->ledgers_are_equal;
};

# A trade that takes the whole server down, each time its row is written: it may
# do so a few times, and then the others must get through.
scenario a_trade_that_crashes_the_server => sub {
	$s->sql(<<'SQL');
CREATE FUNCTION public.kill_myself() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'kill -9 ' || pg_backend_pid()); PERFORM pg_sleep(60); END $$;
CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN IF NEW.trade_id = 'poison-4' THEN PERFORM public.kill_myself(); END IF; RETURN NEW; END $$;
CREATE TRIGGER poison BEFORE UPDATE ON trades FOR EACH ROW EXECUTE FUNCTION poison();
SQL
	my $log = -s $node->logfile;
	$s->trades('poison', 8);
	$s->settled_is('poison', 7, 'the others settle');
	$s->becomes('SELECT count(*) FROM settlement.unapplied WHERE failures > 0', 1, 'what it does to the server is known');
	in_spite_of_crashes('new ones to be inserted', sub {
		$s->trades('bystander', 20) unless $s->sql("SELECT count(*) FROM trades WHERE trade_id LIKE 'bystander%'");
	});
	$s->settled_is('bystander', 20, 'so do new ones');
	my $times = () = PostgreSQL::Test::Utils::slurp_file($node->logfile, $log) =~ /was terminated by signal 9/g;
	cmp_ok($times, '<=', 5, "the server crashed a few times only ($times)");
	cmp_ok($times, '>', 0, 'it did');
	is($s->effects_of('poison-4'), 1, 'the wallet has booked it once');
	$s->becomes("SELECT settlement_status FROM trades WHERE trade_id = 'poison-4'", 'PENDING', 'its row is as it was');
	$s->dead_letter_is('poison-4', 'UNKNOWN worker_crash - 3', 'it is set aside after three');
	in_spite_of_crashes('the trigger to be dropped', sub { $s->sql('DROP TRIGGER IF EXISTS poison ON trades') });
	$s->sql("SELECT settlement.redrive('poison-4', 'mended')");
	$s->settled_is('poison', 8, 'it settles when the cause is gone');
	$s->at_rest;
	$s->ledgers_are_equal;
};

# A trade whose bytes kill the worker is set aside after three times; killing by
# chance is not the trade's fault.
scenario crash_loop => sub {
	my $stop = $node->basedir . '/stop';
	my $script = $node->basedir . '/load';
	PostgreSQL::Test::Utils::append_to_file($script, <<'SH');
i=0
while [ ! -e "$1" ]; do
	i=$((i + 1))
	psql -X -q -U engine -d "$2" -c "SELECT public.put('crash-$i', 20)" >/dev/null 2>&1 || sleep 0.02
done
SH
	$s->faults(
		{ name => 'slow', match => { trade_id_prefix => 'crash', p => 0.3 }, action => 'pass', reply_delay_ms => 150 },
		{ name => 'dropped', match => { trade_id_prefix => 'crash', p => 0.03 }, action => 'close', apply => \1 });
	my $load = IPC::Run::start([ 'timeout', 600, 'bash', $script, $stop, $node->connstr('postgres') ]);
	for my $i (1 .. $crashes)
	{
		my $settled = $s->sql("SELECT count(*) FROM trades WHERE settlement_status = 'SETTLED'");
		$s->becomes("SELECT count(*) > $settled + 100 FROM trades WHERE settlement_status = 'SETTLED'", 't', "trades settle before crash $i");
		my $before = join ',', $s->worker_pids;
		$i % 2 ? kill_a_worker() : kill_the_server();
		$s->becomes("SELECT count(*) FROM settlement.workers WHERE state = 'running' AND pid <> ALL ('{$before}')", 2, 'the server comes back with its workers');
	}
	PostgreSQL::Test::Utils::append_to_file($stop, '');
	$load->finish;
	$s->faults;
	$s->becomes("SELECT count(*) FROM trades WHERE settlement_status = 'PENDING'", 0, 'all settle in the end');
	is($s->sql("SELECT count(*) FROM trades WHERE settlement_status <> 'SETTLED'"), 0, 'every one of ' . $s->sql('SELECT count(*) FROM trades'));
	$s->at_rest;
	$s->becomes('SELECT coalesce(settlement._queue_depth(), 0)', 0, 'nor counted');
	$s->ledgers_are_equal;
};

done_testing();
