#!/usr/bin/perl
# pg_upgrade keeps all that settlement knows, and makes another system of it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Copies;
use Test::More;

my $s = Settlement->start(name => 'old', conf => <<'CONF');
max_connections = 30
settlement.workers = 1
CONF
my $old = $s->node;

my $state = q{
	SELECT 'queue', id, leaf::text, trade_id, quote_amount, enqueued_at::text FROM settlement.queue
	UNION ALL SELECT 'dlq', id, leaf::text, trade_id, quote_amount, class FROM settlement.dlq
	UNION ALL SELECT 'attached', attached_id, relid::text, source, NULL, columns::text FROM settlement.attached
	UNION ALL SELECT 'identity', NULL, NULL, place, epoch, reason FROM settlement.identity
	UNION ALL SELECT 'audit', id, NULL, act, count, reason FROM settlement.audit_log
	UNION ALL SELECT 'sequence', last_value, NULL, NULL, NULL, NULL FROM settlement.queue_id_seq
	ORDER BY 1, 2};

# A queue that would be sent as soon as a worker runs.
$old->append_conf('postgresql.conf', 'settlement.enabled = off');
$old->reload;
$s->becomes('SELECT state FROM settlement.status', 'disabled', 'sending is off');
$s->trades('backlog', 8);
$s->trade('bad', quantity => 0);
my $before = $s->sql($state);
$old->stop;
$old->append_conf('postgresql.conf', 'settlement.enabled = on');

sub upgraded
{
	my ($name, @options) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	my $bin = $old->config_data('--bindir');
	my $asked = asked($s);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$node->init;
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'settlement'\nsettlement.workers = 1\nrestart_after_crash = on\n"
		. "settlement.wallet_url = '" . $s->wallet->url . "'");
	chdir $node->basedir or die $!;
	$node->command_ok([ 'pg_upgrade', '--no-sync', '-d', $old->data_dir, '-D', $node->data_dir, '-b', $bin, '-B', $bin,
			'-s', $node->host, '-p', $old->port, '-P', $node->port, @options ], "pg_upgrade @options");
	is(asked($s), $asked, 'neither cluster sends meanwhile');
	$node->start;
	is($node->safe_psql('postgres', $state), $before, 'all is as it was');
	is_fenced($s, $node, 'postgres', 'backlog', 'its data come from another database system');
	return $node;
}

scenario by_copying_files => sub {
	my $node = upgraded('copied');
	$node->safe_psql('postgres', "SELECT * FROM settlement.dlq_purge(all_rows => true, dry_run => false, reason => 'a bad one')");
	adopted($s, $node, 'postgres', 'backlog', 8);
	$node->stop;
};

# The first one has paid all meanwhile, as the old one could have.
scenario by_hard_links => sub {
	my $node = upgraded('linked', '--link');
	$node->safe_psql('postgres', "SELECT * FROM settlement.dlq_purge(all_rows => true, dry_run => false, reason => 'a bad one')");
	adopted($s, $node, 'postgres', 'backlog');
	$node->stop;
};

chdir '/';
done_testing();
