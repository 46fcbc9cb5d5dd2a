# Database DDL works while workers run, and they are back afterwards.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Workers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('ddl');
$node->init;
$node->append_conf('postgresql.conf', conf('allow_in_place_tablespaces = on'));
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE one');
$node->safe_psql('one', 'CREATE EXTENSION settlement');
workers_are($node, 'one', 2, 'workers run');

$node->safe_psql('postgres', 'ALTER DATABASE one RENAME TO two');
workers_are($node, 'two', 2, 'RENAME: they are back under the new name');

$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE two');
workers_are($node, 'two', 2, 'CREATE DATABASE TEMPLATE: they are back');
workers_are($node, 'copy', 2, '... and the copy has its own');
is($node->safe_psql('copy', q{SELECT count(*) FROM settlement.identity}), 0, 'no identity: nothing was attached');
$node->safe_psql('copy', 'CREATE DATABASE copy_of_itself TEMPLATE copy');
workers_are($node, 'copy', 2, 'the source may be the current database');

$node->safe_psql('postgres', q{CREATE TABLESPACE elsewhere LOCATION ''});
$node->safe_psql('postgres', 'ALTER DATABASE two SET TABLESPACE elsewhere');
workers_are($node, 'two', 2, 'SET TABLESPACE: they are back');

$node->safe_psql('postgres', 'DROP DATABASE copy');
$node->safe_psql('postgres', 'DROP DATABASE copy_of_itself WITH (FORCE)');
wait_until($node, q{count(*) = 2 FROM pg_stat_activity WHERE backend_type = 'settlement worker'},
	'DROP DATABASE: its workers are gone, the others stay');

subtest transaction => sub {
	my $session = $node->background_psql('postgres');
	$session->query_safe('BEGIN; ALTER DATABASE two RENAME TO three');
	workers_are($node, 'two', 0, 'no workers while the new name is not committed');
	$session->query_safe('ROLLBACK');
	workers_are($node, 'two', 2, 'they are back after a rollback');
	$session->query_safe('BEGIN; ALTER DATABASE two RENAME TO three');
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	workers_are($node, 'two', 2, 'and when the session is terminated');
	eval { $session->quit };
};

subtest refused => sub {
	my @before = workers_of($node, 'two');
	$node->safe_psql('postgres', 'CREATE ROLE nobody LOGIN CREATEDB');
	for my $command ('DROP DATABASE two', 'ALTER DATABASE two RENAME TO three',
		'CREATE DATABASE three TEMPLATE two', 'ALTER DATABASE two SET TABLESPACE pg_default')
	{
		my ($rc) = $node->psql('postgres', $command, extra_params => ['-U', 'nobody']);
		isnt($rc, 0, "not allowed: $command");
	}
	is(join(',', workers_of($node, 'two')), join(',', @before), 'who may not do it stops no workers');

	my $session = $node->background_psql('two');
	$session->query_safe('SELECT 1');
	my ($rc, undef, $error) = $node->psql('postgres', 'DROP DATABASE two');
	like($error, qr/being accessed by other users/, 'a session of a user is in the way, as ever');
	workers_are($node, 'two', 2, 'the workers are back after the error');
	$session->quit;
};

$node->stop;
done_testing();
