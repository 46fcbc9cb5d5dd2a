# As many workers as wanted, whatever happens to them or to the launcher.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Workers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('workers');
$node->init;
$node->append_conf('postgresql.conf', conf('settlement.max_workers = 4', 'restart_after_crash = on'));
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE one');
$node->safe_psql('postgres', 'CREATE DATABASE two');
$node->safe_psql('one', 'CREATE EXTENSION settlement');
workers_are($node, 'one', 2, 'two workers by default');

my $launcher = q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'settlement launcher'};

sub replaced
{
	my ($database, $name, @before) = @_;
	my $gone = join ',', @before;
	wait_until($node, qq{count(*) = 2 FROM pg_stat_activity WHERE backend_type = 'settlement worker'
		AND datname = '$database' AND pid NOT IN ($gone)}, $name);
}

subtest settings => sub {
	$node->safe_psql('postgres', 'ALTER SYSTEM SET settlement.workers = 3');
	$node->reload;
	workers_are($node, 'one', 3, 'more after a reload');
	$node->safe_psql('postgres', 'ALTER DATABASE one SET settlement.workers = 1');
	workers_are($node, 'one', 1, 'fewer by ALTER DATABASE');
	$node->safe_psql('postgres', 'ALTER DATABASE one SET settlement.workers = 0');
	workers_are($node, 'one', 0, 'none');
	$node->safe_psql('postgres', 'ALTER DATABASE one RESET settlement.workers; ALTER SYSTEM RESET settlement.workers');
	$node->reload;
	workers_are($node, 'one', 2, 'back to the default');

	my @before = workers_of($node, 'one');
	$node->safe_psql('postgres', q{ALTER DATABASE one SET settlement.wallet_url = 'http://127.0.0.1:19'});
	replaced('one', 'another wallet_url: new workers', @before);
};

subtest deaths => sub {
	my @before = workers_of($node, 'one');
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($before[0])");
	workers_are($node, 'one', 2, 'a worker that was terminated is replaced');
	isnt(join(',', workers_of($node, 'one')), join(',', @before), '... by another process');

	@before = workers_of($node, 'one');
	my $pid = $node->safe_psql('postgres', $launcher);
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	wait_until($node, "EXISTS ($launcher AND pid <> $pid)", 'a launcher that was terminated is replaced');
	is(join(',', workers_of($node, 'one')), join(',', @before), '... and lets the workers be');
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($_)") for @before;
	replaced('one', 'the new launcher replaces workers of the former', @before);

	@before = workers_of($node, 'one');
	kill 'KILL', $before[0];
	ok(counted_in_log($node, qr/all server processes terminated; reinitializing/, 1), 'a worker crashes');
	ok(counted_in_log($node, qr/database system is ready to accept connections/, 2), 'the server restarts');
	replaced('one', 'after a crash of all there are workers again', @before);
};

subtest max_workers => sub {
	$node->safe_psql('two', 'CREATE EXTENSION settlement');
	workers_are($node, 'two', 2, 'two databases with two workers each');
	$node->safe_psql('postgres', 'ALTER DATABASE one SET settlement.workers = 4');
	is(counted_in_log($node, qr/WARNING:  2 settlement workers are not started/, 1), 1,
		'more than max_workers: a warning');
	workers_are($node, 'one', 2, 'they are shared out');
	workers_are($node, 'two', 2, '... evenly');
	$node->reload;
	$node->safe_psql('postgres', 'ALTER DATABASE one RESET settlement.workers');
	workers_are($node, 'one', 2, 'back');
	is(counted_in_log($node, qr/settlement workers are not started/), 1, 'one warning per change');
};

subtest max_worker_processes => sub {
	# The logical replication launcher and ours take two; a probe needs one.
	$node->append_conf('postgresql.conf', "max_worker_processes = 4\nmax_logical_replication_workers = 1");
	$node->restart;
	wait_until($node, q{count(*) >= 1 FROM pg_stat_activity WHERE backend_type = 'settlement worker'},
		'as many workers as there are processes');
	my $warnings = qr/WARNING:  no background worker process is free for a settlement worker/;
	is(counted_in_log($node, $warnings, 1), 1, 'a warning for the rest');
	like(slurp_file($node->logfile), qr/HINT:  Increase max_worker_processes/, '... with a hint');
	# it is tried again each second
	$node->poll_query_until('postgres', "SELECT clock_timestamp() > pg_postmaster_start_time() + interval '4 s'");
	is(counted_in_log($node, $warnings), 1, '... once');
	is($node->safe_psql('one', q{SELECT status FROM settlement.doctor() WHERE component = 'max_worker_processes'}), 'fail', '... and a finding');
	$node->safe_psql('postgres', 'DROP DATABASE one');
	workers_are($node, 'two', 2, 'processes that are free again are used');
};

$node->stop;
done_testing();
