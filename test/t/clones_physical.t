#!/usr/bin/perl
# Copies of the files of a server: nothing is sent before adopt(), nothing paid
# twice after it.  Without settlement.site_file, then with the same token for all.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Copies;
use Test::More;

my $s = Settlement->start(name => 'primary', streaming => 1, conf => <<'CONF');
max_connections = 30
shared_buffers = 16MB
settlement.workers = 1
min_wal_size = 32MB
CONF
my $primary = $s->node;
$primary->enable_archiving;
$primary->restart;

my $copied = 'its files were copied to another data directory';
my $recovered = 'it was recovered from a backup or to a point in time';
my $n = 0;

# Of a backup, or of files that lie in its place.
sub copy
{
	my ($name, $backup, %how) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name . $n);
	$node->init_from_backup($primary, $backup, %how);
	$node->append_conf('postgresql.conf', "archive_mode = off\nrecovery_target_action = promote\n" . ($how{conf} // ''));
	return $node;
}

# A new WAL segment, archived: what has happened can be restored.
sub archive
{
	my $file = $primary->safe_psql('postgres', 'SELECT pg_walfile_name(pg_current_wal_lsn())');
	$primary->safe_psql('postgres', 'SELECT pg_switch_wal()');
	$primary->poll_query_until('postgres', "SELECT last_archived_wal >= '$file' FROM pg_stat_archiver") or die "$file is not archived";
}

sub copies
{
	my $point = "point$n";
	my $backlog = backlog($s, sub {
		$primary->backup("base$n");
		$primary->safe_psql('postgres', "SELECT pg_create_restore_point('$point')");
		$primary->stop;
		$primary->backup_fs_cold("files$n");
		$primary->start;
		archive();
	});

	scenario a_base_backup_started_elsewhere => sub {
		my $node = copy('base', "base$n");
		$node->start;
		is_fenced($s, $node, 'postgres', $backlog, $copied);
		adopted($s, $node, 'postgres', $backlog);
		$node->stop('immediate');
	};

	scenario the_files_of_a_stopped_server => sub {
		my $node = copy('files', "files$n");
		$node->start;
		is_fenced($s, $node, 'postgres', $backlog, $copied);
		adopted($s, $node, 'postgres', $backlog);
		$node->restart;
		ok($node->poll_query_until('postgres', 'SELECT state FROM settlement.status', 'ok'), 'it is the one after a restart, too');
		$node->stop('immediate');
	};

	# The directory is the old one, to the inode, as after rsync or a restore over it.
	scenario recovery_to_an_earlier_time_in_the_old_place => sub {
		my $data = $primary->data_dir;
		my $backup = $primary->backup_dir . "/base$n";
		$primary->stop;
		PostgreSQL::Test::Utils::system_or_bail('cp', '-a', $data, "$data.kept");
		PostgreSQL::Test::Utils::system_or_bail('find', $data, '-mindepth', '1', '!', '-path', "$data/PG_VERSION", '-delete');
		PostgreSQL::Test::Utils::system_or_bail('sh', '-c', "cd '$backup' && tar -c --exclude=./PG_VERSION . | tar -x -C '$data'");
		$primary->append_conf('postgresql.conf', "recovery_target_name = '$point'\nrecovery_target_action = promote\narchive_mode = off\n");
		$primary->enable_restoring($primary, 0);
		$primary->start;
		is_fenced($s, $primary, 'postgres', $backlog, $recovered);
		adopted($s, $primary, 'postgres', $backlog);
		$primary->stop('immediate');
		PostgreSQL::Test::Utils::system_or_bail('sh', '-c', "find '$data' -mindepth 1 ! -path '$data/PG_VERSION' -delete; cd '$data.kept' && tar -c --exclude=./PG_VERSION . | tar -x -C '$data'; rm -r '$data.kept'");
		$primary->start;
		ok($primary->poll_query_until('postgres', 'SELECT state FROM settlement.status', 'ok'), 'the original is as it was');
	};

	scenario a_standby_that_stops_at_an_earlier_time => sub {
		my $node = copy('stopped', "base$n", has_restoring => 1, conf => "recovery_target_name = '$point'");
		$node->start;
		$node->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
		is_fenced($s, $node, 'postgres', $backlog, $recovered);
		$node->stop('immediate');
	};
	return;
}

copies();
$n++;

my $site = $primary->basedir . '/site';
PostgreSQL::Test::Utils::append_to_file($site, "token of this exchange\n");
$primary->append_conf('postgresql.conf', "settlement.site_file = '$site'");
$primary->restart;
$s->becomes("SELECT state || ' ' || left(place, 5) FROM settlement.status, settlement.identity", 'ok site:', 'settlement.site_file is set');
copies();

# The same token, and a promotion: that is a failover.
scenario promotion_where_the_token_is => sub {
	my $backlog = backlog($s, sub { archive() });
	my $node = copy('token', "base$n", has_restoring => 1);
	$node->start;
	$node->poll_query_until('postgres', "SELECT count(*) = 8 FROM trades WHERE trade_id LIKE '$backlog-%'");
	$node->promote;
	$node->safe_psql('postgres', 'SELECT settlement.resume()');
	ok($node->poll_query_until('postgres', "SELECT count(*) FROM trades WHERE trade_id LIKE '$backlog-%' AND settlement_status = 'SETTLED'", 8),
		'it sends by itself');
	cmp_ok($s->wallet->stats->{epoch}, '>', 1, 'under a higher epoch');
	Copies::books_agree($s, $node, 'postgres');
	$node->stop('immediate');
	$s->wallet->ok_json(POST => '/admin/epoch', { epoch => 1 });
};

scenario promotion_without_the_token => sub {
	my $backlog = backlog($s, sub { archive() });
	my $node = copy('staging', "base$n", has_restoring => 1);
	PostgreSQL::Test::Utils::append_to_file("$site.staging", "another token\n");
	$node->append_conf('postgresql.conf', "settlement.site_file = '$site.staging'");
	$node->start;
	$node->poll_query_until('postgres', "SELECT count(*) = 8 FROM trades WHERE trade_id LIKE '$backlog-%'");
	$node->promote;
	is_fenced($s, $node, 'postgres', $backlog, 'it was promoted where the token of its settlement.site_file is not');
	$node->stop('immediate');
};

done_testing();
