# Of all copies of a database only one sends.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Workers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $problem = 'SELECT coalesce(settlement._identity_problem(), $$none$$)';
my $epoch = 'SELECT epoch FROM settlement.identity';

sub state_is
{
	my ($node, $database, $state, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($node->poll_query_until($database, "SELECT send_state = '$state' FROM settlement._database_state()"), $name);
}

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', conf());
$primary->start;
$primary->safe_psql('postgres', 'CREATE DATABASE trading');
$primary->safe_psql('trading', 'CREATE EXTENSION settlement');
state_is($primary, 'trading', 'fenced', 'nothing is sent before a table is attached');
trades_table($primary, 'trading');
state_is($primary, 'trading', 'ok', 'attach says that this database may send');
is($primary->safe_psql('trading', $epoch), 1, 'epoch 1');
$primary->restart;
state_is($primary, 'trading', 'ok', 'a restart changes nothing');
is($primary->safe_psql('trading', $epoch), 1, '... nor the epoch');

subtest copies => sub {
	$primary->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE trading');
	state_is($primary, 'copy', 'fenced', 'CREATE DATABASE TEMPLATE');
	is($primary->safe_psql('copy', $problem), 'its data were copied from another database', '... and why');
	$primary->safe_psql('postgres', 'ALTER DATABASE trading RENAME TO renamed; ALTER DATABASE renamed RENAME TO trading');
	state_is($primary, 'trading', 'ok', 'a new name is no copy');

	$primary->safe_psql('trading', 'CHECKPOINT');
	$primary->backup('base');
	my $clone = PostgreSQL::Test::Cluster->new('clone');
	$clone->init_from_backup($primary, 'base');
	$clone->start;
	state_is($clone, 'trading', 'fenced', 'a base backup started elsewhere');
	is($clone->safe_psql('trading', $problem), 'its files were copied to another data directory', '... and why');
	$clone->stop;

	my $recovered = PostgreSQL::Test::Cluster->new('recovered');
	$recovered->init_from_backup($primary, 'base', standby => 0, has_restoring => 0);
	$recovered->append_conf('postgresql.conf', "restore_command = 'false'\nrecovery_target_action = 'promote'");
	$recovered->set_recovery_mode;
	$recovered->start;
	state_is($recovered, 'trading', 'fenced', 'a recovery to a point in time');
	is($recovered->safe_psql('trading', $problem),
		'it was recovered from a backup or to a point in time', '... and why');
	$recovered->stop;

	# a dump, into another cluster
	my $dump = $primary->basedir . '/dump.sql';
	$primary->run_log([ 'pg_dump', '-f', $dump, '-d', $primary->connstr('trading') ]);
	my $other = PostgreSQL::Test::Cluster->new('other');
	$other->init;
	$other->append_conf('postgresql.conf', conf());
	$other->start;
	$other->safe_psql('postgres', 'CREATE DATABASE trading');
	$other->run_log([ 'psql', '-X', '-q', '-f', $dump, '-d', $other->connstr('trading') ]);
	state_is($other, 'trading', 'fenced', 'a dump restored into another cluster');
	is($other->safe_psql('trading', $problem), 'its data come from another database system', '... and why');
	$other->safe_psql('trading', q{SELECT settlement.adopt('moved to a new server')});
	state_is($other, 'trading', 'ok', 'adopt() lets it send');
	like($other->safe_psql('trading', $epoch), qr/^1\d{6}$/, '... with a higher epoch');
	$other->stop;
};

subtest adopt => sub {
	$primary->safe_psql('copy', q{
		INSERT INTO trades (id) VALUES (1), (2), (3);
		INSERT INTO settlement.claims (boot, token, slot, claimed_at, format, ids)
		SELECT 1, 1, 0, '2000-01-01 UTC', 1, array_agg(id) FROM settlement.queue WHERE trade_id = '2';
		INSERT INTO trades (id) VALUES (4);
	});
	my ($rc, undef, $error) = $primary->psql('copy', q{SELECT settlement.adopt(' ')});
	like($error, qr/a reason is required/, 'not without a reason');
	my @before = workers_of($primary, 'copy');
	# by hand: what the workers would do with the rows is not the question here
	$primary->safe_psql('postgres', 'ALTER SYSTEM SET settlement.enabled = off');
	$primary->reload;
	state_is($primary, 'copy', 'disabled', 'sending is off');
	my $adopted = $primary->safe_psql('copy', q{SELECT settlement.adopt('a staging system of its own')});
	is($adopted, $primary->safe_psql('copy', $epoch), 'it returns the new epoch');
	cmp_ok($adopted, '>', 1, '... which is higher');
	is($primary->safe_psql('copy', q{
		SELECT string_agg(concat_ws(' ', trade_id, maybe_executed, lookup_first, attempts, format,
			first_sent_at = CASE trade_id WHEN '2' THEN '2000-01-01 UTC' ELSE enqueued_at END), ', ' ORDER BY id)
		FROM settlement.queue}),
		'1 t t 0 0 t, 2 t t 1 1 t, 3 t t 0 0 t, 4 t t 0 0 t',
		'what waits counts as maybe sent; claims leave their facts');
	is($primary->safe_psql('copy', 'SELECT count(*) FROM settlement.claims'), 0, 'no claim is left');
	is($primary->safe_psql('copy', q{
		SELECT concat_ws(' ', act, count, reason, details -> 'former' ->> 'epoch', details -> 'present' ->> 'epoch')
		FROM settlement.audit_log WHERE act = 'adopt'}), "adopt 4 a staging system of its own 1 $adopted", 'the audit log has it');
	is($primary->safe_psql('copy', $problem), 'none', 'it may send');
	workers_are($primary, 'copy', 2, 'its workers are back');
	$primary->safe_psql('copy', q{DELETE FROM settlement.queue});
	$primary->safe_psql('postgres', 'ALTER SYSTEM RESET settlement.enabled');
	$primary->reload;
	state_is($primary, 'copy', 'ok', 'it sends');
	$primary->safe_psql('postgres', 'DROP DATABASE copy');
};

subtest promotion => sub {
	my $standby = PostgreSQL::Test::Cluster->new('standby');
	$primary->backup('for_standby');
	$standby->init_from_backup($primary, 'for_standby', has_streaming => 1);
	$standby->append_conf('postgresql.conf', 'restart_after_crash = on');
	$standby->start;
	$primary->wait_for_catchup($standby);
	is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'settlement%'}), 0,
		'a standby has neither launcher nor workers');
	$primary->stop('immediate');
	$standby->promote;
	state_is($standby, 'trading', 'ok', 'the promoted standby sends by itself');
	my $raised = $standby->safe_psql('trading', $epoch);
	cmp_ok($raised, '>', 1, '... with a higher epoch');
	is(counted_in_log($standby, qr/sends from this server after its promotion, with epoch $raised/, 1), 1, '... raised once');
	$standby->restart;
	state_is($standby, 'trading', 'ok', 'a restart changes nothing');
	is($standby->safe_psql('trading', $epoch), $raised, '... nor the epoch');

	# site_file: recognized on the same data directory, then what counts
	my $site = $standby->basedir . '/site';
	append_to_file($site, "token of this exchange\n");
	$standby->append_conf('postgresql.conf', "settlement.site_file = '$site'");
	$standby->restart;
	state_is($standby, 'trading', 'ok', 'settlement.site_file may be set later');
	like($standby->safe_psql('trading', 'SELECT place FROM settlement.identity'), qr/^site:[0-9a-f]{64}$/, 'and is the place then');
	is($standby->safe_psql('trading', $epoch), $raised, 'with the same epoch');
	append_to_file($site, 'changed');
	$standby->restart;
	state_is($standby, 'trading', 'fenced', 'another token');
	unlink $site;
	is($standby->safe_psql('trading', $problem), 'settlement.site_file cannot be read', 'none');
	append_to_file($site, "token of this exchange\n");
	state_is($standby, 'trading', 'ok', 'the first one again');
	$standby->stop;
};

done_testing();
