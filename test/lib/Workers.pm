package Workers;

# Clusters with the library preloaded, and which workers run in them.  Nothing
# is sent: the wallet's address is a port where nobody listens.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);

BEGIN
{
	# PostgreSQL::Test::Utils wants them; a test can also be run by hand.
	$ENV{TESTDIR} //= abs_path(dirname(__FILE__) . '/..');
	$ENV{TESTDATADIR} //= "$ENV{TESTDIR}/tmp_check";
	$ENV{TESTLOGDIR} //= "$ENV{TESTDIR}/tmp_check/log";
}

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Exporter qw(import);
our @EXPORT = qw(conf workers_are workers_of wait_until counted_in_log trades_table);

sub conf
{
	return <<"CONF" . join('', map { "$_\n" } @_);
shared_preload_libraries = 'settlement'
settlement.wallet_url = 'http://127.0.0.1:9'
settlement.workers = 2
max_worker_processes = 16
max_prepared_transactions = 5
log_min_messages = info
CONF
}

# Pids of the workers of a database, in order.
sub workers_of
{
	my ($node, $database) = @_;
	return split /,/, $node->safe_psql('postgres', qq{
		SELECT string_agg(pid::text, ',' ORDER BY pid) FROM pg_stat_activity
		WHERE backend_type = 'settlement worker' AND datname = '$database'});
}

sub wait_until
{
	my ($node, $condition, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok($node->poll_query_until('postgres', "SELECT $condition"), $name);
}

# A database has that many workers, now or soon.
sub workers_are
{
	my ($node, $database, $n, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return wait_until($node, qq{count(*) = $n FROM pg_stat_activity
		WHERE backend_type = 'settlement worker' AND datname = '$database'}, $name);
}

# How often the log says something; with a number, waits until it has.
sub counted_in_log
{
	my ($node, $pattern, $at_least) = @_;
	my $n = 0;
	for (1 .. 600)
	{
		$n = () = slurp_file($node->logfile) =~ /$pattern/g;
		last if $n >= ($at_least // 0);
		select(undef, undef, undef, 0.1);
	}
	return $n;
}

sub trades_table
{
	my ($node, $database) = @_;
	$node->safe_psql($database, q{
		CREATE EXTENSION IF NOT EXISTS settlement;
		CREATE TABLE trades (
			id bigint PRIMARY KEY, symbol text DEFAULT 'BTC/USDT', buyer_id text DEFAULT 'a', seller_id text DEFAULT 'b',
			buyer_order_id text DEFAULT 'b1', seller_order_id text DEFAULT 's1', price numeric DEFAULT 1, quantity numeric DEFAULT 1);
		SELECT count(*) FROM settlement.attach('trades');
	});
	return;
}

1;
