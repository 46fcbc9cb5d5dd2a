# The launcher finds the databases that have the extension by itself.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Workers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('databases');
$node->init;
$node->append_conf('postgresql.conf', conf());
$node->start;

wait_until($node, q{EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'settlement launcher')},
	'the launcher runs');
$node->safe_psql('postgres', "CREATE DATABASE $_") for qw(one two plain);
workers_are($node, 'one', 0, 'a database without the extension has no workers');

$node->safe_psql($_, 'CREATE EXTENSION settlement') for qw(one two);
workers_are($node, $_, 2, "CREATE EXTENSION starts the workers of $_") for qw(one two);

my $session = $node->background_psql('plain', on_error_stop => 0);
$session->query_safe('BEGIN; CREATE EXTENSION settlement');
workers_are($node, 'plain', 0, 'no workers before CREATE EXTENSION commits');
$session->query_safe('ROLLBACK');
$session->quit;
workers_are($node, 'plain', 0, 'none after it was rolled back');

$node->safe_psql('one', 'DROP EXTENSION settlement');
workers_are($node, 'one', 0, 'DROP EXTENSION stops the workers');
workers_are($node, 'two', 2, '... of this database only');
$node->safe_psql('one', 'CREATE EXTENSION settlement');
workers_are($node, 'one', 2, 'CREATE EXTENSION again starts them again');
$node->safe_psql('one', 'BEGIN; DROP EXTENSION settlement; CREATE EXTENSION settlement; COMMIT');
workers_are($node, 'one', 2, 'both in one transaction');

$node->restart;
workers_are($node, $_, 2, "after a restart $_ is found") for qw(one two);

$node->safe_psql('postgres', q{ALTER SYSTEM SET settlement.databases = 'two, "plain"'});
$node->reload;
workers_are($node, 'one', 0, 'a database that settlement.databases does not name loses its workers');
workers_are($node, 'two', 2, 'one that it names keeps them');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET settlement.databases');
$node->reload;
workers_are($node, 'one', 2, 'empty means all again');

$node->safe_psql('postgres', q{ALTER DATABASE two ALLOW_CONNECTIONS false});
$node->reload;
workers_are($node, 'two', 0, 'a database that allows no connections has no workers');
$node->safe_psql('postgres', q{ALTER DATABASE two ALLOW_CONNECTIONS true});
$node->reload;
workers_are($node, 'two', 2, 'and gets them back');

$node->stop;
done_testing();
