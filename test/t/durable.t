#!/usr/bin/perl
# A claim is on disk before its request leaves, whatever the database's settings
# say and whatever becomes of a wait for a standby.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use IPC::Run;
use Test::More;

my $s = Settlement->start(streaming => 1, conf => <<'CONF');
synchronous_commit = local
wal_writer_delay = 10s
autovacuum = off
settlement.request_timeout = '3s'
settlement.retry_initial_backoff = '20ms'
settlement.shutdown_timeout = 0
CONF
my $node = $s->node;

# New workers, so that what was set for the database is what they start with.
sub replace_workers
{
	my @before = $s->worker_pids;
	$s->sql('SELECT settlement.restart_worker(slot) FROM settlement.workers');
	$s->becomes("SELECT count(*) FROM settlement.workers WHERE state = 'running' AND pid <> ALL ('{" . join(',', @before) . "}')", 2,
		'new workers run');
}

sub database_settings
{
	my %settings = @_;
	$s->sql(join ';', 'ALTER DATABASE postgres RESET ALL', map { "ALTER DATABASE postgres SET $_ = $settings{$_}" } sort keys %settings);
	replace_workers();
}

# Settings of the database that would change what a worker's statements do.
scenario settings_of_the_database => sub {
	$s->sql(<<'SQL');
CREATE SCHEMA evil;
CREATE FUNCTION evil.never(bigint, bigint) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false';
CREATE OPERATOR evil.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = evil.never);
CREATE TABLE public.seen (trade_id text);
GRANT INSERT ON public.seen TO exchange;
CREATE FUNCTION public.see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen VALUES (NEW.trade_id); RETURN NULL; END $$;
CREATE TRIGGER see AFTER UPDATE ON public.trades FOR EACH ROW EXECUTE FUNCTION public.see();
SQL
	database_settings(search_path => 'evil, pg_catalog, public', exit_on_error => 'on');
	$s->trades('operator', 3);
	$s->settled_is('operator', 3, 'search_path: operators are those of pg_catalog');
	$s->sql("ALTER TABLE public.trades ADD CONSTRAINT no_broken CHECK (trade_id NOT LIKE 'broken%' OR settlement_status = 'PENDING')");
	my @pids = $s->worker_pids;
	$s->trade('broken');
	$s->becomes("SELECT failures > 1 FROM settlement.unapplied WHERE trade_id = 'broken'", 't', 'exit_on_error: a row that cannot be written waits');
	is(join(' ', $s->worker_pids), "@pids", 'and ends no worker');
	$s->sql('ALTER TABLE public.trades DROP CONSTRAINT no_broken');
	$s->status_is('broken', 'SETTLED');

	# transaction_timeout came with PostgreSQL 17; it ends the process.
	my %newer = $node->pg_version >= 17 ? (transaction_timeout => 500) : ();
	local $ENV{PGOPTIONS} = join ' ', '-c default_transaction_read_only=off', map { "-c $_=0" } keys %newer;	# of our sessions
	database_settings(default_transaction_isolation => 'serializable', default_transaction_read_only => 'on', session_replication_role => 'replica',
		lock_timeout => 0, %newer);
	@pids = $s->worker_pids;
	my $honest = 'SET session_replication_role = origin;';
	$s->sql("$honest SELECT put('set', 3)");
	$s->settled_is('set', 3, 'isolation, read only');
	is($s->sql("SELECT count(*) FROM public.seen WHERE trade_id LIKE 'set%'"), 3, 'session_replication_role: triggers of the trade table fire');
	my $aborts = $s->metric('turn_aborts');
	my $locker = $s->session;
	$locker->query_safe("$honest BEGIN; LOCK TABLE settlement.claims IN ACCESS EXCLUSIVE MODE");
	$s->sql("$honest SELECT put('locked', 3)");
	$s->becomes("SELECT value > $aborts FROM settlement.metrics WHERE name = 'turn_aborts'", 't', 'lock_timeout: no endless wait for a lock');
	$locker->query_safe('COMMIT');
	$locker->quit;
	$s->settled_is('locked', 3, 'it goes on afterwards');
	is(join(' ', $s->worker_pids), "@pids", 'by the same workers');
	$s->sql('ALTER DATABASE postgres RESET ALL; DROP TRIGGER see ON public.trades');
	$s->at_rest;
	$s->ledgers_are_equal;
};

# Nothing but the worker's claim can have written the WAL of the trade by then.
scenario an_asynchronous_insert_and_a_crash => sub {
	database_settings(synchronous_commit => 'off');
	$s->trade('before');
	$s->status_is('before', 'SETTLED');
	$s->faults({ match => { trade_id => 'async' }, action => 'hang', apply => \1, ms => 60000 });
	$s->sql('CHECKPOINT');
	$s->trade('async');
	wait_for(sub { $s->effects_of('async') }, 'the wallet to book it');
	$node->stop('immediate');
	$s->faults;
	$node->start;
	is($s->sql("SELECT count(*) FROM trades WHERE trade_id = 'async'"), 1, 'what was paid is there after the crash');
	$s->status_is('async', 'SETTLED');
	is($s->effects_of('async'), 1, 'paid once');
};

# Of many, those that the crash took were not paid.
scenario asynchronous_inserts_until_a_crash => sub {
	my ($effects, $out, $err) = ($s->effects);
	my $engine = IPC::Run::start([ 'psql', '-X', '-U', 'engine', '-d', $node->connstr('postgres'), '-c',
			q{DO $$ BEGIN FOR i IN 1..1000000 LOOP PERFORM public.put('stream-' || i, NULL, i); COMMIT; END LOOP; END $$} ],
		'>', \$out, '2>', \$err);
	wait_for(sub { $s->effects > $effects + 300 }, 'some to settle');
	$node->stop('immediate');
	$engine->finish;
	$node->start;
	$s->becomes('SELECT count(*) FROM settlement.queue q', 0, 'the backlog drains');
	$s->at_rest;
	$s->ledgers_are_equal('what the wallet booked is what the database has');
	database_settings();
};

# send_after = local: a claim waits in its commit where a standby is wanted.
my $some_wait = "SELECT count(*) > 0 FROM settlement.workers JOIN pg_stat_activity USING (pid) WHERE wait_event = 'SyncRep'";

scenario a_wait_for_a_standby_is_not_cancelled => sub {
	my $requests = $s->requests;
	$s->sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
	$s->reload;
	$s->becomes(q{SELECT count(*) FROM pg_settings WHERE name = 'synchronous_standby_names' AND setting = 'nobody'}, 1, 'a standby is wanted');
	$s->trades('waits', 3);
	$s->becomes($some_wait, 't', 'the claim waits');
	my $pid = $s->sql("SELECT pid FROM settlement.workers JOIN pg_stat_activity USING (pid) WHERE wait_event = 'SyncRep'");
	$s->sql("SELECT pg_cancel_backend(pid) FROM settlement.workers");
	$s->trades('waits too', 3);
	$s->becomes($some_wait, 't', 'a cancel does not end it');
	is($s->requests, $requests, 'nothing is sent');

	my $offset = -s $node->logfile;
	$s->sql("SELECT pg_terminate_backend(pid) FROM settlement.workers WHERE in_flight > 0");
	wait_for(sub { PostgreSQL::Test::Utils::slurp_file($node->logfile, $offset) =~ /canceling the wait for synchronous replication/ },
		'the end by force');
	$s->becomes("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY ('{" . join(',', split /\n/, $pid) . "}')", 0, 'the workers are gone');
	is($s->requests, $requests, 'still nothing is sent');
	$s->sql('ALTER SYSTEM RESET synchronous_standby_names');
	$s->reload;
	$s->settled_is('waits', 6, 'without a standby wanted all settle');
	is($s->requests, $requests + 6, 'sent once');
	$s->at_rest;
	$s->ledgers_are_equal;
};

scenario a_cancelled_wait_of_an_outcome => sub {
	$s->faults({ match => { trade_id_prefix => 'outcome' }, action => 'pass', reply_delay_ms => 2000 });
	my $requests = $s->requests;
	$s->trades('outcome', 1);
	wait_for(sub { $s->requests > $requests }, 'it to be sent');
	$s->sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
	$s->reload;
	$s->becomes($some_wait, 't', 'the outcome waits');
	$s->sql("SELECT pg_terminate_backend(pid) FROM settlement.workers WHERE in_flight > 0");
	$s->settled_is('outcome', 1, 'it is recorded when the wait is cut short');
	$s->sql('ALTER SYSTEM RESET synchronous_standby_names');
	$s->reload;
	$s->faults;
	$s->at_rest;
	is($s->requests, $requests + 1, 'nothing is sent again');
	$s->ledgers_are_equal;
};

done_testing();
