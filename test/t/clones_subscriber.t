#!/usr/bin/perl
# A logical subscriber that gets settlement's own tables sends nothing of them.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Copies;
use Test::More;

my $s = Settlement->start(name => 'publisher', streaming => 1, conf => <<'CONF');
max_connections = 30
wal_level = logical
settlement.workers = 1
CONF
my $node = $s->node;
my $other = PostgreSQL::Test::Cluster->new('other');
$other->init;
$other->append_conf('postgresql.conf', join "\n", "shared_preload_libraries = 'settlement'", 'settlement.workers = 1',
	'max_worker_processes = 16', "settlement.wallet_url = '" . $s->wallet->url . "'");
$other->start;
$other->safe_psql('postgres', 'CREATE ROLE exchange; CREATE ROLE engine');

# A publication FOR ALL TABLES has ours, too; the subscriber settles trades of its own.
scenario a_subscriber_of_all_tables => sub {
	my $hostconn = $node->connstr . ' dbname=postgres';
	my $doctor = q{SELECT concat_ws(' ', status, detail, hint) FROM settlement.doctor() WHERE component = 'replication'};
	$other->safe_psql('postgres', 'CREATE DATABASE subscriber');
	$other->command_ok([ 'sh', '-c', "pg_dump --schema-only -d '" . $node->connstr('postgres') . "' | psql -X -q -v ON_ERROR_STOP=1 -d '" . $other->connstr('subscriber') . "'" ], 'the schema');
	$other->safe_psql('subscriber', q{DROP TRIGGER settlement_enqueue ON trades; SELECT settlement.attach('trades')});
	ok($other->poll_query_until('subscriber', 'SELECT state FROM settlement.status', 'ok'), 'it may send');
	$node->safe_psql('postgres', 'CREATE PUBLICATION everything FOR ALL TABLES');
	like($s->sql($doctor), qr/^warn publication "everything" includes settlement's own tables.*FOR ALL TABLES/, 'doctor() warns of the publication');
	my $asked = asked($s);
	$s->sql("SELECT settlement.pause('a backlog')");
	$other->safe_psql('subscriber', "CREATE SUBSCRIPTION everything CONNECTION '$hostconn' PUBLICATION everything WITH (copy_data = false)");
	ok($other->poll_query_until('subscriber', 'SELECT state FROM settlement.status', 'fenced'), 'it is fenced');
	$s->trades('replicated', 8);
	$node->wait_for_catchup('everything');
	is($other->safe_psql('subscriber', q{SELECT count(*) FROM settlement.queue WHERE trade_id LIKE 'replicated%'}), 8, 'the queue of the other side comes in');
	$other->safe_psql('subscriber', 'DELETE FROM settlement.pauses; SELECT settlement.rescan()');
	$other->safe_psql('subscriber', 'SELECT settlement._notify_workers()');
	ok($other->poll_query_until('subscriber', 'SELECT state FROM settlement.status', 'fenced'), 'it stays so');
	like($other->safe_psql('subscriber', $doctor), qr/^fail subscription "everything" writes settlement's table settlement\.\w+.*REFRESH PUBLICATION/, 'doctor() says why');
	my ($rc, undef, $error) = $other->psql('subscriber', q{SELECT settlement.adopt('me')});
	like($error, qr/a subscription writes settlement's tables/, 'adopt() refuses while it goes on');
	$other->safe_psql('subscriber', 'DROP SUBSCRIPTION everything');
	$other->safe_psql('subscriber', 'SELECT settlement._notify_workers()');
	ok($other->poll_query_until('subscriber', 'SELECT state FROM settlement.status', 'fenced'), 'fenced it remains: the rows are still there');
	is($other->safe_psql('subscriber', 'SELECT settlement._identity_problem()'), "a subscription wrote settlement's tables", 'and says why');
	is(asked($s), $asked, 'the wallet was asked nothing');
	# without a replica identity, retention would fail
	$s->sql("DELETE FROM settlement.attempts; SELECT settlement.resume()");
	$s->settled_is('replicated', 8, 'the publisher goes on');
	$s->sql('DROP PUBLICATION everything');
};

done_testing();
